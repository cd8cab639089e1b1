//! A server on a log of its own, and a client that can say anything.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_types, reason = "tests speak to a real socket")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use quipu_engine::{
    Access, Backend, DiskStorage, Environment, EventLog, LogOptions, Mapping, System,
};
use quipu_protocol::{
    AppendRequest, Credit, Fault, Framer, Hello, MAGIC, Message, Progress, Response, Subscribe,
    Welcome,
};
use quipu_server::{Load, Ports, Server, ServerOptions};
use quipu_types::{
    AggregateKey, Append, AppendOutcome, NewEvent, Position, Record, StartAfter, SubscribeRequest,
    Timestamp, Uuid,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than anything a test waits for.
const LONG: Duration = Duration::from_secs(20);

/// A server on a log of its own.
pub(crate) struct Served {
    pub(crate) log: Arc<EventLog>,
    pub(crate) server: Server,
    pub(crate) folder: TempDir,
}

fn environment(folder: &TempDir) -> Environment {
    let storage =
        DiskStorage::open(folder.path(), Access::ReadWrite, Backend::Auto, Mapping::Mapped);
    Environment {
        storage: Arc::new(storage.unwrap()),
        clock: Arc::new(System),
        entropy: Arc::new(System),
    }
}

pub(crate) fn log_options() -> LogOptions {
    let mut options = LogOptions { segment_bytes: 4 << 20, ..LogOptions::default() };
    options.limits.append_bytes_max = 1 << 20;
    options.limits.event_bytes_max = 3 << 18;
    options
}

pub(crate) fn open(folder: &TempDir) -> EventLog {
    open_with(folder, log_options())
}

pub(crate) fn open_with(folder: &TempDir, options: LogOptions) -> EventLog {
    EventLog::open(environment(folder), options).unwrap()
}

/// A log that stores nothing unless it is stepped.
pub(crate) fn open_stepped(folder: &TempDir) -> EventLog {
    EventLog::open_stepped(environment(folder), log_options(), &mut |_, _| {}).unwrap()
}

/// Serves a new log on ports that are free.
pub(crate) async fn serve(options: ServerOptions) -> Served {
    let folder = tempfile::tempdir().unwrap();
    let log = open(&folder);
    serve_log(log, folder, options).await
}

pub(crate) async fn serve_log(log: EventLog, folder: TempDir, options: ServerOptions) -> Served {
    let log = Arc::new(log);
    let ports = Ports::open("127.0.0.1:0", Some("127.0.0.1:0"), false).await.unwrap();
    let server = Server::start(Arc::clone(&log), ports, options);
    Served { log, server, folder }
}

/// Time-outs that a test can wait for.
pub(crate) fn hasty() -> ServerOptions {
    let soon = Duration::from_millis(200);
    ServerOptions {
        handshake_within: soon,
        progress_within: soon,
        heartbeat: Duration::from_millis(100),
        dead_after: Duration::from_millis(400),
        write_stall: Duration::from_millis(400),
        linger: Duration::from_millis(100),
        ..ServerOptions::default()
    }
}

impl Served {
    pub(crate) fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// A connection that has said nothing.
    pub(crate) async fn silent(&self) -> Client {
        Client::connect(self.address()).await
    }

    /// A connection after its handshake.
    pub(crate) async fn client(&self) -> Client {
        let mut client = self.silent().await;
        client.greet(&Hello::new("test", None)).await.unwrap();
        client
    }

    /// Waits until the server holds nothing.
    pub(crate) async fn holds_nothing(&self) {
        let mut last = Load::default();
        for _ in 0..400 {
            last = self.server.load();
            if last == Load::default() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("the server still holds {last:?}");
    }
}

/// A client that can say anything.
pub(crate) struct Client {
    pub(crate) socket: TcpStream,
    framer: Framer,
    buffer: BytesMut,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.unwrap();
        Self { socket, framer: Framer::new(), buffer: BytesMut::new() }
    }

    pub(crate) async fn greet(&mut self, hello: &Hello) -> Result<Welcome, Fault> {
        let mut bytes = BytesMut::from(&MAGIC[..]);
        hello.encode(0, &mut bytes);
        self.send(&bytes).await;
        match self.next().await {
            Some((0, Response::Welcome(welcome))) => {
                self.framer.set_bytes_max(welcome.message_bytes_max as usize);
                Ok(welcome)
            }
            Some((0, Response::Error(fault))) => Err(fault),
            other => panic!("{other:?} where Welcome belongs"),
        }
    }

    /// What cannot be sent is the server's answer too: it comes with the next read.
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.ok();
    }

    pub(crate) async fn ask(&mut self, id: u64, message: &impl Message) {
        let mut bytes = BytesMut::new();
        message.encode(id, &mut bytes);
        self.send(&bytes).await;
    }

    /// The next message that is no sign of life; none at the end of the connection.
    pub(crate) async fn next(&mut self) -> Option<(u64, Response)> {
        loop {
            match self.next_of_any_kind().await? {
                (_, Response::Ping(_) | Response::Pong(_)) => {}
                other => return Some(other),
            }
        }
    }

    pub(crate) async fn next_of_any_kind(&mut self) -> Option<(u64, Response)> {
        loop {
            if let Progress::Frame(frame) = self.framer.advance(&mut self.buffer).unwrap() {
                return Some((frame.request_id, Response::decode(&frame).unwrap()));
            }
            let read = timeout(LONG, self.socket.read_buf(&mut self.buffer)).await;
            if !matches!(read.expect("the server answers in time"), Ok(1..)) {
                return None;
            }
        }
    }

    /// The error that the server answers with.
    pub(crate) async fn fault(&mut self) -> (u64, Fault) {
        match self.next().await {
            Some((id, Response::Error(fault))) => (id, fault),
            other => panic!("{other:?} where an error belongs"),
        }
    }

    /// That nothing comes any more but the end.
    pub(crate) async fn is_closed(&mut self) {
        let last = self.next().await;
        assert!(last.is_none(), "{last:?} where the connection ends");
    }

    pub(crate) async fn appended(&mut self) -> (u64, AppendOutcome) {
        match self.next().await {
            Some((id, Response::Appended(outcome))) => (id, outcome),
            other => panic!("{other:?} where an acknowledgement belongs"),
        }
    }

    pub(crate) async fn append(&mut self, id: u64, events: Vec<NewEvent>) -> AppendOutcome {
        self.ask(id, &AppendRequest::from(Append::any(events))).await;
        let (given, outcome) = self.appended().await;
        assert_eq!(given, id);
        outcome
    }

    pub(crate) async fn records(&mut self, id: u64) -> Vec<Record> {
        match self.next().await {
            Some((given, Response::Records(records))) if given == id => records.0,
            other => panic!("{other:?} where records belong"),
        }
    }
}

pub(crate) fn event(id: u128) -> NewEvent {
    event_of(id, "{}".to_owned())
}

pub(crate) fn event_of(id: u128, payload: String) -> NewEvent {
    let key = AggregateKey::new("Call", (id % 3).to_string());
    NewEvent::json(Uuid::from_u128(id), key, "Made", Timestamp::from_micros(1), payload)
}

pub(crate) fn subscribe(after: u64, credit: Credit) -> Subscribe {
    let after = StartAfter::Position(Position(after));
    Subscribe { request: SubscribeRequest { after, ..SubscribeRequest::default() }, credit }
}

pub(crate) const MUCH: Credit = Credit { events: 10_000, bytes: 64 << 20 };
