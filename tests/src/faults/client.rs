//! A client that does whatever its workload says, several operations at once, and records it.

use std::time::Duration;

use anyhow::Result;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{FuturesUnordered, StreamExt};
use quipu_client::{
    AggregateKey, AppendError, AppendOutcome, Direction, EventStore, IdConflictReason, ReadError,
    ReadRequest, Record, Remote, RemoteOptions,
};
use tokio::sync::watch;

use super::phase::Phase;
use super::recorder::{Recorded, Recorder};
use super::workload::{Made, Step, Workload};
use crate::history::calls::{AppendCall, CallId, Outcome, ReadCall, VersionCall};
use crate::history::journal::Entry;
use crate::history::stamp::Stamp;
use crate::history::stored::{Seen, key_of};

/// A client.
pub struct Client {
    pub store: Remote,
    pub workload: Workload,
    pub recorder: Recorder,
    /// Operations at once.
    pub in_flight: usize,
    /// Between the beginnings of two operations.
    pub pause: Option<Duration>,
}

/// An operation that has ended.
enum Done {
    Append(AppendCall, Made, Option<String>),
    Read(ReadCall, Option<String>),
    Version(Option<VersionCall>),
}

type Flying = FuturesUnordered<BoxFuture<'static, Done>>;

/// Settings under which some clients wait longer than others: the impatient learn no outcome.
pub fn remote_options(client: u32) -> RemoteOptions {
    let mut options = RemoteOptions::default();
    options.timeout = match client % 4 {
        0 => Duration::from_secs(30),
        1 => Duration::from_millis(400),
        2 => Duration::from_secs(2),
        _ => Duration::from_secs(8),
    };
    options.connect_timeout = Duration::from_secs(2);
    options.read_timeout = Duration::from_secs(10);
    options.reconnect_pause_max = Duration::from_millis(300);
    options
}

/// Connects, as soon as there is a server.
pub async fn connect(address: &str, options: RemoteOptions) -> Result<Remote> {
    loop {
        match Remote::connect_with(address, options.clone()).await {
            Ok(remote) => return Ok(remote),
            Err(error) if error.is_retryable() => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

impl Client {
    /// Works until it is told to stop; then it waits for all answers.
    pub async fn run(mut self, mut phase: watch::Receiver<Phase>) -> Result<Recorded> {
        let mut flying = Flying::new();
        loop {
            let works = *phase.borrow_and_update() == Phase::Work;
            if works && flying.len() < self.in_flight {
                let done = self.begin(&flying)?;
                if let Some(done) = done {
                    self.take(done)?;
                }
                if let Some(pause) = self.pause {
                    tokio::time::sleep(pause).await;
                }
            } else if let Some(done) = flying.next().await {
                self.take(done)?;
            } else {
                return Ok(self.recorder.recorded());
            }
        }
    }

    /// Begins an operation; at its first poll an append takes its place.
    fn begin(&mut self, flying: &Flying) -> Result<Option<Done>> {
        let (id, store) = (self.recorder.next_id(), self.store.clone());
        let mut operation = match self.workload.next_step() {
            Step::Append(made) => {
                self.recorder.begin(|| Entry::Append(made.call(id)))?;
                append(store, id, made).boxed()
            }
            Step::Read { of, request } => read(store, id, of, request).boxed(),
            Step::AskVersion(aggregate) => ask_version(store, id, aggregate).boxed(),
        };
        let done = (&mut operation).now_or_never();
        if done.is_none() {
            flying.push(operation);
        }
        Ok(done)
    }

    fn take(&mut self, done: Done) -> Result<()> {
        match done {
            Done::Append(call, made, wrong) => {
                self.workload.learn(made, &call.outcome);
                self.recorder.wrong(wrong);
                self.recorder.end(Entry::Append(call))
            }
            Done::Read(call, wrong) => {
                self.recorder.wrong(wrong);
                self.recorder.end(Entry::Read(call))
            }
            Done::Version(Some(call)) => {
                self.workload.learn_version(call.aggregate, call.version);
                self.recorder.end(Entry::Version(call))
            }
            Done::Version(None) => Ok(()),
        }
    }
}

impl Made {
    /// The append as it is recorded before its outcome is known.
    pub fn call(&self, id: CallId) -> AppendCall {
        AppendCall {
            id,
            invoked: Stamp::now(),
            responded: Stamp::NEVER,
            events: self.events.clone(),
            expectations: self.expectations.clone(),
            outcome: Outcome::Unknown,
        }
    }
}

/// Makes an append; also says what should never be answered.
pub async fn append_recorded(
    store: &Remote,
    id: CallId,
    made: &Made,
) -> (AppendCall, Option<String>) {
    let mut call = made.call(id);
    let result = store.append(made.append.clone()).await;
    let responded = Stamp::now();
    let mut wrong = None;
    call.outcome = match result {
        Ok(AppendOutcome { duplicate, positions, versions }) => {
            let number = |(key, version): &(AggregateKey, _)| (number_of(key), *version);
            let versions = versions.iter().map(number).collect();
            Outcome::Stored { duplicate, positions, versions }
        }
        Err(AppendError::Conflict(conflicts)) => {
            let actual = conflicts.iter().map(|it| (number_of(&it.key), it.actual)).collect();
            Outcome::Conflict(actual)
        }
        Err(AppendError::IdConflict { event_id, position, reason }) => Outcome::IdConflict {
            event: event_id.as_u128(),
            position,
            partly: reason == IdConflictReason::PartlyKnown,
        },
        Err(AppendError::OutcomeUnknown(_)) => Outcome::Unknown,
        Err(error) => {
            let is_failure = match &error {
                AppendError::ReadOnly(_) => true,
                // A repetition is compared with what is stored, which no disk without power tells.
                AppendError::Read(error) => !is_wrong(error),
                error => error.is_retryable(),
            };
            wrong = (!is_failure).then(|| format!("{id} was refused: {error}"));
            Outcome::Failed(error.to_string())
        }
    };
    if call.outcome != Outcome::Unknown {
        call.responded = responded;
    }
    (call, wrong)
}

async fn append(store: Remote, id: CallId, made: Made) -> Done {
    let (call, wrong) = append_recorded(&store, id, &made).await;
    Done::Append(call, made, wrong)
}

fn number_of(key: &AggregateKey) -> u32 {
    key.aggregate_id.parse().unwrap_or(u32::MAX)
}

async fn read(store: Remote, id: CallId, of: Option<u32>, request: ReadRequest) -> Done {
    let invoked = Stamp::now();
    let (backward, from, limit) =
        (request.direction == Direction::Backward, request.from, request.limit);
    let mut records = store.read(request);
    let (mut seen, mut wrong) = (Vec::new(), None);
    let whole = loop {
        match records.next_batch().await {
            Ok(batch) if batch.is_empty() => break true,
            Ok(batch) => seen.extend(batch.iter().map(|record: &Record| Seen::of(record))),
            Err(error) => {
                wrong = is_wrong(&error).then(|| format!("{id} could not read: {error}"));
                break false;
            }
        }
    };
    let responded = Stamp::now();
    let call = ReadCall { id, invoked, responded, of, backward, from, limit, seen, whole };
    Done::Read(call, wrong)
}

async fn ask_version(store: Remote, id: CallId, aggregate: u32) -> Done {
    let invoked = Stamp::now();
    let version = store.version(&key_of(aggregate)).await;
    let responded = Stamp::now();
    let call = version.map(|version| VersionCall { id, invoked, responded, aggregate, version });
    Done::Version(call.ok())
}

/// Whether an error is more than a server that is away.
pub fn is_wrong(error: &ReadError) -> bool {
    !matches!(error, ReadError::Unavailable(_) | ReadError::Io { .. } | ReadError::Closed)
}
