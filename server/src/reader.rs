//! The reading task of a connection: takes requests one after the other, and stops reading where
//! the log, or the connection's budget, has no room.

use std::sync::Arc;

use quipu_engine::Origin;
use quipu_engine::commit::prepared::PreparedAppend;
use quipu_protocol::filter::filter_bytes;
use quipu_protocol::{
    BorrowedAppend, Credit, DecodeError, Fault, Frame, Kind, MESSAGE_HEADER_BYTES, Pong, Read,
    Request, StatusIs, Subscribe, VersionIs,
};
use quipu_types::{AggregateKey, AppendOutcome, Invalid};
use tokio::io::AsyncRead;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::answers::{Answer, Pledge};
use crate::budget::Charge;
use crate::connection::Ended;
use crate::inlet::{Inlet, InletError, Taken};
use crate::meter::Meter;
use crate::session::Session;
use crate::status;
use crate::stream::{Control, StreamTask};
use crate::{following, reading};

/// What an append holds beside its message: its place in the queue, and its answer.
pub(crate) const BESIDE_APPEND_BYTES: usize = 1_024;
/// Questions under way on one connection; over it, it is not read from.
const QUESTIONS_MAX: usize = 16;

/// The reading side of a connection.
pub(crate) struct Reader<'a, R> {
    session: &'a Arc<Session>,
    inlet: &'a mut Inlet<R>,
    streams: JoinSet<()>,
    questions: JoinSet<()>,
    /// The server is stopping: until then requests are read, and refused.
    refuses_until: Option<Instant>,
}

impl<'a, R: AsyncRead + Unpin> Reader<'a, R> {
    pub(crate) fn new(session: &'a Arc<Session>, inlet: &'a mut Inlet<R>) -> Self {
        let (streams, questions) = (JoinSet::new(), JoinSet::new());
        Self { session, inlet, streams, questions, refuses_until: None }
    }

    /// Takes requests until the connection ends.
    pub(crate) async fn run(&mut self) -> Ended {
        loop {
            let taken = match self.next().await {
                Ok(taken) => taken,
                Err(ended) => return ended,
            };
            self.session.outbox.has_room().await;
            if let Err(fault) = self.take(taken).await {
                return Ended::Refused(fault);
            }
        }
    }

    /// Ends what would otherwise go on without a client.
    pub(crate) async fn end_streams(&mut self) {
        self.streams.shutdown().await;
        self.questions.shutdown().await;
        self.session.streams.lock().clear();
    }

    async fn next(&mut self) -> Result<Taken, Ended> {
        self.look_for_stop();
        if self.refuses_until.is_some_and(|until| Instant::now() >= until) {
            return Err(self.stopped().await);
        }
        if let Some(taken) = self.inlet.try_next().map_err(InletError::from)? {
            return Ok(taken);
        }
        let received = usize::try_from(self.inlet.take_received()).unwrap_or(0);
        Meter::add(&self.session.service.meter.bytes_in, received);
        loop {
            let (session, stopping) = (self.session, self.refuses_until);
            let refused = async {
                match stopping {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                taken = self.inlet.next(&session.appends) => return Ok(taken?),
                () = session.stop.cancelled(), if stopping.is_none() => self.look_for_stop(),
                () = session.outbox.all_closed(), if stopping.is_some() => break,
                () = refused => break,
            }
        }
        Err(self.stopped().await)
    }

    fn look_for_stop(&mut self) {
        if self.refuses_until.is_none() && self.session.stop.is_cancelled() {
            self.refuses_until = Some(Instant::now() + self.session.service.options.linger);
        }
    }

    /// Reads no more: a client that never stops sending would keep the server from its end.
    async fn stopped(&self) -> Ended {
        self.session.outbox.all_closed().await;
        Ended::Stopping
    }

    /// Takes one message; an error ends the connection.
    async fn take(&mut self, Taken { frame, charge }: Taken) -> Result<(), Fault> {
        let id = frame.request_id;
        let opens = Kind::from_u8(frame.kind).is_none_or(Kind::opens_request);
        if opens && id != 0 && self.session.outbox.is_open(id) {
            return Err(Fault::RequestId { id });
        }
        if is_append(&frame) && frame.flags == 0 && id != 0 {
            self.append(&frame, charge).await;
            return Ok(());
        }
        match Request::decode(&frame) {
            Err(error) => self.refuse(&frame, charge, error).await,
            Ok(request) if opens => {
                self.open(request, id).await;
                Ok(())
            }
            Ok(request) => self.note(&request, id),
        }
    }

    /// Answers a message that cannot be taken. A bad append is answered in its turn. What is about
    /// an open request ends the connection: an answer would close that request, which goes on.
    async fn refuse(
        &mut self,
        frame: &Frame,
        charge: Option<Charge>,
        error: DecodeError,
    ) -> Result<(), Fault> {
        let id = frame.failed_request(&error);
        let fault = Fault::from(error);
        if id == 0 || !self.session.outbox.open(id) {
            return Err(fault);
        }
        if is_append(frame) {
            let number = self.owe(frame, charge).await;
            self.settle(number, Err(fault));
        } else {
            self.session.outbox.close(id, &fault);
        }
        Ok(())
    }

    async fn open(&mut self, request: Request, id: u64) {
        self.session.outbox.open(id);
        self.look_for_stop();
        match request {
            _ if self.refuses_until.is_some() => self.session.outbox.close(id, &Fault::Stopping),
            Request::Read(request) => self.read(id, request),
            Request::Subscribe(request) => self.subscribe(id, request),
            Request::VersionOf(request) => self.version(id, request.0).await,
            _ => self.status(id).await,
        }
    }

    /// Takes a message that opens no request.
    fn note(&self, request: &Request, id: u64) -> Result<(), Fault> {
        match request {
            Request::Credit(credit) => {
                if let Some(control) = self.session.streams.lock().get(&id) {
                    control.credit(*credit);
                }
            }
            Request::Cancel(_) => {
                if let Some(control) = self.session.streams.lock().get(&id) {
                    control.cancel();
                }
            }
            Request::Ping(_) => self.session.outbox.put(id, &Pong),
            Request::Hello(_) => {
                let reason = "Hello after the handshake".to_owned();
                return Err(Fault::Malformed { offset: 0, reason });
            }
            _ => {}
        }
        Ok(())
    }

    /// Waits until the append may be held; from here on it is owed an answer.
    async fn owe(&self, frame: &Frame, charge: Option<Charge>) -> u64 {
        let charge = match charge {
            Some(charge) => charge,
            None => self.session.appends.charge(frame.body.len() + BESIDE_APPEND_BYTES).await,
        };
        self.session.answers.owe(frame.request_id, charge)
    }

    fn settle(&self, number: u64, settled: Result<AppendOutcome, Fault>) {
        if self.session.answers.set(number, Answer::Settled(settled)) {
            self.session.outbox.wake();
        }
    }

    async fn append(&mut self, frame: &Frame, charge: Option<Charge>) {
        self.session.outbox.open(frame.request_id);
        self.look_for_stop();
        let number = self.owe(frame, charge).await;
        if let Err(fault) = self.admit(frame, number).await {
            self.settle(number, Err(fault));
        }
    }

    /// Waits until the log lets the append in: this is what stops reading under load.
    async fn admit(&self, frame: &Frame, number: u64) -> Result<(), Fault> {
        if self.refuses_until.is_some() {
            return Err(Fault::Stopping);
        }
        let prepared = self.prepare(frame)?;
        let pledge = Pledge::new(self.session, number);
        let reply = Box::new(move |reply: Result<_, _>| pledge.keep(reply.into()));
        let service = &self.session.service;
        service.log.submit(prepared, reply)?.quiet().await?;
        service.bell.ring();
        if self.session.answers.let_in(number) {
            self.session.outbox.wake();
        }
        Ok(())
    }

    fn prepare(&self, frame: &Frame) -> Result<PreparedAppend, Fault> {
        let append = BorrowedAppend::decode(&frame.body)?;
        let bytes = MESSAGE_HEADER_BYTES + frame.body.len();
        append.check_fits(bytes, self.session.message_bytes_max()).map_err(invalid)?;
        let log = &self.session.service.log;
        let origin = match Kind::from_u8(frame.kind) {
            Some(Kind::SystemAppend) => Origin::SystemClient,
            _ => Origin::Client,
        };
        log.prepare_borrowed(&append.events, &append.expectations, origin).map_err(invalid)
    }

    fn read(&mut self, id: u64, request: Read) {
        let bytes = filter_bytes(&request.request.filter);
        let Some(task) = self.new_stream(id, request.credit, bytes) else { return };
        let cursor = self.session.service.log.read(request.request);
        self.streams.spawn(task.run(|task| reading::read(task, cursor)));
    }

    fn subscribe(&mut self, id: u64, request: Subscribe) {
        let bytes = filter_bytes(&request.request.filter);
        let Some(task) = self.new_stream(id, request.credit, bytes) else { return };
        match self.session.service.log.subscribe(request.request) {
            Ok(follow) => {
                self.streams.spawn(task.run(|task| following::follow(task, follow)));
            }
            Err(error) => task.close(&Fault::from(error)),
        }
    }

    /// A stream's place among the connection's, if there is one.
    fn new_stream(&mut self, id: u64, credit: Credit, filter_bytes: usize) -> Option<StreamTask> {
        while self.streams.try_join_next().is_some() {}
        let control = Arc::new(Control::new(credit, filter_bytes));
        if let Err(fault) = self.session.add_stream(id, &control) {
            self.session.outbox.close(id, &fault);
            return None;
        }
        Some(StreamTask::new(Arc::clone(self.session), id, control))
    }

    async fn version(&mut self, id: u64, key: AggregateKey) {
        let session = Arc::clone(self.session);
        let answer = move || match session.service.log.version(&key) {
            Ok(version) => session.outbox.close(id, &VersionIs(version)),
            Err(error) => session.outbox.close(id, &Fault::from(error)),
        };
        self.ask(id, answer).await;
    }

    async fn status(&mut self, id: u64) {
        let session = Arc::clone(self.session);
        let answer = move || match status::document(&session.service.log) {
            Ok(status) => session.outbox.close(id, &StatusIs(status.to_string())),
            Err(error) => session.outbox.close(id, &Fault::Server(error.to_string())),
        };
        self.ask(id, answer).await;
    }

    /// Answers a question that may need the disk.
    async fn ask(&mut self, id: u64, answer: impl FnOnce() + Send + 'static) {
        while self.questions.try_join_next().is_some() {}
        if self.questions.len() >= QUESTIONS_MAX {
            self.questions.join_next().await;
        }
        let open = OpenQuestion { session: Arc::clone(self.session), id };
        self.questions.spawn_blocking(move || {
            let _open = open;
            answer();
        });
    }
}

/// A question that is answered also if answering it panics.
struct OpenQuestion {
    session: Arc<Session>,
    id: u64,
}

impl Drop for OpenQuestion {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.session.outbox.close(self.id, &panicked());
        }
    }
}

/// What a request is told whose work has panicked.
pub(crate) fn panicked() -> Fault {
    Fault::Server("it panicked: this is a bug in Quipu".to_owned())
}

fn is_append(frame: &Frame) -> bool {
    Kind::from_u8(frame.kind).is_some_and(Kind::is_append)
}

fn invalid(invalid: Invalid) -> Fault {
    Fault::Append(invalid.into())
}
