//! A server on a disk, its clients, and what must hold of them when all faults are over.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "it keeps what failed, and takes the time until a server serves"
)]

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fastrand::Rng;
use futures::executor::block_on;
use quipu_client::{
    Direction, Embedded, EventStore, ExpectedVersion, NewEvent, Options, Position, ReadRequest,
    Remote, Timestamp, Uuid,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::client::{append_recorded, connect, remote_options};
use super::client_process::ClientProcess;
use super::crowd::{Crowd, Load, PROBE};
use super::loop_disk::{FileSystem, LoopDisk};
use super::recorder::{Recorded, Recorder};
use super::server::{ServerCommand, ServerProcess};
use super::workload::Made;
use crate::history::calls::{Expectation, Outcome};
use crate::history::checker::{Checked, check};
use crate::history::journal::{Entry, History};
use crate::history::stored::{Stored, key_of};

/// When nothing is wrong any more, an append must be answered within this time.
const SERVES_WITHIN: Duration = Duration::from_secs(5);
const PROBED_AGGREGATE: u32 = 999_999;

/// What a run of faults has to work with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The program that serves.
    pub quipu: PathBuf,
    /// Where logs and disks are made.
    pub folder: PathBuf,
    /// Where the history of a failure is kept.
    pub keep: PathBuf,
    pub load: Load,
    pub segment_bytes: u64,
    /// Ways to the disk, one of which each log gets.
    pub backends: Vec<String>,
}

/// What the log lies on.
pub enum Disk {
    Folder(TempDir),
    Loop(LoopDisk),
}

/// A server and its clients.
pub struct Site {
    pub rng: Rng,
    pub disk: Disk,
    pub command: ServerCommand,
    pub server: Option<ServerProcess>,
    pub process: Option<ClientProcess>,
    /// Where the clients connect to; not the server itself if something is between.
    pub address: String,
    pub runtime: Runtime,
    /// The longest that it took until an append was answered again.
    pub served_after: Duration,
    /// When the last fault was over.
    healed: Instant,
    setup: Setup,
    seed: u64,
    crowd: Option<Crowd>,
    probe: Recorder,
    out_of_turn: bool,
    scratch: TempDir,
}

impl Site {
    /// A server that runs, on a new log, without clients yet.
    pub fn open(setup: &Setup, disk: Disk, seed: u64) -> Result<Self> {
        let mut site = Self::closed(setup, disk, seed)?;
        site.start()?;
        site.address = format!("quipu://{}", site.server_address());
        Ok(site)
    }

    /// A server that is not started yet.
    pub fn closed(setup: &Setup, disk: Disk, seed: u64) -> Result<Self> {
        let scratch = tempfile::tempdir_in(&setup.folder)?;
        std::fs::create_dir(scratch.path().join("journals"))?;
        let log = match &disk {
            Disk::Folder(folder) => folder.path().join("log"),
            Disk::Loop(disk) => disk.log(),
        };
        let mut rng = Rng::with_seed(seed);
        let backend = rng.choice(&setup.backends).context("there is a way to the disk")?.clone();
        let command = ServerCommand {
            within: Vec::new(),
            quipu: setup.quipu.clone(),
            log,
            host: "127.0.0.1".to_owned(),
            port: 0,
            segment_bytes: setup.segment_bytes,
            backend,
            connections_max: 2_000,
            says: scratch.path().join("server.log"),
        };
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        Ok(Self {
            rng,
            out_of_turn: matches!(disk, Disk::Loop(_)),
            disk,
            command,
            server: None,
            process: None,
            address: String::new(),
            runtime,
            served_after: Duration::ZERO,
            healed: Instant::now(),
            setup: setup.clone(),
            seed,
            crowd: None,
            probe: Recorder::new(PROBE),
            scratch,
        })
    }

    /// Host and port of the server itself.
    pub fn server_address(&self) -> String {
        format!("{}:{}", self.command.host, self.command.port)
    }

    /// The clients begin.
    pub fn open_doors(&mut self) {
        let load = self.setup.load;
        self.crowd = Some(Crowd::begin(&self.runtime, &self.address, load, self.seed));
    }

    /// One more client, in a process of its own.
    pub fn start_process(&mut self) -> Result<()> {
        let journals = self.scratch.path().join("journals");
        self.process = Some(ClientProcess::start(&self.address, &journals, self.seed)?);
        Ok(())
    }

    pub fn start(&mut self) -> Result<()> {
        self.heal();
        self.server = Some(self.command.start()?);
        Ok(())
    }

    pub fn server(&mut self) -> Result<&mut ServerProcess> {
        self.server.as_mut().context("the server was not started")
    }

    /// Ends the server at once.
    pub fn kill(&mut self) -> Result<()> {
        match self.server.take() {
            Some(mut server) => server.kill(),
            None => Ok(()),
        }
    }

    pub fn loop_disk(&mut self) -> Result<&mut LoopDisk> {
        match &mut self.disk {
            Disk::Loop(disk) => Ok(disk),
            Disk::Folder(_) => bail!("the log is not on a disk of its own"),
        }
    }

    /// Lets the clients work.
    pub fn wait(&mut self, milliseconds: std::ops::Range<u64>) {
        std::thread::sleep(Duration::from_millis(self.rng.u64(milliseconds)));
    }

    /// Lets a server that was just begun come some way into opening its log.
    pub fn wait_while_it_opens(&mut self) {
        std::thread::sleep(Duration::from_micros(self.rng.u64(..40_000)));
    }

    /// From now on nothing is wrong any more; starting a server says so, too.
    pub fn heal(&mut self) {
        self.healed = Instant::now();
    }

    /// Nothing is wrong any more: somebody who comes now must be served soon.
    pub fn must_serve(&mut self) -> Result<()> {
        let served = self.serves_within(SERVES_WITHIN)?;
        ensure!(served, "no append was answered within {SERVES_WITHIN:?} after the fault");
        self.served_after = self.served_after.max(self.healed.elapsed());
        Ok(())
    }

    /// Whether an append of somebody who comes now is stored in time.
    pub fn serves_within(&mut self, time: Duration) -> Result<bool> {
        let start = Instant::now();
        while start.elapsed() < time {
            let left = time.saturating_sub(start.elapsed());
            match self.probe(left)? {
                Outcome::Stored { .. } => return Ok(true),
                _ => std::thread::sleep(Duration::from_millis(20)),
            }
        }
        Ok(false)
    }

    /// What somebody who comes now and appends one event is told.
    pub fn probe(&mut self, time: Duration) -> Result<Outcome> {
        let id = Uuid::from_u128(self.rng.u128(1..));
        let event = NewEvent::json(id, key_of(PROBED_AGGREGATE), "Probed", moment(), "{}");
        let expected = ExpectedVersion::Any;
        let expectation = Expectation { aggregate: PROBED_AGGREGATE, expected };
        let made = Made::new(vec![(PROBED_AGGREGATE, event)], vec![expectation]);
        let (number, address) = (self.probe.next_id(), self.address.clone());
        let unanswered = made.call(number);
        let append = async {
            let mut options = remote_options(PROBE);
            options.tries = 1;
            let store = connect(&address, options).await?;
            anyhow::Ok(append_recorded(&store, number, &made).await)
        };
        let answered = self.runtime.block_on(async { timeout(time, append).await });
        let call = match answered {
            Ok(answered) => {
                let (call, wrong) = answered?;
                self.probe.wrong(wrong);
                call
            }
            Err(_) => unanswered,
        };
        let outcome = call.outcome.clone();
        self.probe.end(Entry::Append(call))?;
        Ok(outcome)
    }

    /// All faults are over: everybody gets what is due, the server stops in order, and the history
    /// must be one that a log can have. Keeps the history if it is not.
    pub fn close(mut self) -> Result<(Checked, History)> {
        let mut history = History::default();
        match self.try_close(&mut history) {
            Ok(checked) => Ok((checked, history)),
            Err(error) => Err(self.keep(&history, error)),
        }
    }

    /// Says what failed, and where all that is known of it is kept.
    pub fn keep(self, history: &History, error: anyhow::Error) -> anyhow::Error {
        let place = self.setup.keep.join(self.seed.to_string());
        let kept = std::fs::create_dir_all(&place).map_err(Into::into).and_then(|()| {
            history.write(&mut BufWriter::new(File::create(place.join("history"))?))?;
            std::fs::copy(&self.command.says, place.join("server.log"))?;
            copy_folder(&self.command.log, &place.join("log"))
        });
        let Self { seed, command: ServerCommand { backend, .. }, .. } = &self;
        let kept = kept.map_or_else(|problem| format!(", but not all: {problem}"), |()| ".".into());
        let place = place.display();
        error.context(format!("seed {seed}, {backend}; history and log are in {place}{kept}"))
    }

    fn try_close(&mut self, history: &mut History) -> Result<Checked> {
        let mut recorded = Recorded::default();
        let crowd = match self.crowd.take() {
            Some(mut crowd) => {
                recorded.add(crowd.stop(&self.runtime)?);
                Some(crowd)
            }
            None => None,
        };
        if let Some(process) = self.process.take() {
            recorded.entries.extend(process.end()?);
        }
        if let Some(crowd) = crowd {
            let end = self.end()?;
            recorded.add(crowd.drain(&self.runtime, end)?);
        }
        let probe = std::mem::replace(&mut self.probe, Recorder::new(PROBE));
        recorded.add(probe.recorded());
        let server = self.server.take().context("the server runs in the end")?;
        server.stop()?;
        *history = History::of(recorded.entries);
        history.out_of_turn = self.out_of_turn;
        history.log = read_log(&self.command.log)?;
        if let Some(first) = recorded.wrong.first() {
            bail!("{} answers that should never be, the first: {first}", recorded.wrong.len());
        }
        let checked = check(history)?;
        self.verify()?;
        Ok(checked)
    }

    /// The last position that there is.
    pub fn end(&self) -> Result<Position> {
        let last = ReadRequest {
            direction: Direction::Backward,
            limit: Some(1),
            ..ReadRequest::default()
        };
        self.runtime.block_on(async {
            let store: Remote = connect(&self.address, remote_options(PROBE)).await?;
            let records = timeout(SERVES_WITHIN, store.read(last).next_batch()).await??;
            Ok(records.first().map(quipu_client::Record::position).unwrap_or_default())
        })
    }

    /// `quipu verify` finds nothing wrong.
    fn verify(&self) -> Result<()> {
        let log = &self.command.log;
        let output =
            Command::new(&self.command.quipu).args(["verify", "--log"]).arg(log).output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "quipu verify says: {said}");
        Ok(())
    }
}

/// When a probe happens does not matter to anybody.
fn moment() -> Timestamp {
    Timestamp::from_micros(1_800_000_000_000_000)
}

/// All that is in a log that was closed in order.
fn read_log(folder: &Path) -> Result<Vec<Stored>> {
    let log = Embedded::open_read_only(folder, Options::default())?;
    let report = log.recovery_report();
    ensure!(report.damage.is_none(), "{report}");
    let mut records = log.read(ReadRequest::default());
    let mut all = Vec::new();
    loop {
        let batch = block_on(records.next_batch())?;
        if batch.is_empty() {
            return Ok(all);
        }
        for record in batch {
            let stored = Stored::of(&record);
            all.push(stored.with_context(|| format!("nobody wrote {}", record.position()))?);
        }
    }
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

impl Disk {
    /// A folder.
    pub fn folder(setup: &Setup) -> Result<Self> {
        Ok(Self::Folder(tempfile::tempdir_in(&setup.folder)?))
    }

    /// A file system of its own.
    pub fn of(kind: FileSystem, setup: &Setup, bytes: u64) -> Result<Self> {
        Ok(Self::Loop(LoopDisk::new(kind, &setup.folder, bytes)?))
    }
}
