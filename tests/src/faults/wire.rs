//! A wire between clients and a server that can do to their bytes what networks do.
#![expect(clippy::disallowed_types, reason = "the wire is made of sockets of its own")]

use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// What the wire does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    #[default]
    Through,
    /// Nobody hears anything, and nobody is told so.
    Silent,
    /// One byte a second, each way.
    Trickle,
    /// Each connection is reset after so many bytes, in the middle of whatever that is.
    ResetAfter(u64),
    /// New connections are closed at once.
    Closed,
}

/// How connections end that there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Ending {
    #[default]
    Closed,
    Reset,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    mode: Mode,
    /// How often all connections were ended, and how.
    ended: u64,
    ending: Ending,
}

/// A wire to a server.
pub struct Wire {
    address: String,
    state: watch::Sender<State>,
    task: AbortHandle,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Wire {
    /// A wire to this host and port.
    pub fn to(runtime: &Runtime, server: String) -> Result<Self> {
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = format!("quipu://{}", listener.local_addr()?);
        let (state, follow) = watch::channel(State::default());
        let task = runtime.spawn(carry_all(listener, server, follow)).abort_handle();
        Ok(Self { address, state, task })
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// From now on.
    pub fn set(&self, mode: Mode) {
        self.state.send_modify(|state| state.mode = mode);
    }

    /// Ends all connections, by a reset or in order.
    pub fn cut(&self, by_reset: bool) {
        self.state.send_modify(|state| {
            state.ended += 1;
            state.ending = if by_reset { Ending::Reset } else { Ending::Closed };
        });
    }
}

async fn carry_all(listener: TcpListener, server: String, state: watch::Receiver<State>) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            // No descriptor is left: one of those that are open will end.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        if state.borrow().mode != Mode::Closed {
            tokio::spawn(carry(client, server.clone(), state.clone()));
        }
    }
}

/// Carries until either side closes, or the wire ends it.
async fn carry(mut client: TcpStream, server: String, mut state: watch::Receiver<State>) {
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    let State { mode, ended, .. } = *state.borrow_and_update();
    let limit = match mode {
        Mode::ResetAfter(bytes) => bytes,
        _ => u64::MAX,
    };
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let by_reset = tokio::select! {
        by_reset = copy(from_client, to_server, limit, state.clone()) => by_reset,
        by_reset = copy(from_server, to_client, limit, state.clone()) => by_reset,
        changed = state.wait_for(|state| state.ended > ended) => {
            changed.is_ok_and(|state| state.ending == Ending::Reset)
        }
    };
    if by_reset {
        client.set_zero_linger().ok();
        server.set_zero_linger().ok();
    }
}

/// Copies one way; true if it is to end by a reset.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    limit: u64,
    mut state: watch::Receiver<State>,
) -> bool {
    let mut left = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut buffer = vec![0; 16 * 1024];
    while left > 0 {
        let trickles = state.borrow().mode == Mode::Trickle;
        let most = if trickles { 1 } else { left.min(buffer.len()) };
        let Ok(read @ 1..) = from.read(&mut buffer[..most]).await else { return false };
        if state.wait_for(|state| state.mode != Mode::Silent).await.is_err() {
            return false;
        }
        if trickles {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return false;
        }
        left -= read;
    }
    true
}
