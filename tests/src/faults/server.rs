//! A real `quipu serve`, to be killed, stopped and started again on the same port.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "it starts a process, keeps what it says, and waits for it"
)]

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// How long it may take until a server is ready, or has stopped, on a machine that does much else.
const PATIENCE: Duration = Duration::from_mins(1);

/// How to start a server.
#[derive(Clone)]
pub struct ServerCommand {
    /// What runs it: a shell, another user, another network namespace; usually nothing.
    pub within: Vec<String>,
    pub quipu: PathBuf,
    pub log: PathBuf,
    /// Where it listens; the port is kept once it is known.
    pub host: String,
    pub port: u16,
    pub segment_bytes: u64,
    /// How its groups reach the disk.
    pub backend: String,
    pub connections_max: usize,
    /// Takes what it says.
    pub says: PathBuf,
}

/// A running server; killed when it is dropped.
pub struct ServerProcess {
    child: Child,
    said: mpsc::Receiver<String>,
}

impl ServerCommand {
    /// Starts it and waits until it is ready.
    pub fn start(&mut self) -> Result<ServerProcess> {
        let mut last = None;
        // A client may have taken the port for its own end meanwhile.
        for _ in 0..5 {
            match self.begin().and_then(|mut server| {
                self.port = server.wait_ready()?;
                Ok(server)
            }) {
                Ok(server) => return Ok(server),
                Err(error) => last = Some(error),
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        let said = std::fs::read_to_string(&self.says).unwrap_or_default();
        let lines: Vec<&str> = said.lines().collect();
        let tail = lines[lines.len().saturating_sub(12)..].join("\n");
        Err(last.context("not tried")?.context(format!("its last words:\n{tail}")))
    }

    /// Starts it.
    pub fn begin(&self) -> Result<ServerProcess> {
        let listen = format!("{}:{}", self.host, self.port);
        let says = OpenOptions::new().create(true).append(true).open(&self.says)?;
        let mut words = self.within.iter().map(Into::into).collect::<Vec<std::ffi::OsString>>();
        words.push(self.quipu.clone().into());
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .args(["serve", "--listen", &listen, "--http", "none", "--json", "--allow-remote"])
            .args(["--segment-bytes", &self.segment_bytes.to_string()])
            .args(["--backend", &self.backend])
            .args(["--connections-max", &self.connections_max.to_string(), "--log"])
            .arg(&self.log)
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(says)
            .spawn()
            .with_context(|| format!("cannot start {}", words[0].to_string_lossy()))?;
        let out = child.stdout.take().context("its output is piped")?;
        let (tell, said) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(ServerProcess { child, said })
    }
}

impl ServerProcess {
    /// Waits until it says where it listens.
    fn wait_ready(&mut self) -> Result<u16> {
        let Ok(line) = self.said.recv_timeout(PATIENCE) else {
            let status = self.child.try_wait()?;
            self.kill()?;
            bail!("the server was not ready within {PATIENCE:?}; it ended with {status:?}");
        };
        let said: serde_json::Value = serde_json::from_str(&line)?;
        let listen = said["listen"].as_str().context("it says where it listens")?;
        let (_, port) = listen.rsplit_once(':').context("an address has a port")?;
        Ok(port.parse()?)
    }

    /// Ends it at once, and waits until nothing of it is left.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.child), signal)?;
        Ok(())
    }

    /// Whether it has not ended by itself.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Ends it in order.
    pub fn stop(mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let mut waited = Duration::ZERO;
        while self.is_running()? {
            ensure!(waited < PATIENCE, "the server did not stop within {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(5));
            waited += Duration::from_millis(5);
        }
        let status = self.child.wait()?;
        ensure!(status.success(), "the server stopped with {status}");
        Ok(())
    }

    /// Memory that it has in use, in bytes, without what it has mapped of its files.
    pub fn resident_bytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|line| line.starts_with("RssAnon:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1)).context("RssAnon")?;
        Ok(kib.parse::<u64>()? * 1_024)
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.kill().ok();
    }
}
