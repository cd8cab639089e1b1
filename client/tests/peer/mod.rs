//! A server that does exactly what a test says.
#![expect(clippy::disallowed_types, reason = "this server has sockets of its own")]

use std::time::Duration;

use bytes::BytesMut;
use quipu_client::{AggregateKey, NewEvent};
use quipu_client::{
    Append, AppendOutcome, Position, Remote, RemoteOptions, Timestamp, Uuid, Version,
};
use quipu_protocol::{Fault, Framer, MAGIC, Message, Progress, Request, Welcome};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

pub(crate) const LOG: Uuid = Uuid::from_u128(0x10c);
/// Longer than anything here takes on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// What `future` gives; a hang is a failure.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("nothing came in time")
}

/// Where clients connect.
pub(crate) struct Port {
    listener: TcpListener,
    pub(crate) address: String,
}

/// One connection, from the server's side.
pub(crate) struct Peer {
    stream: TcpStream,
    framer: Framer,
    buffer: BytesMut,
}

pub(crate) fn welcome(log_id: Uuid) -> Welcome {
    Welcome {
        protocol: 1,
        record_format: 1,
        log_id,
        event_bytes_max: 1_000,
        append_bytes_max: 10_000,
        append_events_max: 50,
        message_bytes_max: 20_000,
        window_events: 1_000,
        window_bytes: 8 << 20,
        streams_max: 1_000,
        heartbeat_ms: 5_000,
        dead_after_ms: 15_000,
        server: "a test".to_owned(),
    }
}

impl Port {
    pub(crate) async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it has one").port();
        Self { listener, address: format!("quipu://127.0.0.1:{port}") }
    }

    /// The next connection, before a word is said.
    pub(crate) async fn accept(&self) -> Peer {
        let (stream, _) = within(self.listener.accept()).await.expect("a connection");
        Peer { stream, framer: Framer::new(), buffer: BytesMut::new() }
    }

    pub(crate) async fn welcomed(&self, welcome: &Welcome) -> Peer {
        let mut peer = self.accept().await;
        peer.welcome(welcome).await;
        peer
    }

    /// A client and its peer.
    pub(crate) async fn pair(&self, options: RemoteOptions) -> (Remote, Peer) {
        self.pair_with(options, &welcome(LOG)).await
    }

    pub(crate) async fn pair_with(
        &self,
        options: RemoteOptions,
        welcome: &Welcome,
    ) -> (Remote, Peer) {
        let connect = Remote::connect_with(&self.address, options);
        let (remote, peer) = tokio::join!(connect, self.welcomed(welcome));
        (remote.expect("the peer welcomes it"), peer)
    }
}

impl Peer {
    pub(crate) async fn welcome(&mut self, welcome: &Welcome) {
        let Some((0, Request::Hello(_))) = self.receive().await else { panic!("no Hello") };
        self.framer.set_bytes_max(1 << 24);
        self.write(&MAGIC).await;
        self.send(0, welcome).await;
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("the client reads");
    }

    pub(crate) async fn send(&mut self, id: u64, message: &impl Message) {
        let mut bytes = BytesMut::new();
        message.encode(id, &mut bytes);
        self.write(&bytes).await;
    }

    /// The next message; None: the client has closed.
    pub(crate) async fn receive(&mut self) -> Option<(u64, Request)> {
        within(async {
            loop {
                match self.framer.advance(&mut self.buffer).expect("a client's messages") {
                    Progress::Frame(frame) => {
                        let request = Request::decode(&frame).expect("a client's message");
                        return Some((frame.request_id, request));
                    }
                    Progress::Need(_) => match self.stream.read_buf(&mut self.buffer).await {
                        Ok(0) | Err(_) => return None,
                        Ok(_) => {}
                    },
                }
            }
        })
        .await
    }

    /// The next message, which is an append: its request id and its first event's number.
    pub(crate) async fn append(&mut self) -> (u64, u128) {
        match self.receive().await {
            Some((id, Request::Append(request))) => {
                (id, request.append.events[0].event_id.as_u128())
            }
            other => panic!("an append should come, not {other:?}"),
        }
    }

    pub(crate) async fn acknowledge(&mut self, (id, number): (u64, u128)) {
        self.send(id, &outcome(number)).await;
    }

    pub(crate) async fn refuse(&mut self, id: u64, fault: impl Into<Fault>) {
        self.send(id, &fault.into()).await;
    }
}

/// What the peer answers to the append of this number.
pub(crate) fn outcome(number: u128) -> AppendOutcome {
    let position = u64::try_from(number).expect("small");
    let versions = vec![(AggregateKey::new("T", "1"), Version(position))];
    AppendOutcome { duplicate: false, positions: vec![Position(position)], versions }
}

/// One event, of this number.
pub(crate) fn append(number: u128) -> Append {
    let key = AggregateKey::new("T", "1");
    let id = Uuid::from_u128(number);
    Append::any(vec![NewEvent::json(id, key, "Created", Timestamp::from_micros(0), "{}")])
}
