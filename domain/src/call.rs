//! One call, from the wish to its end.

use quipu_client::{Aggregate, Inapplicable, Snapshotted};
use serde::{Deserialize, Serialize};

use crate::catalogue::{
    CallAnswered, CallAttempted, CallCompleted, CallCreated, CallEvent, CallFailed, CallOutcome,
    CallStarted,
};
use crate::phone_number_hash::PhoneNumberHash;

/// One call; the aggregate's id is a UUID.
///
/// Rules:
/// 1. A call is created once, and everything else follows that.
/// 2. It is checked before it starts, and starts only if the last attempt passed every check, with
///    the numbers that were checked. An attempt that failed may be made again.
/// 3. It is answered once, after it started.
/// 4. It completes after it started; one that nobody answered has no outcome that takes an answer.
/// 5. It may fail until it has ended, and once it has ended nothing more happens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    stage: CallStage,
    attempt: Option<Attempt>,
}

/// How far a call has got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum CallStage {
    /// Nobody has wished for it.
    #[default]
    None,
    /// Wished for, perhaps attempted.
    Created,
    /// Ringing.
    Started,
    /// Somebody speaks.
    Answered,
    /// Completed or failed.
    Ended,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Attempt {
    from: PhoneNumberHash,
    to: PhoneNumberHash,
    failed_check: Option<String>,
}

/// Why nothing happened to a call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallRefusal {
    /// It is not at the stage for that.
    #[error("the call is {actual:?}; for that it must be {required:?}")]
    Stage {
        /// The stage it must be at.
        required: CallStage,
        /// The stage it is at.
        actual: CallStage,
    },
    /// It cannot complete or be answered before it started.
    #[error("the call has not started")]
    NotStarted,
    /// It is over.
    #[error("the call has ended")]
    Ended,
    /// Nobody has checked it against the rules.
    #[error("the call was not checked against any rule")]
    NotChecked,
    /// A check says that it must not be made.
    #[error("the call failed its {check:?} check")]
    CheckFailed {
        /// The first check that failed.
        check: String,
    },
    /// Other numbers than those that were checked.
    #[error("the call starts with other numbers than those that were checked")]
    OtherNumbers,
    /// It cannot have connected, or reached a machine, if nothing answered.
    #[error("the call was not answered: its outcome cannot be {0:?}")]
    NotAnswered(CallOutcome),
}

impl Call {
    /// How far it has got.
    #[must_use]
    pub fn stage(&self) -> CallStage {
        self.stage
    }

    /// Wishes for the call.
    ///
    /// # Errors
    /// Rule 1.
    pub fn create(&self) -> Result<Vec<CallEvent>, CallRefusal> {
        self.require(CallStage::None)?;
        Ok(vec![CallCreated {}.into()])
    }

    /// Notes what the checks said, passed or not.
    ///
    /// # Errors
    /// Rules 1 and 2: no checks at all are none that it passed.
    pub fn attempt(&self, attempt: CallAttempted) -> Result<Vec<CallEvent>, CallRefusal> {
        self.require(CallStage::Created)?;
        if attempt.compliance_checks.is_empty() {
            return Err(CallRefusal::NotChecked);
        }
        Ok(vec![attempt.into()])
    }

    /// It rings.
    ///
    /// # Errors
    /// Rule 2.
    pub fn start(&self, start: CallStarted) -> Result<Vec<CallEvent>, CallRefusal> {
        self.require(CallStage::Created)?;
        let attempt = self.attempt.as_ref().ok_or(CallRefusal::NotChecked)?;
        if let Some(check) = &attempt.failed_check {
            return Err(CallRefusal::CheckFailed { check: check.clone() });
        }
        if (attempt.from, attempt.to) != (start.from_number_hash, start.to_number_hash) {
            return Err(CallRefusal::OtherNumbers);
        }
        Ok(vec![start.into()])
    }

    /// Somebody answers.
    ///
    /// # Errors
    /// Rule 3.
    pub fn answer(&self) -> Result<Vec<CallEvent>, CallRefusal> {
        self.check_started()?;
        self.require(CallStage::Started)?;
        Ok(vec![CallAnswered {}.into()])
    }

    /// It is over.
    ///
    /// # Errors
    /// Rule 4.
    pub fn complete(&self, completion: CallCompleted) -> Result<Vec<CallEvent>, CallRefusal> {
        self.check_started()?;
        let takes_an_answer =
            matches!(completion.outcome, CallOutcome::Connected | CallOutcome::Voicemail);
        if takes_an_answer && self.stage < CallStage::Answered {
            return Err(CallRefusal::NotAnswered(completion.outcome));
        }
        Ok(vec![completion.into()])
    }

    /// It could not be made, or broke off.
    ///
    /// # Errors
    /// Rules 1 and 5.
    pub fn fail(&self, reason: impl Into<String>) -> Result<Vec<CallEvent>, CallRefusal> {
        match self.stage {
            CallStage::None => self.require(CallStage::Created)?,
            CallStage::Ended => return Err(CallRefusal::Ended),
            _ => {}
        }
        Ok(vec![CallFailed { reason: reason.into() }.into()])
    }

    fn require(&self, required: CallStage) -> Result<(), CallRefusal> {
        match self.stage {
            CallStage::Ended => Err(CallRefusal::Ended),
            actual if actual == required => Ok(()),
            actual => Err(CallRefusal::Stage { required, actual }),
        }
    }

    fn check_started(&self) -> Result<(), CallRefusal> {
        match self.stage {
            CallStage::None | CallStage::Created => Err(CallRefusal::NotStarted),
            CallStage::Started | CallStage::Answered => Ok(()),
            CallStage::Ended => Err(CallRefusal::Ended),
        }
    }
}

impl Snapshotted for Call {}

impl Aggregate for Call {
    const TYPE: &'static str = CallEvent::AGGREGATE_TYPE;
    type Event = CallEvent;

    fn apply(&mut self, event: &CallEvent) -> Result<(), Inapplicable> {
        if !matches!(event, CallEvent::CallCreated(_)) && self.stage == CallStage::None {
            return Err(Inapplicable::because("the call was never created"));
        }
        self.stage = match event {
            CallEvent::CallCreated(_) => CallStage::Created,
            CallEvent::CallAttempted(attempt) => {
                self.attempt = Some(Attempt::of(attempt));
                self.stage
            }
            CallEvent::CallStarted(_) => CallStage::Started,
            CallEvent::CallAnswered(_) => CallStage::Answered,
            CallEvent::CallCompleted(_) | CallEvent::CallFailed(_) => CallStage::Ended,
        };
        Ok(())
    }
}

impl Attempt {
    fn of(event: &CallAttempted) -> Self {
        let failed = event.compliance_checks.iter().find(|check| !check.passed);
        let (from, to) = (event.from_number_hash, event.to_number_hash);
        Self { from, to, failed_check: failed.map(|check| check.check_type.clone()) }
    }
}

#[cfg(test)]
mod tests {
    use quipu_client::testing::given;

    use super::*;
    use crate::example;

    fn created() -> CallEvent {
        CallCreated {}.into()
    }

    fn attempted() -> CallEvent {
        CallAttempted::example().into()
    }

    fn started() -> CallEvent {
        CallStarted::example().into()
    }

    fn answered() -> CallEvent {
        CallAnswered {}.into()
    }

    fn completed() -> CallEvent {
        CallCompleted::example().into()
    }

    fn failed_attempt() -> CallAttempted {
        let mut attempt = CallAttempted::example();
        attempt.compliance_checks[0].passed = false;
        attempt
    }

    fn complete(call: &Call) -> Result<Vec<CallEvent>, CallRefusal> {
        call.complete(CallCompleted::example())
    }

    fn start(call: &Call) -> Result<Vec<CallEvent>, CallRefusal> {
        call.start(CallStarted::example())
    }

    #[test]
    fn a_call_goes_from_the_wish_to_its_end() {
        let ended = given::<Call>([])
            .when(Call::create)
            .then([created()])
            .when(|call| call.attempt(CallAttempted::example()))
            .then([attempted()])
            .when(start)
            .then([started()])
            .when(Call::answer)
            .then([answered()])
            .when(complete)
            .then([completed()]);
        assert_eq!(ended.state().stage(), CallStage::Ended);
    }

    #[test]
    fn a_call_is_created_once() {
        let (required, actual) = (CallStage::None, CallStage::Created);
        given::<Call>([created()])
            .when(Call::create)
            .then_refused(CallRefusal::Stage { required, actual });
    }

    #[test]
    fn nothing_happens_to_a_call_that_was_not_created() {
        let refused = CallRefusal::Stage { required: CallStage::Created, actual: CallStage::None };
        given::<Call>([]).when(start).then_refused(refused.clone());
        given::<Call>([]).when(|call| call.fail("x")).then_refused(refused.clone());
        given::<Call>([]).when(|call| call.attempt(CallAttempted::example())).then_refused(refused);
        for event in [attempted(), started(), answered(), completed()] {
            assert!(Call::default().apply(&event).is_err(), "{event:?}");
        }
    }

    #[test]
    fn a_call_that_was_not_checked_or_failed_a_check_is_not_started() {
        given::<Call>([created()]).when(start).then_refused(CallRefusal::NotChecked);
        let by_none = CallAttempted { compliance_checks: vec![], ..CallAttempted::example() };
        given::<Call>([created()])
            .when(|call| call.attempt(by_none))
            .then_refused(CallRefusal::NotChecked);
        let check = "do_not_call".to_owned();
        given::<Call>([created(), attempted(), failed_attempt().into()])
            .when(start)
            .then_refused(CallRefusal::CheckFailed { check });
    }

    #[test]
    fn a_failed_attempt_may_be_made_again() {
        given::<Call>([created(), failed_attempt().into()])
            .when(|call| call.attempt(CallAttempted::example()))
            .then([attempted()])
            .when(start)
            .then([started()]);
    }

    #[test]
    fn a_call_starts_with_the_numbers_that_were_checked() {
        let to_number_hash = example::other_hash();
        let other = CallStarted { to_number_hash, ..CallStarted::example() };
        given::<Call>([created(), attempted()])
            .when(|call| call.start(other))
            .then_refused(CallRefusal::OtherNumbers);
    }

    #[test]
    fn a_call_cannot_complete_or_be_answered_before_it_started() {
        for history in [vec![], vec![created()], vec![created(), attempted()]] {
            given::<Call>(history.clone()).when(complete).then_refused(CallRefusal::NotStarted);
            given::<Call>(history).when(Call::answer).then_refused(CallRefusal::NotStarted);
        }
    }

    #[test]
    fn a_call_is_answered_once() {
        let (required, actual) = (CallStage::Started, CallStage::Answered);
        given::<Call>([created(), attempted(), started(), answered()])
            .when(Call::answer)
            .then_refused(CallRefusal::Stage { required, actual });
    }

    #[test]
    fn a_call_that_nobody_answered_did_not_connect() {
        let ringing = || given::<Call>([created(), attempted(), started()]);
        ringing().when(complete).then_refused(CallRefusal::NotAnswered(CallOutcome::Connected));
        let outcome = CallOutcome::NoAnswer;
        let unanswered = CallCompleted { outcome, ..CallCompleted::example() };
        ringing().when(|call| call.complete(unanswered.clone())).then([unanswered.clone().into()]);
    }

    #[test]
    fn a_call_may_fail_until_it_has_ended() {
        let history = [created(), attempted(), started(), answered()];
        let failed = || CallEvent::from(CallFailed { reason: "line cut".to_owned() });
        for length in 1..=history.len() {
            given::<Call>(history[..length].to_vec())
                .when(|call| call.fail("line cut"))
                .then([failed()])
                .when(|call| call.fail("again"))
                .then_refused(CallRefusal::Ended);
        }
    }

    #[test]
    fn nothing_happens_to_a_call_that_has_ended() {
        let ended = || given::<Call>([created(), attempted(), started(), answered(), completed()]);
        ended().when(Call::create).then_refused(CallRefusal::Ended);
        ended().when(start).then_refused(CallRefusal::Ended);
        ended().when(Call::answer).then_refused(CallRefusal::Ended);
        ended().when(complete).then_refused(CallRefusal::Ended);
        ended()
            .when(|call| call.attempt(CallAttempted::example()))
            .then_refused(CallRefusal::Ended);
    }
}
