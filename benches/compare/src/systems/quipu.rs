//! Quipu, by its own `quipu serve` and `quipu bench`.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde::Deserialize;

use super::{Environment, Meter, Running};
use crate::figures::{Figures, Percentiles, Tally};
use crate::folder::Folder;
use crate::process::{Server, output_of, tied};
use crate::workload::{AGGREGATES, LIVE_PER_S, Shape, Workload};

pub(super) const EMBEDDED: &str = "its defaults; a thread a writer; exact versions";
pub(super) const SERVED: &str =
    "its defaults but `--workers 1`; a connection a client, all on one thread; exact versions";
pub(super) const ECHO: &str = "the same client and framing; the server answers at once";

/// What `quipu bench` prints.
#[derive(Deserialize)]
struct Measures {
    events: u64,
    seconds: f64,
    latency_us: Option<Percentiles>,
    cpu_seconds: f64,
}

/// One durable write after another to the bare disk.
#[derive(Clone, Debug, serde::Serialize, Deserialize)]
pub(crate) struct DiskRun {
    pub(crate) space: String,
    pub(crate) write_bytes: u64,
    pub(crate) in_flight: u64,
    pub(crate) mb_per_s: f64,
    pub(crate) latency_us: Percentiles,
}

/// A log in the process of the bench.
pub(super) struct Embedded<'a> {
    environment: &'a Environment,
    folder: Folder,
}

/// A log behind a server.
pub(super) struct Served<'a> {
    environment: &'a Environment,
    address: String,
    // Stopped before its folder goes.
    server: Server,
    folder: Folder,
}

/// No log at all.
pub(super) struct Echo<'a>(&'a Environment);

/// What the bare disk gives, a second for each kind of write.
pub(crate) fn bench_disk(environment: &Environment) -> Result<Vec<DiskRun>> {
    let mut command = tied(&environment.quipu, None);
    command.args(["bench", "disk", "--seconds", "1", "--space", "burst", "--space", "zeroed"]);
    let printed = output_of(command.arg("--json").arg("--log").arg(&environment.folder))?;
    printed.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

impl<'a> Embedded<'a> {
    pub(super) fn new(environment: &'a Environment, folder: Folder) -> Self {
        Self { environment, folder }
    }

    fn bench(&self, what: &str) -> Command {
        let mut command = tied(&self.environment.quipu, None);
        command.args(["bench", what, "--json", "--log"]).arg(self.folder.path());
        command
    }
}

impl Running for Embedded<'_> {
    fn measure(&mut self, workload: Workload, duration: Duration) -> Result<Option<Figures>> {
        let mut command = match (workload.shape(), workload) {
            (Some(shape), _) => shaped(self.bench("append"), shape, duration),
            (None, Workload::CatchUp) => self.bench("read"),
            (None, _) => return Ok(None),
        };
        let disk_bytes_before = self.folder.used_bytes();
        let measures = finished(&mut command)?;
        let grown = self.folder.used_bytes().saturating_sub(disk_bytes_before);
        Ok(Some(measures.figures(workload.shape().map(|_| grown))))
    }
}

impl<'a> Served<'a> {
    pub(super) fn start(environment: &'a Environment, folder: Folder) -> Result<Self> {
        let mut command = tied(&environment.quipu, None);
        command.args(["serve", "--json", "--http", "none", "--workers", "1"]);
        command.args(["--listen", "127.0.0.1:0", "--log"]).arg(folder.path());
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut server = Server::start(&mut command, "quipu serve", Signal::TERM)?;
        let mut line = String::new();
        let stdout = server.stdout().context("the server's output is not a pipe")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let ready: serde_json::Value = serde_json::from_str(&line)
            .with_context(|| format!("`quipu serve` is not ready but says {line:?}"))?;
        let address = ready["listen"].as_str().context("`quipu serve` names no address")?;
        Ok(Self { environment, address: address.to_owned(), server, folder })
    }

    fn bench(&self, what: &str) -> Command {
        let mut command = tied(&self.environment.quipu, None);
        command.args(["bench", what, "--json", "--server", &self.address]);
        command
    }

    /// A subscriber that hears when each event was made, while one connection appends.
    fn live(&self, duration: Duration) -> Result<Measures> {
        let seconds = duration.as_secs().to_string();
        let mut subscribe = self.bench("subscribe");
        subscribe.args(["--from-end", "--latency-from", "timestamp", "--seconds", &seconds]);
        let subscriber = subscribe.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let one = Shape { clients: 1, batch: 1 };
        let mut append = shaped(self.bench("append"), one, duration);
        finished(append.args(["--rate", &LIVE_PER_S.to_string()]))?;
        let heard = subscriber.wait_with_output()?;
        if !heard.status.success() {
            bail!("`quipu bench subscribe` failed with {}", heard.status);
        }
        Ok(serde_json::from_slice(&heard.stdout)?)
    }
}

impl Running for Served<'_> {
    fn measure(&mut self, workload: Workload, duration: Duration) -> Result<Option<Figures>> {
        let meter = Meter::start(&self.server, &self.folder);
        let measures = match (workload.shape(), workload) {
            (Some(shape), _) => finished(&mut shaped(self.bench("append"), shape, duration))?,
            (None, Workload::Live) => self.live(duration)?,
            (None, _) => finished(&mut self.bench("subscribe"))?,
        };
        let used = meter.figures(workload, &Tally::nothing(), &self.server, &self.folder);
        let figures = measures.figures(used.disk_bytes);
        Ok(Some(Figures { cpu_seconds: used.cpu_seconds, ..figures }))
    }
}

impl<'a> Echo<'a> {
    pub(super) fn new(environment: &'a Environment) -> Self {
        Self(environment)
    }
}

impl Running for Echo<'_> {
    fn measure(&mut self, workload: Workload, duration: Duration) -> Result<Option<Figures>> {
        let Some(shape) = workload.shape() else { return Ok(None) };
        let mut command = tied(&self.0.quipu, None);
        command.args(["bench", "echo", "--json"]);
        let measures = finished(&mut shaped(command, shape, duration))?;
        Ok(Some(measures.figures(None)))
    }
}

impl Measures {
    fn figures(&self, disk_bytes: Option<u64>) -> Figures {
        Figures {
            events: self.events,
            seconds: self.seconds,
            latency_us: self.latency_us,
            cpu_seconds: self.cpu_seconds,
            disk_bytes,
        }
    }
}

fn shaped(mut command: Command, shape: Shape, duration: Duration) -> Command {
    let Shape { clients, batch } = shape;
    let options = [
        ("--writers", clients as u64),
        ("--in-flight", 1),
        ("--batch", batch as u64),
        ("--aggregates", AGGREGATES as u64),
        ("--event-bytes", crate::events::PAYLOAD_BYTES as u64),
        ("--seconds", duration.as_secs()),
    ];
    command.args(options.iter().flat_map(|(name, value)| [(*name).to_owned(), value.to_string()]));
    command
}

fn finished(command: &mut Command) -> Result<Measures> {
    Ok(serde_json::from_str(&output_of(command)?)?)
}
