//! Peers that cost a server more than they are worth: many, slow, or gone again at once.
#![expect(clippy::disallowed_types, reason = "they are bare sockets")]

use std::time::Duration;

use bytes::BytesMut;
use futures::future::join_all;
use quipu_client::EventStore;
use quipu_protocol::{Hello, MAGIC, Message};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::client::{connect, remote_options};
use crate::history::stored::key_of;

/// Opens so many connections as fast as it goes, says nothing, and holds them for a while. Returns
/// how many there were.
pub(super) async fn crowd(server: &str, connections: usize, hold: Duration) -> usize {
    let mut held = Vec::with_capacity(connections);
    while held.len() < connections {
        let some = (0..250.min(connections - held.len()))
            .map(|_| timeout(Duration::from_secs(5), TcpStream::connect(server)));
        let before = held.len();
        held.extend(join_all(some).await.into_iter().filter_map(|it| it.ok()?.ok()));
        if held.len() == before {
            break;
        }
    }
    tokio::time::sleep(hold).await;
    held.len()
}

/// So many peers that say Hello at one byte a second, until the server has enough of them or their
/// time is over. Returns how many bytes got through.
pub(super) async fn slow(server: &str, peers: usize, time: Duration) -> usize {
    let mut hello = BytesMut::from(&MAGIC[..]);
    Hello::new("slow", None).encode(0, &mut hello);
    let sent = join_all((0..peers).map(|_| say_slowly(server, &hello, time))).await;
    sent.into_iter().sum()
}

async fn say_slowly(server: &str, words: &[u8], time: Duration) -> usize {
    let Ok(mut stream) = TcpStream::connect(server).await else { return 0 };
    let (start, mut sent) = (Instant::now(), 0);
    for byte in words {
        if start.elapsed() >= time || stream.write_all(&[*byte]).await.is_err() {
            break;
        }
        sent += 1;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    sent
}

/// So many clients that connect, ask one question and go, again and again. Returns how often.
pub(super) async fn storm(address: &str, clients: usize, time: Duration) -> usize {
    let end = Instant::now() + time;
    let each = (0..clients).map(|number| async move {
        let mut connections = 0;
        while Instant::now() < end {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(Ok(store)) = timeout(left, connect(address, remote_options(0))).await else {
                break;
            };
            if number % 2 == 0 {
                timeout(left, store.version(&key_of(1))).await.ok();
            }
            connections += 1;
        }
        connections
    });
    join_all(each).await.into_iter().sum()
}
