//! A wire between a client and a server that a test can cut after any byte.

#![expect(clippy::unwrap_used, reason = "test support: a failure is a panic with its reason")]
#![expect(clippy::disallowed_types, reason = "the wire is made of sockets of its own")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// After how many bytes the first connection is cut.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    Never,
    /// Of what the client says.
    Sent(usize),
    /// Of what the server says.
    Received(usize),
}

/// A wire to a server: the first connection is cut, all later ones hold.
pub struct Proxy {
    pub address: String,
    traffic: Arc<Traffic>,
    task: AbortHandle,
}

#[derive(Default)]
struct Traffic {
    sent: AtomicUsize,
    received: AtomicUsize,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    pub async fn to(port: u16, cut: Cut) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("quipu://{}", listener.local_addr().unwrap());
        let traffic = Arc::new(Traffic::default());
        let task = tokio::spawn(carry_all(listener, port, cut, Arc::clone(&traffic)));
        Self { address, traffic, task: task.abort_handle() }
    }

    /// Bytes that the client and the server have said.
    pub fn traffic(&self) -> (usize, usize) {
        let Traffic { sent, received } = &*self.traffic;
        (sent.load(Ordering::Relaxed), received.load(Ordering::Relaxed))
    }
}

async fn carry_all(listener: TcpListener, port: u16, first: Cut, traffic: Arc<Traffic>) {
    let mut cut = first;
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        tokio::spawn(carry(client, server, cut, Arc::clone(&traffic)));
        cut = Cut::Never;
    }
}

/// Carries until either side is cut or closes; both are closed then.
async fn carry(mut client: TcpStream, mut server: TcpStream, cut: Cut, traffic: Arc<Traffic>) {
    let (sent_max, received_max) = match cut {
        Cut::Never => (usize::MAX, usize::MAX),
        Cut::Sent(bytes) => (bytes, usize::MAX),
        Cut::Received(bytes) => (usize::MAX, bytes),
    };
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    tokio::select! {
        () = copy(from_client, to_server, sent_max, &traffic.sent) => {}
        () = copy(from_server, to_client, received_max, &traffic.received) => {}
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    bytes_max: usize,
    traffic: &AtomicUsize,
) {
    let mut left = bytes_max;
    let mut buffer = vec![0; 16 * 1024];
    while left > 0 {
        let most = left.min(buffer.len());
        let Ok(read @ 1..) = from.read(&mut buffer[..most]).await else { return };
        traffic.fetch_add(read, Ordering::Relaxed);
        left -= read;
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
