//! [`Remote`]: a log behind a server, as a host holds it.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures_timer::Delay;
use quipu_protocol::message::MESSAGE_ALIGN;
use quipu_protocol::{
    AppendRequest, MESSAGE_HEADER_BYTES, Message, Status, SystemAppend, VersionOf,
};
use quipu_types::limits::SHORT_TEXT_BYTES_MAX;
use quipu_types::{
    AggregateKey, Append, AppendError, AppendOutcome, Invalid, Limits, Metadata, NewEvent,
    ReadError, ReadRequest, StartAfter, SubscribeRequest, Uuid, Version,
};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tracing::{Instrument, Span, debug_span, field};

use super::address::Address;
use super::calls::Patience;
use super::error::ConnectError;
use super::feed::Feed;
use super::handshake::connect;
use super::options::RemoteOptions;
use super::parts::Part;
use super::shared::Shared;
use super::terms::Terms;
use super::{clock, following, link, reading};
use crate::batches::{RecordStream, Subscription};
use crate::fresh::v7_id;
use crate::store::EventStore;

/// The first pause before an append is tried again that the server refuses for now; it doubles.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(100);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(1);
/// What an append, an expectation and an event take in a message beside their texts and bytes.
const APPEND_BYTES: usize = 12;
const EXPECTATION_BYTES: usize = 17;
const EVENT_BYTES: usize = 86;

/// A log behind a server. Cheap to clone: all clones, and all streams that came from them, are one
/// connection, closed with the last one.
///
/// The connection is a task on the tokio runtime in which it was made; the futures and streams
/// themselves may be polled anywhere. A host without a runtime keeps one for it:
///
/// ```no_run
/// use futures::executor::block_on;
/// use quipu_client::*;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let runtime = tokio::runtime::Builder::new_multi_thread()
///     .worker_threads(1)
///     .enable_all()
///     .build()?;
/// let store = runtime.block_on(Remote::connect("quipu://localhost:7440"))?;
/// let paid = store.new_event(AggregateKey::new("Account", "7"), "Paid", r#"{"cents":1250}"#);
/// block_on(store.append(Append::any(vec![paid])))?;
/// # Ok(())
/// # }
/// ```
///
/// **A lost connection** is made again, for as long as it takes, with pauses that grow to
/// [`RemoteOptions::reconnect_pause_max`]. Appends that were not answered are sent again, in order,
/// before anything new; if the first sending was stored after all, the answer has the original
/// positions and `duplicate: true`. Subscriptions go on after what they delivered last, without a
/// gap or a repetition; one that was live says `FellBehind` and then `CaughtUp` again. Reads go on
/// behind the last record they delivered; a forward read that was interrupted ends with what is
/// durable when it goes on, which may be more than when it began. An address that leads to another
/// log than before ends the connection for good: everybody is told both ids.
///
/// **Time-outs.** An append that is not answered within [`RemoteOptions::timeout`] fails with
/// `OutcomeUnknown` if it was sent, else with `NotWritten`, and is not sent any more. A read that
/// waits for its next records for [`RemoteOptions::read_timeout`] fails with `Unavailable`.
///
/// **Order.** Appends are admitted in the order in which they are first polled, also across lost
/// connections. One that the server refuses for now (no space) is tried again by itself, up to
/// [`RemoteOptions::tries`], and takes a new place behind those that were sent meanwhile; so does
/// one that is sent again after a lost connection and conflicts, if its version may yet be reached.
///
/// **Tracing.** Each append is a `quipu.append` span with `events`, `bytes` and `attempt`; the
/// `traceparent` of its first event's metadata goes along with the request.
#[derive(Clone)]
pub struct Remote {
    owner: Arc<Owner>,
}

/// Holds the connection; it ends with the last holder.
pub(super) struct Owner {
    pub(super) shared: Arc<Shared>,
    task: AbortHandle,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Remote {
    /// Connects to `quipu://HOST:PORT`; the scheme and the port, 7440, may be left out.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn connect(address: &str) -> Result<Self, ConnectError> {
        Self::connect_with(address, RemoteOptions::default()).await
    }

    /// Connects with other settings than the default ones.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn connect_with(address: &str, options: RemoteOptions) -> Result<Self, ConnectError> {
        let address: Address = address.parse()?;
        let runtime = Handle::try_current().map_err(|_| ConnectError::NoRuntime)?;
        let connection = connect(&address, &options, options.log_id).await?;
        let shared = Arc::new(Shared::new(address, options, &connection.welcome));
        let task = runtime.spawn(link::run(Arc::clone(&shared), connection)).abort_handle();
        Ok(Self { owner: Arc::new(Owner { shared, task }) })
    }

    /// A JSON event that happens now, with a fresh v7 id.
    pub fn new_event(
        &self,
        aggregate: AggregateKey,
        event_type: impl Into<String>,
        payload: impl Into<Vec<u8>>,
    ) -> NewEvent {
        let now = clock::now();
        NewEvent::json(v7_id(now), aggregate, event_type, now, payload)
    }

    /// A fresh v7 id: the cheapest to look up, for it is newer than all that are stored.
    pub fn new_id(&self) -> Uuid {
        v7_id(clock::now())
    }

    /// The state of the server's log, as a JSON document: what `quipu status --json` prints.
    ///
    /// # Errors
    /// That it did not come in time.
    pub fn status(&self) -> BoxFuture<'_, Result<String, ReadError>> {
        self.ask(Status, |part| match part {
            Part::Status(status) => Ok(status),
            other => Err(other),
        })
    }

    /// Appends, reads, subscriptions and questions that the server has not closed yet, or has not
    /// heard of.
    pub fn open_requests(&self) -> usize {
        self.owner.shared.open_requests()
    }

    /// Asks until there is an answer, also across lost connections.
    fn ask<T: Send + 'static>(
        &self,
        message: impl Message + Send + Sync + 'static,
        answer: fn(Part) -> Result<T, Part>,
    ) -> BoxFuture<'_, Result<T, ReadError>> {
        async move {
            let patience = Patience::Answered(self.owner.shared.deadline());
            loop {
                let part = Feed::open(&self.owner, &message, patience).next().await;
                match answer(part) {
                    Ok(answer) => return Ok(answer),
                    Err(Part::Lost) => {}
                    Err(Part::Failed(error)) => return Err(error),
                    Err(other) => {
                        return Err(ReadError::Refused(format!("the answer was {other:?}")));
                    }
                }
            }
        }
        .boxed()
    }

    async fn append_by(
        &self,
        append: Append,
        write: fn(AppendRequest, &mut BytesMut),
    ) -> Result<AppendOutcome, AppendError> {
        let events = append.events.len();
        let message = encode(append, &self.owner.shared.terms(), write)?;
        let bytes = message.len();
        let span = debug_span!("quipu.append", events, bytes, attempt = field::Empty);
        self.send(message).instrument(span).await
    }

    /// Sends an append until its answer is final.
    async fn send(&self, message: BytesMut) -> Result<AppendOutcome, AppendError> {
        let shared = &self.owner.shared;
        let deadline = shared.deadline();
        let (mut message, mut uncertain, mut attempt) = (message, false, 0);
        loop {
            attempt += 1;
            Span::current().record("attempt", attempt);
            let admitted = shared.admit(message, deadline, uncertain);
            let (error, bytes) = match admitted.outcome().await {
                Ok(outcome) => return Ok(outcome),
                Err(refused) => refused,
            };
            let pause = retry_pause(attempt);
            let in_time = Instant::now() + pause < deadline;
            if !error.is_retryable() || attempt >= shared.options.tries || !in_time {
                return Err(error);
            }
            uncertain |= error.is_outcome_unknown();
            Delay::new(pause).await;
            message = bytes.try_into_mut().unwrap_or_else(|bytes| BytesMut::from(&bytes[..]));
        }
    }
}

fn retry_pause(attempt: u32) -> Duration {
    let doubled = RETRY_PAUSE_MIN * 2_u32.saturating_pow(attempt);
    doubled.min(RETRY_PAUSE_MAX).mul_f64(0.5 + fastrand::f64() / 2.0)
}

impl EventStore for Remote {
    fn append(&self, append: Append) -> BoxFuture<'_, Result<AppendOutcome, AppendError>> {
        self.append_by(append, |request, out| request.encode(0, out)).boxed()
    }

    fn append_system(&self, append: Append) -> BoxFuture<'_, Result<AppendOutcome, AppendError>> {
        self.append_by(append, |request, out| SystemAppend(request).encode(0, out)).boxed()
    }

    fn read(&self, request: ReadRequest) -> RecordStream {
        RecordStream::new(reading::pages(&self.owner, request))
    }

    fn subscribe(&self, request: SubscribeRequest) -> Result<Subscription, ReadError> {
        let actual = self.log_id();
        match request.after {
            StartAfter::Checkpoint(given) if given.log_id != actual => {
                Err(ReadError::OtherLog { given: given.log_id, actual })
            }
            _ => Ok(Subscription::new(following::items(&self.owner, request))),
        }
    }

    fn log_id(&self) -> Uuid {
        self.owner.shared.log_id
    }

    fn version(&self, key: &AggregateKey) -> BoxFuture<'_, Result<Version, ReadError>> {
        self.ask(VersionOf(key.clone()), |part| match part {
            Part::Version(version) => Ok(version),
            other => Err(other),
        })
    }
}

/// The whole message, without its request id. The server checks what it stores; here only what
/// would not fit a message is refused.
fn encode(
    append: Append,
    terms: &Terms,
    write: fn(AppendRequest, &mut BytesMut),
) -> Result<BytesMut, Invalid> {
    let traceparent = append.events.first().map(|event| event.metadata.traceparent.as_str());
    let traceparent = traceparent.filter(|text| text.len() <= SHORT_TEXT_BYTES_MAX);
    let traceparent = traceparent.unwrap_or_default().to_owned();
    let request = AppendRequest { append, traceparent };
    let bytes = message_bytes(&request);
    if let Err(too_large) = request.check_fits(bytes, terms.message_bytes_max) {
        return Err(reason(&request.append, &terms.limits).err().unwrap_or(too_large));
    }
    let mut message = BytesMut::with_capacity(bytes);
    write(request, &mut message);
    debug_assert_eq!(message.len(), bytes, "nothing is allocated while it is encoded");
    Ok(message)
}

/// What makes an append too large, if it is not just all of it.
fn reason(append: &Append, limits: &Limits) -> Result<(), Invalid> {
    let (limit, given) = (limits.append_events_max, append.events.len());
    if given > limit {
        return Err(Invalid::TooManyEvents { limit, given });
    }
    append.events.iter().try_for_each(|event| event.check(limits))
}

fn message_bytes(request: &AppendRequest) -> usize {
    let of_key = |key: &AggregateKey| key.aggregate_type.len() + key.aggregate_id.len();
    let expectations = request.append.expectations.iter();
    let of_expectations = expectations.map(|(key, _)| EXPECTATION_BYTES + of_key(key));
    let of_events = request.append.events.iter().map(|event| {
        let Metadata { correlation_id, causation_id, ip_address, user_agent, .. } = &event.metadata;
        let texts = [correlation_id, causation_id, ip_address, user_agent];
        EVENT_BYTES
            + of_key(&event.aggregate)
            + texts.map(String::len).iter().sum::<usize>()
            + event.event_type.len()
            + event.content_type.len()
            + event.metadata.traceparent.len()
            + event.metadata.custom.len()
            + event.payload.len()
    });
    let body = APPEND_BYTES
        + request.traceparent.len()
        + of_expectations.sum::<usize>()
        + of_events.sum::<usize>();
    (MESSAGE_HEADER_BYTES + body).next_multiple_of(MESSAGE_ALIGN)
}
