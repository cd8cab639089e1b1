//! The writing task of a connection: answers to appends in order, everything else as it comes, as
//! many messages as are ready in one write; Ping when there was nothing to say.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use quipu_protocol::{Message, Ping};
use quipu_types::{AppendError, AppendOutcome};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use crate::answers::{Answer, Owed, Pledge};
use crate::budget::Charge;
use crate::chunk::Chunk;
use crate::meter::Meter;
use crate::outbox::Farewell;
use crate::pace::Pace;
use crate::session::Session;

/// As many as the system takes in one call.
const SLICES_MAX: usize = 1_024;
/// Enough where no message is written record by record.
const SLICES_FEW: usize = 64;
/// A buffer larger than this is not kept for the next answers.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// The writing side of a connection.
pub(crate) struct Writer<W> {
    session: Arc<Session>,
    io: W,
    /// Answers to be written, and the room they hold.
    answers: BytesMut,
    charges: Vec<Charge>,
    closed: Vec<u64>,
    chunks: VecDeque<Chunk>,
    pace: Pace,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    /// Writes `first` first.
    pub(crate) fn new(session: Arc<Session>, io: W, first: BytesMut) -> Self {
        let (charges, closed, chunks) = (Vec::new(), Vec::new(), VecDeque::new());
        let options = &session.service.options;
        let pace = Pace::new(options.progress_within, options.progress_bytes);
        Self { session, io, answers: first, charges, closed, chunks, pace }
    }

    /// Writes until the farewell.
    pub(crate) async fn run(mut self) -> io::Result<()> {
        loop {
            // Looked at before what is owed: whoever says farewell owes nothing new.
            let farewell = self.session.outbox.farewell();
            self.gather();
            if !self.answers.is_empty() || !self.chunks.is_empty() {
                self.write().await?;
                continue;
            }
            match farewell {
                Some(farewell) if self.session.answers.is_empty() => {
                    return self.end(farewell).await;
                }
                _ => self.wait().await,
            }
        }
    }

    async fn wait(&mut self) {
        let heartbeat = self.session.service.options.heartbeat;
        if timeout(heartbeat, self.session.outbox.work()).await.is_err() {
            Ping.encode(0, &mut self.answers);
        }
    }

    async fn end(&mut self, Farewell(fault): Farewell) -> io::Result<()> {
        if let Some(fault) = fault {
            fault.encode(0, &mut self.answers);
            self.write().await?;
        }
        let stall = self.session.service.options.write_stall;
        timeout(stall, self.io.shutdown()).await.map_err(|_| io::ErrorKind::TimedOut)?
    }

    fn gather(&mut self) {
        while let Some(owed) = self.session.answers.take_first() {
            self.answer(owed);
        }
        if !self.closed.is_empty() {
            self.session.outbox.closed(&self.closed);
            self.closed.clear();
        }
        self.session.outbox.take(&mut self.chunks);
    }

    fn answer(&mut self, owed: Owed) {
        let Owed { request_id, answer, charge } = owed;
        let log = &self.session.service.log;
        let settled = match answer {
            Answer::Admitted(admitted) if log.settles_from_disk(&admitted) => {
                let number = self.session.answers.put_back(request_id, charge);
                settle_from_disk(&self.session, number, admitted);
                return;
            }
            Answer::Admitted(admitted) => log.settle(admitted).map_err(Into::into),
            Answer::Settled(settled) => settled,
            Answer::Waiting | Answer::Lost | Answer::LetIn | Answer::Settling => {
                let problem = "an answer was taken before it was known".to_owned();
                Err(AppendError::OutcomeUnknown(problem).into())
            }
        };
        match settled {
            Ok(outcome) => AppendOutcome::encode(&outcome, request_id, &mut self.answers),
            Err(fault) => fault.encode(request_id, &mut self.answers),
        }
        self.charges.push(charge);
        self.closed.push(request_id);
    }

    /// Writes all that was gathered. Each write must make progress in time, not the whole; whoever
    /// is in the way of others must be faster.
    async fn write(&mut self) -> io::Result<()> {
        let stall = self.session.service.options.write_stall;
        let mut silent = Duration::ZERO;
        while !self.answers.is_empty() || !self.chunks.is_empty() {
            let wait = stall.saturating_sub(silent).min(self.pace.left());
            let begun = Instant::now();
            let written = timeout(wait, self.write_some()).await.unwrap_or(Ok(0))?;
            let waited = begun.elapsed();
            silent = if written == 0 { silent + waited } else { Duration::ZERO };
            let slow = self.pace.count(waited, written, || true);
            if silent >= stall || slow.is_err() && self.session.is_in_the_way() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Meter::add(&self.session.service.meter.bytes_out, written);
            self.advance(written);
        }
        self.pace.reset();
        timeout(stall, self.io.flush()).await.map_err(|_| io::ErrorKind::TimedOut)??;
        self.session.outbox.wrote();
        Ok(())
    }

    /// One call to the system.
    async fn write_some(&mut self) -> io::Result<usize> {
        let Self { io, answers, chunks, .. } = self;
        let has_records = chunks.iter().any(Chunk::has_records);
        let write = poll_fn(|context| {
            let parts = std::iter::once(&answers[..]).chain(chunks.iter().flat_map(Chunk::parts));
            if has_records {
                poll_write::<SLICES_MAX>(io, parts, context)
            } else {
                poll_write::<SLICES_FEW>(io, parts, context)
            }
        });
        match write.await? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            written => Ok(written),
        }
    }

    fn advance(&mut self, mut written: usize) {
        let of_answers = written.min(self.answers.len());
        self.answers.advance(of_answers);
        if self.answers.is_empty() {
            self.charges.clear();
            if self.answers.capacity() > KEPT_BYTES_MAX {
                self.answers = BytesMut::new();
            }
        }
        written -= of_answers;
        while let Some(chunk) = self.chunks.front_mut() {
            if !chunk.advance(&mut written) {
                return;
            }
            self.chunks.pop_front();
        }
    }
}

/// The slices are made in here: a future that held them would be as large as they are.
fn poll_write<'a, const SLICES: usize>(
    io: &mut (impl AsyncWrite + Unpin),
    parts: impl Iterator<Item = &'a [u8]>,
    context: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let mut slices = [IoSlice::new(&[]); SLICES];
    let mut used = 0;
    for (slice, part) in slices.iter_mut().zip(parts.filter(|part| !part.is_empty())) {
        *slice = IoSlice::new(part);
        used += 1;
    }
    Pin::new(io).poll_write_vectored(context, &slices[..used])
}

/// Compares with what is on disk, off the connection's task; answers behind it wait for it.
fn settle_from_disk(
    session: &Arc<Session>,
    number: u64,
    admitted: quipu_engine::commit::outcome::Admitted,
) {
    let (log, pledge) = (Arc::clone(&session.service.log), Pledge::new(session, number));
    tokio::task::spawn_blocking(move || {
        pledge.keep(Answer::Settled(log.settle(admitted).map_err(Into::into)));
    });
}
