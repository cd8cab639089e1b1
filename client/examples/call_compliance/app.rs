//! What the service does, without a word of HTTP.
#![expect(clippy::disallowed_methods, reason = "it times how long checks take")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quipu_client::{
    Aggregate, BusError, BusOptions, Embedded, EventBus, EventContext, ExecuteError, Handler,
    HandlerError, Inapplicable, IsConflict, LoadError, Options, Repository, Root, SaveError,
    Snapshots, Stamps, SystemStamps, Timestamp, Uuid, retry_conflicts, save_all,
};
use quipu_domain::catalogue::{
    CallAttempted, CallCompleted, CallEvent, CallOutcome, CallStarted, Channel, ComplianceCheck,
    ComplianceEvent, ComplianceViolationDetected, ConsentGranted, ConsentRevoked, ConsentType,
    DNCCheckPerformed, Direction, Severity,
};
use quipu_domain::{
    Call, CallRefusal, Consent, ConsentRefusal, Nanoseconds, PhoneKey, PhoneNumber,
    PhoneNumberHash, PlatformEvent,
};

use crate::audit::Audit;

/// How often a decision is tried again because somebody else was faster.
const CONFLICT_RETRIES: u32 = 8;

/// The service.
pub(crate) struct App {
    pub(crate) log: Arc<Embedded>,
    pub(crate) bus: EventBus,
    pub(crate) audit: Audit,
    pub(crate) alerts: Arc<AtomicU64>,
    key: PhoneKey,
    calls: Repository<Embedded, Call>,
    consents: Repository<Embedded, Consent>,
    checks: Repository<Embedded, NumberChecks>,
    /// Stands for the registries that a service asks.
    do_not_call: Mutex<BTreeSet<PhoneNumberHash>>,
}

/// What was checked of one number: a stream without a state.
#[derive(Debug, Default)]
struct NumberChecks;

impl Aggregate for NumberChecks {
    const TYPE: &'static str = ComplianceEvent::AGGREGATE_TYPE;
    type Event = ComplianceEvent;

    fn apply(&mut self, _: &ComplianceEvent) -> Result<(), Inapplicable> {
        Ok(())
    }
}

/// Whether a call may be made.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) call_id: Uuid,
    pub(crate) checks: Vec<ComplianceCheck>,
}

impl Verdict {
    pub(crate) fn is_allowed(&self) -> bool {
        self.checks.iter().all(|check| check.passed)
    }
}

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error(transparent)]
    Call(#[from] CallRefusal),
    #[error(transparent)]
    Consent(#[from] ConsentRefusal),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Save(#[from] SaveError),
    #[error("the aggregate contradicts itself: {0}")]
    Contradiction(#[from] Inapplicable),
}

impl IsConflict for Refused {
    fn is_conflict(&self) -> bool {
        matches!(self, Self::Save(error) if error.is_conflict())
    }
}

impl<R: Into<Refused>> From<ExecuteError<R>> for Refused {
    fn from(error: ExecuteError<R>) -> Self {
        match error {
            ExecuteError::Refused(refusal) => refusal.into(),
            ExecuteError::Load(error) => error.into(),
            ExecuteError::Save(error) => error.into(),
            ExecuteError::Contradiction { reason, .. } => reason.into(),
            _ => Self::Contradiction(Inapplicable::because("an error that is new to this service")),
        }
    }
}

impl App {
    /// Opens the log, and begins to listen to it.
    pub(crate) async fn open(
        folder: &str,
        key: PhoneKey,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let log = Arc::new(Embedded::open(folder, Options::default())?);
        let snapshots = Snapshots::default();
        let bus = EventBus::open(log.clone(), BusOptions::default()).await?;
        let alerts = Arc::new(AtomicU64::new(0));
        alert(&bus, Arc::clone(&alerts)).await?;
        Ok(Self {
            bus,
            audit: Audit::follow(&log)?,
            alerts,
            key,
            calls: Repository::new(log.clone()).with_snapshots(&snapshots),
            consents: Repository::new(log.clone()).with_snapshots(&snapshots),
            checks: Repository::new(log.clone()),
            do_not_call: Mutex::default(),
            log,
        })
    }

    /// Ends in order.
    pub(crate) async fn stop(self) -> Result<(), BusError> {
        self.bus.stop().await?;
        self.log.close();
        Ok(())
    }

    /// The only name that a number has from here on.
    pub(crate) fn hash(&self, number: &PhoneNumber) -> PhoneNumberHash {
        self.key.hash(number)
    }

    /// A registry lists a number.
    pub(crate) fn list_do_not_call(&self, number: PhoneNumberHash) {
        self.do_not_call.lock().insert(number);
    }

    pub(crate) async fn grant(
        &self,
        context: &EventContext,
        grant: ConsentGranted,
    ) -> Result<(), Refused> {
        let (id, now) = (grant.phone_number_hash.to_string(), now());
        self.consents.execute(&id, context, |it| it.grant(grant.clone(), now)).await?;
        Ok(())
    }

    pub(crate) async fn revoke(
        &self,
        context: &EventContext,
        revocation: ConsentRevoked,
    ) -> Result<(), Refused> {
        let id = revocation.phone_number_hash.to_string();
        self.consents.execute(&id, context, |it| it.revoke(revocation.clone())).await?;
        Ok(())
    }

    /// Checks a call before it is made. What was checked, what came of it, and that the consent is
    /// still what it was: one append.
    pub(crate) async fn check_call(
        &self,
        context: &EventContext,
        from: PhoneNumberHash,
        to: PhoneNumberHash,
    ) -> Result<Verdict, Refused> {
        retry_conflicts(CONFLICT_RETRIES, || self.check_once(context, from, to)).await
    }

    async fn check_once(
        &self,
        context: &EventContext,
        from: PhoneNumberHash,
        to: PhoneNumberHash,
    ) -> Result<Verdict, Refused> {
        let call_id = self.log.new_id();
        let mut call = Root::<Call>::new(call_id.to_string());
        let mut consent = self.consents.load(&to.to_string()).await?;
        let mut number = self.checks.load(&to.to_string()).await?;

        let listed = self.ask_registries(to);
        let checks = vec![check_consent(consent.state()), check_lists(&listed)];
        number.raise(listed)?;
        let failed: Vec<String> =
            checks.iter().filter(|it| !it.passed).map(|it| it.check_type.clone()).collect();
        call.raise_all(call.state().create()?)?;
        let attempt = CallAttempted {
            call_id,
            from_number_hash: from,
            to_number_hash: to,
            direction: Direction::Outbound,
            compliance_checks: checks.clone(),
        };
        call.raise_all(call.state().attempt(attempt)?)?;
        if !failed.is_empty() {
            number.raise(violation(call_id, to, &failed))?;
            call.raise_all(call.state().fail(format!("not compliant: {}", failed.join(", ")))?)?;
        }
        // The consent has raised nothing: it is only checked that nobody has revoked it meanwhile.
        let aggregates = &mut [&mut call as _, &mut number as _, &mut consent as _];
        save_all(&*self.log, &SystemStamps, context, aggregates).await?;
        Ok(Verdict { call_id, checks })
    }

    fn ask_registries(&self, number: PhoneNumberHash) -> DNCCheckPerformed {
        let begun = Instant::now();
        let is_on_dnc = self.do_not_call.lock().contains(&number);
        DNCCheckPerformed {
            phone_number_hash: number,
            is_on_dnc,
            lists: if is_on_dnc { vec!["internal".to_owned()] } else { Vec::new() },
            check_latency: nanoseconds(begun.elapsed()),
            cache_hit: false,
        }
    }

    pub(crate) async fn start(
        &self,
        context: &EventContext,
        call_id: &str,
        start: CallStarted,
    ) -> Result<(), Refused> {
        self.decide(context, call_id, |call| call.start(start.clone())).await
    }

    pub(crate) async fn answer(&self, context: &EventContext, id: &str) -> Result<(), Refused> {
        self.decide(context, id, Call::answer).await
    }

    pub(crate) async fn complete(
        &self,
        context: &EventContext,
        call_id: &str,
        duration: Duration,
        outcome: CallOutcome,
    ) -> Result<(), Refused> {
        let completed = CallCompleted { duration: nanoseconds(duration), outcome };
        self.decide(context, call_id, |call| call.complete(completed.clone())).await
    }

    async fn decide(
        &self,
        context: &EventContext,
        call_id: &str,
        decide: impl Fn(&Call) -> Result<Vec<CallEvent>, CallRefusal>,
    ) -> Result<(), Refused> {
        self.calls.execute(call_id, context, decide).await?;
        Ok(())
    }
}

/// A durable handler: told of every violation at least once, also of those while it was down.
async fn alert(bus: &EventBus, alerts: Arc<AtomicU64>) -> Result<(), BusError> {
    let handler = Handler::new("alerts").of_type("ComplianceViolationDetected");
    bus.subscribe(handler, move |delivery| {
        let PlatformEvent::Compliance(event) = delivery.event()? else {
            return Err(HandlerError::because("a violation is of compliance"));
        };
        if !delivery.is_replay() {
            // In earnest somebody is paged here.
            drop(event);
            alerts.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    })
    .await
}

fn check_consent(consent: &Consent) -> ComplianceCheck {
    let begun = Instant::now();
    let types = [ConsentType::Express, ConsentType::ExpressWritten];
    let passed = types.into_iter().any(|it| consent.holds(it, Channel::Voice, now()));
    ComplianceCheck {
        check_type: "consent".to_owned(),
        passed,
        reason: (!passed).then(|| "no consent to be called".to_owned()),
        duration: nanoseconds(begun.elapsed()),
    }
}

fn check_lists(listed: &DNCCheckPerformed) -> ComplianceCheck {
    ComplianceCheck {
        check_type: "do_not_call".to_owned(),
        passed: !listed.is_on_dnc,
        reason: listed.is_on_dnc.then(|| format!("listed: {}", listed.lists.join(", "))),
        duration: listed.check_latency,
    }
}

fn violation(call_id: Uuid, to: PhoneNumberHash, failed: &[String]) -> ComplianceEvent {
    let violation = ComplianceViolationDetected {
        violation_type: "call_not_permitted".to_owned(),
        severity: Severity::Medium,
        call_id: Some(call_id),
        phone_number_hash: to,
        rules_violated: failed.to_vec(),
        details: serde_json::Map::new(),
    };
    violation.into()
}

fn now() -> Timestamp {
    SystemStamps.next().timestamp
}

fn nanoseconds(duration: Duration) -> Nanoseconds {
    Nanoseconds::try_from(duration).unwrap_or(Nanoseconds(u64::MAX))
}
