//! One connection, from Welcome to its end: reading, writing and signs of life, side by side.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use quipu_protocol::{End, Frame, Framer, Kind, Progress, Response, Welcome};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::sleep;

use super::handshake::Connection;
use super::parts::Part;
use super::shared::Shared;

/// What is read at once, at least.
const READ_BYTES: usize = 64 * 1024;
/// Room that is made for a message on its word alone.
const PROMISED_BYTES_MAX: usize = 1 << 20;
/// Messages in one call to the system; it takes 1,024 at most.
const SLICES_MAX: usize = 256;
/// How often in a heartbeat the connection is looked at.
const LOOKS: u32 = 4;

/// Serves the connection until it is lost; says why.
pub(super) async fn run(shared: &Shared, connection: Connection) -> String {
    let Connection { mut stream, framer, buffer, welcome } = connection;
    let (reader, writer) = stream.split();
    let life = Life::default();
    let number = shared.connected(&welcome);
    // One task: reading goes on whatever writing waits for.
    tokio::select! {
        biased;
        problem = read(shared, &life, reader, Received { framer, buffer, number }) => problem,
        problem = write(shared, &life, writer) => problem,
        problem = watch(shared, &life, &welcome) => problem,
        () = shared.broken() => "the server broke the protocol".to_owned(),
    }
}

/// Whether something came or went since the last look.
#[derive(Default)]
struct Life {
    received: AtomicBool,
    sent: AtomicBool,
}

/// What came behind Welcome, on the connection of this number.
struct Received {
    framer: Framer,
    buffer: BytesMut,
    number: u64,
}

async fn read(
    shared: &Shared,
    life: &Life,
    mut reader: impl AsyncRead + Unpin,
    received: Received,
) -> String {
    let Received { mut framer, mut buffer, number } = received;
    loop {
        let needed = match framer.advance(&mut buffer) {
            Ok(Progress::Frame(frame)) => match take(shared, frame, number) {
                Ok(()) => continue,
                Err(problem) => return problem,
            },
            Ok(Progress::Need(needed)) => needed,
            Err(error) => return error.to_string(),
        };
        make_room(&mut buffer, needed);
        match reader.read_buf(&mut buffer).await {
            Ok(0) => return "the server closed the connection".to_owned(),
            Ok(_) => life.received.store(true, Ordering::Relaxed),
            Err(error) => return error.to_string(),
        }
    }
}

/// Makes room for what is needed, but for no more than has come already where that is much: how
/// large a message may be is the server's word, and so is how large it is.
fn make_room(buffer: &mut BytesMut, needed: usize) {
    let now = needed.min(buffer.len().max(PROMISED_BYTES_MAX));
    let enough = if now < needed { READ_BYTES } else { needed };
    if buffer.capacity() - buffer.len() < enough {
        buffer.reserve(now.max(READ_BYTES));
    }
}

/// Takes a message, or says why the connection cannot go on.
fn take(shared: &Shared, frame: Frame, number: u64) -> Result<(), String> {
    let id = frame.request_id;
    let taken = if frame.kind == Kind::Records as u8 && frame.flags == 0 {
        shared.deliver(id, Part::Records(frame.body, number))
    } else {
        match Response::decode(&frame).map_err(|error| error.to_string())? {
            Response::Appended(outcome) => shared.appended(id, outcome),
            Response::Mark(mark) => shared.deliver(id, Part::Mark(mark)),
            Response::End(End::Stopping) => shared.stop_stream(id),
            Response::End(end) => shared.close(id, Part::End(end)),
            Response::VersionIs(version) => shared.close(id, Part::Version(version.0)),
            Response::StatusIs(status) => shared.close(id, Part::Status(status.0)),
            Response::Error(fault) if id == 0 => return Err(fault.to_string()),
            Response::Error(fault) => shared.fail(id, fault),
            Response::Ping(_) => {
                shared.pong(id);
                Ok(())
            }
            Response::Pong(_) => Ok(()),
            Response::Welcome(_) | Response::Records(_) => {
                return Err("a message came out of place".to_owned());
            }
        }
    };
    taken.map_err(|not_open| format!("an answer to request {}, which is not open", not_open.0))
}

async fn write(shared: &Shared, life: &Life, mut writer: impl AsyncWrite + Unpin) -> String {
    let mut batch = VecDeque::new();
    loop {
        shared.take_outgoing(&mut batch);
        if batch.is_empty() {
            shared.outgoing.notified().await;
            continue;
        }
        if let Err(error) = write_all(&mut writer, &mut batch).await {
            return error.to_string();
        }
        life.sent.store(true, Ordering::Relaxed);
    }
}

/// Writes a batch, in as few calls to the system as it can be.
async fn write_all(
    writer: &mut (impl AsyncWrite + Unpin),
    batch: &mut VecDeque<Bytes>,
) -> std::io::Result<()> {
    while !batch.is_empty() {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let filled = batch.len().min(SLICES_MAX);
        for (slice, message) in slices.iter_mut().zip(batch.iter()) {
            *slice = IoSlice::new(message);
        }
        let written = match writer.write_vectored(&slices[..filled]).await? {
            0 => return Err(std::io::ErrorKind::WriteZero.into()),
            written => written,
        };
        advance(batch, written);
    }
    Ok(())
}

fn advance(batch: &mut VecDeque<Bytes>, mut written: usize) {
    while let Some(first) = batch.front_mut().filter(|_| written > 0) {
        if first.len() > written {
            first.advance(written);
            return;
        }
        written -= first.len();
        batch.pop_front();
    }
}

/// Sends signs of life, and gives up where none come. Counts looks, not time: a time in which this
/// side did not run is no silence of the other.
async fn watch(shared: &Shared, life: &Life, welcome: &Welcome) -> String {
    let every = Duration::from_millis(u64::from(welcome.heartbeat_ms.max(LOOKS))) / LOOKS;
    let dead_after = Duration::from_millis(welcome.dead_after_ms.max(welcome.heartbeat_ms).into());
    let (mut silent, mut quiet) = (0_u32, 0_u32);
    loop {
        sleep(every).await;
        silent = if life.received.swap(false, Ordering::Relaxed) { 0 } else { silent + 1 };
        quiet = if life.sent.swap(false, Ordering::Relaxed) { 0 } else { quiet + 1 };
        if every * silent >= dead_after {
            return format!("nothing came for {dead_after:?}: the connection is dead");
        }
        if quiet >= LOOKS {
            shared.ping();
            quiet = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::duplex;

    #[test]
    fn room_is_made_for_what_comes_rather_than_for_what_is_promised() {
        for promised in [u32::MAX as usize, 8 << 20, READ_BYTES] {
            let mut buffer = BytesMut::from(&[0; 16][..]);
            while buffer.len() < promised.min(8 << 20) {
                let came = buffer.len();
                make_room(&mut buffer, promised - came);
                let room = buffer.capacity();
                assert!(room <= 2 * came + 2 * PROMISED_BYTES_MAX, "{room} after {came}");
                assert!(room - came >= READ_BYTES.min(promised - came));
                buffer.resize((came + READ_BYTES).min(promised), 0);
            }
        }
    }

    #[test]
    fn a_batch_is_written_whole_through_a_narrow_pipe() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (mut near, mut far) = duplex(7);
            let parts = (0..600_u32).map(|n| Bytes::from(vec![b'x'; n as usize % 11]));
            let mut batch: VecDeque<Bytes> = parts.filter(|part| !part.is_empty()).collect();
            let total: usize = batch.iter().map(Bytes::len).sum();
            let write = async {
                write_all(&mut near, &mut batch).await.unwrap();
                drop(near);
            };
            let mut received = Vec::new();
            let (read, ()) = tokio::join!(far.read_to_end(&mut received), write);
            assert_eq!(read.unwrap(), total);
        });
    }
}
