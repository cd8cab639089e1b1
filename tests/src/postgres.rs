//! A private Postgres: made in a temporary folder, on a free loopback port, gone with its last
//! user.

#![expect(clippy::unwrap_used, reason = "test support: a failure is a panic with its reason")]
#![expect(clippy::print_stderr, reason = "a skipped test says so loudly")]
#![expect(clippy::disallowed_methods, reason = "test support lists programs and waits for them")]
#![expect(clippy::disallowed_types, reason = "a free port is found by taking it")]

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

use crate::running::{Running, output};

/// The user that Debian's package makes: a server refuses to be run by root.
const USER: &str = "postgres";
const READY: &str = "database system is ready to accept connections";
const START_MAX: Duration = Duration::from_mins(1);
/// A start while processes of a server that was killed linger fails, and is tried again.
const STARTS_MAX: u32 = 200;
const START_PAUSE: Duration = Duration::from_millis(50);

/// A cluster and its server.
pub struct Cluster {
    programs: PathBuf,
    port: u16,
    settings: Vec<String>,
    server: Mutex<Option<Running>>,
    databases: AtomicU32,
    // Last: the server is stopped before its folder is removed.
    folder: TempDir,
}

impl Cluster {
    /// The one that the tests of a process share; `None`, with a loud line, where there is no
    /// Postgres on this machine.
    pub fn shared() -> Option<Arc<Self>> {
        static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap();
        if let Some(cluster) = shared.upgrade() {
            return Some(cluster);
        }
        let cluster = Arc::new(Self::start(&[])?);
        *shared = Arc::downgrade(&cluster);
        Some(cluster)
    }

    /// One of its own, with these settings beside the usual ones, such as `ssl=on`.
    pub fn start(settings: &[&str]) -> Option<Self> {
        Self::start_in(TempDir::new().unwrap(), settings)
    }

    /// As [`Self::start`], in this folder.
    pub fn start_in(folder: TempDir, settings: &[&str]) -> Option<Self> {
        let programs = find_programs()?;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        give_to_user(folder.path());
        let cluster = Self {
            programs,
            port,
            settings: settings.iter().map(|it| (*it).to_owned()).collect(),
            server: Mutex::new(None),
            databases: AtomicU32::new(0),
            folder,
        };
        let mut initdb = cluster.command("initdb");
        initdb
            .args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8"])
            .args(["--no-sync", "--no-instructions", "--pgdata"])
            .arg(cluster.data());
        let made = output(&mut initdb);
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        drop(listener);
        cluster.restart();
        Some(cluster)
    }

    /// The folder of the cluster's files.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// A new database, as an address to connect to.
    pub fn database(&self) -> String {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{number}");
        self.query(&self.address("postgres"), &format!("CREATE DATABASE {name}"));
        self.address(&name)
    }

    /// The address of a database, for its superuser.
    pub fn address(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// What a query answers: rows of fields.
    #[track_caller]
    pub fn query(&self, address: &str, sql: &str) -> Vec<Vec<String>> {
        self.try_query(address, sql).unwrap_or_else(|problem| panic!("{sql}: {problem}"))
    }

    /// As [`Self::query`]; an error is what psql said.
    pub fn try_query(&self, address: &str, sql: &str) -> Result<Vec<Vec<String>>, String> {
        let mut psql = Command::new(self.programs.join("psql"));
        psql.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"])
            .args(["--field-separator", "\u{1f}", "--set", "ON_ERROR_STOP=1"])
            .args(["--command", sql, address]);
        let output = output(&mut psql);
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let text = String::from_utf8(output.stdout).unwrap();
        let fields = |line: &str| line.split('\u{1f}').map(str::to_owned).collect();
        Ok(text.lines().map(fields).collect())
    }

    /// The one field that a query answers.
    #[track_caller]
    pub fn value(&self, address: &str, sql: &str) -> String {
        let rows = self.query(address, sql);
        assert!(rows.len() == 1 && rows[0].len() == 1, "{sql}: {rows:?}");
        rows[0][0].clone()
    }

    /// Ends the server as a crash would.
    pub fn kill(&self) {
        if let Some(mut server) = self.server.lock().unwrap().take() {
            server.kill().unwrap();
            server.wait().unwrap();
        }
    }

    /// Stops the server in order, connections or not.
    pub fn stop(&self) {
        if let Some(mut server) = self.server.lock().unwrap().take() {
            kill_process(Pid::from_child(&server), Signal::INT).unwrap();
            server.wait().unwrap();
        }
    }

    /// Starts the server, and waits until it can be connected to.
    pub fn restart(&self) {
        for _ in 0..STARTS_MAX {
            if let Some(server) = self.try_start() {
                *self.server.lock().unwrap() = Some(server);
                return;
            }
            std::thread::sleep(START_PAUSE);
        }
        panic!("Postgres does not start in {}", self.data().display());
    }

    fn try_start(&self) -> Option<Running> {
        let folder = self.folder.path().display();
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).args(["-p", &self.port.to_string()]);
        let usual = [
            "listen_addresses=127.0.0.1".to_owned(),
            format!("unix_socket_directories={folder}"),
            // A process that is killed loses nothing that the system has been told.
            "fsync=off".to_owned(),
            "lc_messages=C".to_owned(),
        ];
        for setting in usual.iter().chain(&self.settings) {
            command.args(["-c", setting]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let (ready, is_ready) = channel();
        let (started, starts) = channel();
        // It ends with the thread that has started it: with this one, which ends after it.
        std::thread::spawn(move || {
            let mut server = Running::start(&mut command);
            let log = server.stderr.take().unwrap();
            started.send(server).ok();
            drain(BufReader::new(log), &ready);
        });
        let server = starts.recv().unwrap();
        wait_until_ready(&is_ready).then_some(server)
    }

    /// One of Postgres' programs, as the user that may run them. It ends with the thread that
    /// starts it, also where that is killed with the whole process.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "QUIT"]);
        if geteuid().is_root() {
            command.args([format!("--reuid={USER}"), format!("--regid={USER}")]);
            command.arg("--clear-groups");
        }
        command.arg(self.programs.join(program)).current_dir(self.folder.path());
        command
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Says when a line says that the server is ready, and reads on, so that it is never held up.
fn drain(log: impl BufRead, ready: &Sender<()>) {
    for line in log.split(b'\n').map_while(Result::ok) {
        if String::from_utf8_lossy(&line).contains(READY) {
            ready.send(()).ok();
        }
    }
}

/// False where it has ended instead.
fn wait_until_ready(is_ready: &Receiver<()>) -> bool {
    let is_ready = is_ready.recv_timeout(START_MAX);
    assert_ne!(is_ready, Err(RecvTimeoutError::Timeout), "Postgres gets ready in time");
    is_ready.is_ok()
}

/// Lets the user that runs the server into a folder or file.
pub fn give_to_user(path: &Path) {
    if geteuid().is_root() {
        let id = |flag: &str| {
            let output = output(Command::new("id").args([flag, USER]));
            String::from_utf8(output.stdout).unwrap().trim().parse::<u32>().unwrap()
        };
        chown(path, Some(id("-u")), Some(id("-g"))).unwrap();
    }
}

/// Debian keeps each version's programs apart; the newest is taken.
fn find_programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let versions = versions.filter_map(|entry| {
        let version: u32 = entry.file_name().to_str()?.parse().ok()?;
        let programs = entry.path().join("bin");
        programs.join("postgres").exists().then_some((version, programs))
    });
    let newest = versions.max();
    if newest.is_none() {
        eprintln!("SKIPPED: there is no Postgres under /usr/lib/postgresql (Debian: postgresql)");
    }
    newest.map(|(_, programs)| programs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLDS: &str = "QUIPU_TEST_HOLDS_POSTGRES";

    /// Runs in a process of its own, until that is killed.
    #[test]
    #[ignore = "a part of the test below"]
    fn holder() {
        if std::env::var_os(HOLDS).is_none() {
            return;
        }
        // Not with the thread: tests that share a cluster are threads that end.
        let starts = std::thread::spawn(|| Cluster::start(&[]));
        let cluster = starts.join().unwrap();
        eprintln!("port {}", cluster.as_ref().map_or(0, |cluster| cluster.port));
        std::thread::sleep(Duration::from_hours(1));
    }

    #[test]
    fn a_server_ends_with_a_process_that_is_killed_and_not_before() {
        let mut holder = Command::new(std::env::current_exe().unwrap());
        holder.args(["postgres::tests::holder", "--exact", "--ignored", "--nocapture"]);
        holder.env(HOLDS, "1").stdout(Stdio::null()).stderr(Stdio::piped());
        let mut holder = Running::start(&mut holder);
        let port = holder.within(|holder| {
            let mut lines = BufReader::new(holder.stderr.take().unwrap()).lines();
            let port = lines.find_map(|line| line.unwrap().strip_prefix("port ")?.parse().ok());
            port.expect("it says its port")
        });
        if port == 0 {
            return;
        }
        let is_there = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        assert!(is_there());
        drop(holder);
        let is_gone = (0..600).any(|_| {
            std::thread::sleep(Duration::from_millis(50));
            !is_there()
        });
        assert!(is_gone, "nobody is left to end it");
    }
}
