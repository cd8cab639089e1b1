//! Calls: from the wish to call to how it ended.

use quipu_client::{Timestamp, Uuid};
use serde::{Deserialize, Serialize};

use crate::events::events;
use crate::example;
use crate::field_type::{spelled, words};
use crate::nanoseconds::Nanoseconds;
use crate::phone_number_hash::PhoneNumberHash;

words! {
    /// Which way a call goes.
    Direction {
        /// To the platform.
        Inbound = "inbound",
        /// From the platform.
        Outbound = "outbound",
    }
}

words! {
    /// How a completed call ended.
    CallOutcome {
        /// Somebody answered, and they spoke.
        Connected = "connected",
        /// A machine answered.
        Voicemail = "voicemail",
        /// Nobody answered.
        NoAnswer = "no_answer",
        /// The line was busy.
        Busy = "busy",
        /// The call was turned down.
        Rejected = "rejected",
    }
}

/// One check that was made before a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ComplianceCheck {
    /// What was checked.
    #[serde(rename = "type")]
    pub check_type: String,
    /// Whether the call may go on.
    pub passed: bool,
    /// Why, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How long the check took.
    pub duration: Nanoseconds,
}

spelled! {
    ComplianceCheck:
        "`{type: text, passed: true or false, reason?: text, duration: integer, nanoseconds}`",
}

impl ComplianceCheck {
    fn example() -> Self {
        let (check_type, reason) = ("do_not_call".to_owned(), Some("not on any list".to_owned()));
        Self { check_type, passed: true, reason, duration: Nanoseconds(1_250_000) }
    }
}

events! {
    /// One call. The id is a UUID.
    CallEvent of "Call";

    /// Somebody wants to make a call.
    CallCreated {}

    /// The call was checked against the rules. One that fails a check is not started.
    CallAttempted {
        /// The call.
        call_id: Uuid = example::id(1),
        /// The number that calls.
        from_number_hash: PhoneNumberHash = example::other_hash(),
        /// The number that is called.
        to_number_hash: PhoneNumberHash = example::hash(),
        /// Which way it goes.
        direction: Direction = Direction::Outbound,
        /// What was checked.
        compliance_checks: Vec<ComplianceCheck> = vec![ComplianceCheck::example()],
    }

    /// It rings.
    CallStarted {
        /// The number that calls.
        from_number_hash: PhoneNumberHash = example::other_hash(),
        /// The number that is called.
        to_number_hash: PhoneNumberHash = example::hash(),
        /// When it began to ring.
        started_at: Timestamp = example::time(),
    }

    /// Somebody, or a machine, answered.
    CallAnswered {}

    /// The call is over.
    CallCompleted {
        /// How long it took.
        duration: Nanoseconds = Nanoseconds(61_500_000_000),
        /// How it ended.
        outcome: CallOutcome = CallOutcome::Connected,
    }

    /// The call could not be made, or broke off.
    CallFailed {
        /// Why.
        reason: String = "carrier: no route".to_owned(),
    }
}
