//! `--log DIR` or `--server ADDR`: where the events are that a command works on.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures::executor::block_on;
use quipu_client::{
    AggregateKey, ConnectError, Direction, Embedded, EventStore, Filter, NewEvent, Options,
    Position, ReadRequest, Remote, RemoteOptions,
};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

use crate::failure::Failure;
use crate::log_args::{LogArgs, check_whole, status_of};
use crate::session::Target;

/// A log in this process, or one behind a server.
#[derive(Args, Clone)]
#[group(required = true, multiple = false)]
pub(crate) struct StoreArgs {
    /// Folder of the log.
    #[arg(long, value_name = "DIR")]
    log: Option<PathBuf>,
    /// Address of a server: quipu://HOST:PORT, or HOST:PORT.
    #[arg(long, value_name = "ADDR")]
    server: Option<String>,
    /// How a log is opened.
    #[arg(skip)]
    pub(crate) options: Options,
}

/// An open store.
pub(crate) enum Store {
    Log(Embedded),
    Server(Server),
}

/// A connection, and what runs it.
pub(crate) struct Server {
    pub(crate) remote: Remote,
    _runtime: Runtime,
}

impl StoreArgs {
    /// Where one of them is given.
    pub(crate) fn given(log: Option<PathBuf>, server: Option<String>) -> Option<Self> {
        let options = Options::default();
        (log.is_some() || server.is_some()).then_some(Self { log, server, options })
    }

    /// Opens the store to append to it; a log that is missing is made.
    pub(crate) fn open(&self) -> Result<Store, Failure> {
        self.open_with(RemoteOptions::default(), LogArgs::open)
    }

    /// As [`Self::open`], but a log that is missing is not made.
    pub(crate) fn open_existing(&self) -> Result<Store, Failure> {
        if let (Some(_), Store::Log(log)) = (&self.log, self.open_to_read()?) {
            log.close();
        }
        self.open()
    }

    /// As [`Self::open`], and waits as long for a server that comes back. What is refused now is
    /// not tried again behind what came later: whoever imports wants the order of the file.
    pub(crate) fn open_patiently(&self, patience: Duration) -> Result<Store, Failure> {
        let mut options = RemoteOptions::default();
        (options.timeout, options.tries) = (patience, 1);
        self.open_with(options, LogArgs::open)
    }

    /// Opens the store to read from it; a log also beside a program that writes to it.
    pub(crate) fn open_to_read(&self) -> Result<Store, Failure> {
        self.open_with(RemoteOptions::default(), LogArgs::open_to_read)
    }

    /// What to send workers to, each with a session of its own; a log is made where it is
    /// missing, and closed at the end.
    pub(crate) fn open_target<T>(
        &self,
        work: impl FnOnce(Target<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.with_target(LogArgs::open, work)
    }

    /// As [`Self::open_target`], to read only.
    pub(crate) fn open_target_to_read<T>(
        &self,
        work: impl FnOnce(Target<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.with_target(LogArgs::open_to_read, work)
    }

    fn with_target<T>(
        &self,
        open: fn(&LogArgs) -> Result<Embedded, Failure>,
        work: impl FnOnce(Target<'_>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        if let Some(address) = &self.server {
            return work(Target::Server(address));
        }
        let log = self.log.clone().ok_or_else(neither)?;
        let log = open(&LogArgs { log, options: self.options.clone() })?;
        let done = work(Target::Log(&log));
        log.close();
        done
    }

    fn open_with(
        &self,
        options: RemoteOptions,
        open: fn(&LogArgs) -> Result<Embedded, Failure>,
    ) -> Result<Store, Failure> {
        match (&self.log, &self.server) {
            (Some(log), _) => {
                let (log, options) = (log.clone(), self.options.clone());
                open(&LogArgs { log, options }).map(Store::Log)
            }
            (None, Some(address)) => Server::connect(address, options).map(Store::Server),
            (None, None) => Err(neither()),
        }
    }
}

fn neither() -> Failure {
    Failure::Usage("give --log or --server".to_owned())
}

/// A connection that this runtime runs.
pub(crate) fn connect_on(
    runtime: &Runtime,
    address: &str,
    options: RemoteOptions,
) -> Result<Remote, Failure> {
    runtime.block_on(Remote::connect_with(address, options)).map_err(cannot_connect)
}

/// Why there is no connection, as the command says it.
pub(crate) fn cannot_connect(error: ConnectError) -> Failure {
    match error {
        ConnectError::Address { .. } | ConnectError::Tls { .. } => {
            Failure::Usage(error.to_string())
        }
        error => Failure::Unreachable(error.to_string()),
    }
}

impl Store {
    /// What both can do.
    pub(crate) fn events(&self) -> &dyn EventStore {
        match self {
            Self::Log(log) => log,
            Self::Server(server) => &server.remote,
        }
    }

    /// The same, to be shared. A server's is of use while this one is there.
    pub(crate) fn shared(&self) -> Arc<dyn EventStore> {
        match self {
            Self::Log(log) => Arc::new(log.clone()),
            Self::Server(server) => Arc::new(server.remote.clone()),
        }
    }

    /// A JSON event that happens now, with a fresh id.
    pub(crate) fn new_event(&self, key: AggregateKey, kind: String, data: Vec<u8>) -> NewEvent {
        match self {
            Self::Log(log) => log.new_event(key, kind, data),
            Self::Server(server) => server.remote.new_event(key, kind, data),
        }
    }

    /// The position of the last event.
    pub(crate) fn last_position(&self) -> Result<Position, Failure> {
        if let Self::Log(log) = self {
            return Ok(status_of(log)?.last_position);
        }
        let filter = Filter { include_system: true, ..Filter::default() };
        let direction = Direction::Backward;
        let last = ReadRequest { filter, direction, limit: Some(1), ..ReadRequest::default() };
        let last = block_on(self.events().read(last).next_batch())?;
        Ok(last.first().map_or(Position::START, quipu_client::Record::position))
    }

    /// Shows what a log's writer has stored since; a server does so by itself.
    pub(crate) fn refresh(&self) -> Result<(), Failure> {
        match self {
            Self::Log(log) => Ok(log.refresh()?),
            Self::Server(_) => Ok(()),
        }
    }

    /// Says no if there is damage: what was read is not all there was.
    pub(crate) fn check_whole(&self) -> Result<(), Failure> {
        match self {
            Self::Log(log) => check_whole(log),
            Self::Server(server) => check_whole_of_server(&server.status()?),
        }
    }
}

/// Damage that some read has met inside the log has failed the reads that it concerns.
fn check_whole_of_server(status: &Value) -> Result<(), Failure> {
    // Servers of earlier builds call a log damaged only if it ends there.
    let ends_early = status.get("ends_in_damage").unwrap_or(&status["damaged"]);
    if *ends_early == Value::Bool(true) {
        return Err(Failure::No("the server's log is damaged: not all was read".to_owned()));
    }
    Ok(())
}

impl Server {
    /// Connects, with a thread that runs the connection.
    pub(crate) fn connect(address: &str, options: RemoteOptions) -> Result<Self, Failure> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("quipu-client")
            .enable_all()
            .build()
            .map_err(|error| Failure::Unreachable(format!("cannot start a thread: {error}")))?;
        let remote = connect_on(&runtime, address, options)?;
        Ok(Self { remote, _runtime: runtime })
    }

    /// The state of the server's log: a document as `quipu status --json` prints it.
    pub(crate) fn status(&self) -> Result<Value, Failure> {
        let status = block_on(self.remote.status())?;
        serde_json::from_str(&status).map_err(|error| {
            Failure::Unreachable(format!("the server's status is no JSON: {error}"))
        })
    }
}
