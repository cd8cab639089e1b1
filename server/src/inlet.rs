//! Bytes of a connection, cut into messages: nothing large is kept before there is room for it,
//! and no wait is longer than agreed.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use quipu_protocol::{Frame, FrameError, Framer, Progress};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout};

use crate::budget::{Charge, Purse};
use crate::pace::{Pace, TooSlow};

/// A message up to this size needs no room kept for it while it arrives.
pub(crate) const SMALL_BYTES: usize = 64 << 10;
const READ_BYTES_MIN: usize = 4 << 10;
const READ_BYTES_MAX: usize = 256 << 10;

/// Why there are no more messages.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InletError {
    #[error("the client closed the connection")]
    Closed,
    #[error("the client closed the connection inside a message")]
    ClosedInside,
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("cannot read: {0}")]
    Io(#[from] io::Error),
    #[error("the client has sent nothing for {0:?}")]
    Silent(Duration),
    #[error("a message came too slowly: {0}")]
    Slow(#[from] TooSlow),
}

/// A message, and the room kept for it if it is large.
pub(crate) struct Taken {
    pub(crate) frame: Frame,
    pub(crate) charge: Option<Charge>,
}

/// How long the inlet waits.
#[derive(Clone, Copy)]
pub(crate) struct Patience {
    pub(crate) dead_after: Duration,
    /// In so much time, so many bytes of a message that has begun.
    pub(crate) progress_within: Duration,
    pub(crate) progress_bytes: usize,
}

/// The receiving side of a connection.
///
/// Invariants:
/// 1. The buffer takes at most twice [`READ_BYTES_MAX`] beyond what a charge was taken for.
/// 2. Every method may be cancelled at any await without a byte lost.
pub(crate) struct Inlet<R> {
    io: R,
    framer: Framer,
    buffer: BytesMut,
    /// Bytes that the next message lacks at least.
    missing: usize,
    read_bytes: usize,
    charge: Option<Charge>,
    /// Time spent waiting for the rest of the message that has begun.
    pace: Pace,
    dead_after: Duration,
    received: u64,
}

impl<R: AsyncRead + Unpin> Inlet<R> {
    pub(crate) fn new(io: R, patience: Patience) -> Self {
        Self {
            io,
            framer: Framer::new(),
            buffer: BytesMut::new(),
            missing: 0,
            read_bytes: READ_BYTES_MIN,
            charge: None,
            pace: Pace::new(patience.progress_within, patience.progress_bytes),
            dead_after: patience.dead_after,
            received: 0,
        }
    }

    pub(crate) fn set_bytes_max(&mut self, bytes_max: usize) {
        self.framer.set_bytes_max(bytes_max);
    }

    /// Bytes received since this was last asked.
    pub(crate) fn take_received(&mut self) -> u64 {
        std::mem::take(&mut self.received)
    }

    /// The next message if it is there already.
    pub(crate) fn try_next(&mut self) -> Result<Option<Taken>, FrameError> {
        match self.framer.advance(&mut self.buffer)? {
            Progress::Frame(frame) => {
                self.pace.reset();
                let charge = self.charge.take();
                if frame.body.len() > READ_BYTES_MAX {
                    // What follows would keep the message's memory when its room is given back.
                    self.buffer = BytesMut::from(&self.buffer[..]);
                }
                Ok(Some(Taken { frame, charge }))
            }
            Progress::Need(missing) => {
                self.missing = missing;
                Ok(None)
            }
        }
    }

    /// The next message.
    pub(crate) async fn next(&mut self, purse: &Purse) -> Result<Taken, InletError> {
        loop {
            if let Some(taken) = self.try_next()? {
                return Ok(taken);
            }
            self.fill(purse).await?;
        }
    }

    async fn fill(&mut self, purse: &Purse) -> Result<(), InletError> {
        let whole = self.buffer.len() + self.missing;
        if whole > SMALL_BYTES && self.charge.is_none() {
            self.charge = Some(purse.charge(whole).await);
        }
        self.make_room();
        let room = self.buffer.capacity() - self.buffer.len();
        let got = self.read(purse).await?;
        self.received += got as u64;
        // What one read fills is worth a larger one; a trickle is not.
        if got >= room.min(self.read_bytes) {
            self.read_bytes = (self.read_bytes * 2).min(READ_BYTES_MAX);
        } else if got < self.read_bytes / 4 {
            self.read_bytes = (self.read_bytes / 2).max(READ_BYTES_MIN);
        }
        Ok(())
    }

    fn make_room(&mut self) {
        if self.buffer.is_empty() && self.buffer.capacity() > 4 * self.read_bytes {
            self.buffer = BytesMut::new();
        }
        self.buffer.reserve(self.missing.max(self.read_bytes));
    }

    async fn read(&mut self, purse: &Purse) -> Result<usize, InletError> {
        let mut silent = Duration::ZERO;
        loop {
            let inside = !self.buffer.is_empty();
            let left = self.dead_after.saturating_sub(silent);
            let wait = if inside { left.min(self.pace.left()) } else { left };
            let begun = Instant::now();
            let read = timeout(wait, self.io.read_buf(&mut self.buffer)).await;
            let waited = begun.elapsed();
            silent += waited;
            let got = match read {
                Ok(Ok(0)) if inside => return Err(InletError::ClosedInside),
                Ok(Ok(0)) => return Err(InletError::Closed),
                Ok(got) => got?,
                Err(_) if silent >= self.dead_after => {
                    return Err(InletError::Silent(self.dead_after));
                }
                Err(_) => 0,
            };
            if inside {
                let holds = self.charge.is_some();
                self.pace.count(waited, got, || holds && purse.is_in_the_way())?;
            }
            if got > 0 {
                return Ok(got);
            }
        }
    }

    /// Reads and forgets, so that closing does not take back what the client has yet to read.
    pub(crate) async fn forget(&mut self, within: Duration) {
        let forget = async {
            loop {
                self.buffer.clear();
                self.buffer.reserve(READ_BYTES_MIN);
                if !matches!(self.io.read_buf(&mut self.buffer).await, Ok(1..)) {
                    return;
                }
            }
        };
        // A client that has not finished by then is not waited for.
        timeout(within, forget).await.ok();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use quipu_protocol::{MAGIC, Message, Pong};
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;
    use crate::budget::Budget;

    const LARGE_BYTES: usize = 8 << 20;

    fn inlet<R: AsyncRead + Unpin>(io: R) -> Inlet<R> {
        let long = Duration::from_mins(1);
        let patience = Patience { dead_after: long, progress_within: long, progress_bytes: 1 };
        let mut inlet = Inlet::new(io, patience);
        inlet.set_bytes_max(LARGE_BYTES);
        inlet
    }

    /// A large message of a kind that nobody knows, and `count` Pongs.
    fn wire(count: usize) -> Vec<u8> {
        let length = u32::try_from(LARGE_BYTES).unwrap();
        let header =
            quipu_protocol::Header { length, kind: 0x42, flags: 0, zero: 0, request_id: 1 };
        let mut pongs = BytesMut::new();
        for id in 0..count {
            Pong.encode(id as u64, &mut pongs);
        }
        let body = vec![0; LARGE_BYTES - header.encode().len()];
        [&MAGIC[..], &header.encode(), &body, &pongs].concat()
    }

    #[tokio::test]
    async fn what_follows_a_large_message_keeps_none_of_its_memory() {
        let purse = Purse::new(LARGE_BYTES, &Arc::new(Budget::new(LARGE_BYTES)));
        let (mut near, far) = duplex(256 << 10);
        let mut inlet = inlet(far);
        let mut wire = wire(100);
        // Each part ends one message and begins the next.
        let rest = wire.split_off(MAGIC.len() + LARGE_BYTES + 8);
        let send = async { near.write_all(&wire).await.unwrap() };
        let (taken, ()) = tokio::join!(inlet.next(&purse), send);
        assert!(taken.unwrap().charge.is_some());
        for part in rest.chunks(16) {
            near.write_all(part).await.unwrap();
            let taken = inlet.next(&purse).await.unwrap();
            assert!(taken.frame.body.is_empty() && taken.charge.is_none());
            let kept = inlet.buffer.capacity();
            assert!(kept <= 2 * READ_BYTES_MAX, "{kept} bytes for {}", inlet.buffer.len());
        }
    }
}
