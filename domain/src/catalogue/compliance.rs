//! Compliance: who may be called, what was checked before, and what went wrong.

use std::net::IpAddr;

use quipu_client::{Timestamp, Uuid};
use serde_json::{Map, Value};

use crate::events::events;
use crate::example;
use crate::field_type::words;
use crate::nanoseconds::Nanoseconds;
use crate::phone_number_hash::PhoneNumberHash;

words! {
    /// How a consent was given.
    ConsentType {
        /// Given in so many words.
        Express = "express",
        /// Given in so many words, in writing.
        ExpressWritten = "express_written",
        /// Follows from a business relationship.
        Implied = "implied",
    }
}

words! {
    /// By which way somebody may be reached.
    Channel {
        /// Calls.
        Voice = "voice",
        /// Text messages.
        Sms = "sms",
        /// Electronic mail.
        Email = "email",
    }
}

words! {
    /// How bad a violation is.
    Severity {
        /// To be noted.
        Low = "low",
        /// To be looked at.
        Medium = "medium",
        /// To be acted on.
        High = "high",
        /// To be acted on now.
        Critical = "critical",
    }
}

events! {
    /// The consents that belong to one phone number. The id is the phone number's hash.
    ConsentEvent of "Consent";

    /// Somebody agreed to be contacted.
    ConsentGranted {
        /// Whose number.
        phone_number_hash: PhoneNumberHash = example::hash(),
        /// How it was given.
        consent_type: ConsentType = ConsentType::ExpressWritten,
        /// By which way they may be contacted.
        channel: Channel = Channel::Voice,
        /// When it ends; without it, when it is revoked.
        #[serde(skip_serializing_if = "Option::is_none")]
        expires_at: Option<Timestamp> = Some(example::time()),
        /// Where the consent was given from.
        ip_address: IpAddr = IpAddr::from([192, 0, 2, 1]),
        /// Where it was given: the form, the campaign, the recording.
        source: String = "web form 12".to_owned(),
    }

    /// Somebody took a consent back: it holds on no channel any more.
    ConsentRevoked {
        /// Whose number.
        phone_number_hash: PhoneNumberHash = example::hash(),
        /// Which consent.
        consent_type: ConsentType = ConsentType::ExpressWritten,
        /// Why, in their words.
        reason: String = "asked on the phone".to_owned(),
        /// By whom: the person, or a user for them.
        revoked_by: String = "consumer".to_owned(),
    }
}

events! {
    /// What was checked and found about one phone number. The id is the phone number's hash.
    ComplianceEvent of "Compliance";

    /// A number was looked up in do-not-call lists.
    DNCCheckPerformed {
        /// Whose number.
        phone_number_hash: PhoneNumberHash = example::hash(),
        /// Whether any list has it.
        is_on_dnc: bool = true,
        /// The lists that have it.
        lists: Vec<String> = vec!["federal".to_owned(), "internal".to_owned()],
        /// How long the look-up took.
        check_latency: Nanoseconds = Nanoseconds(1_250_000),
        /// Whether a cache answered.
        cache_hit: bool = false,
    }

    /// A rule was broken, or would have been.
    ComplianceViolationDetected {
        /// What kind of violation.
        violation_type: String = "call_outside_hours".to_owned(),
        /// How bad it is.
        severity: Severity = Severity::High,
        /// The call it happened in.
        #[serde(skip_serializing_if = "Option::is_none")]
        call_id: Option<Uuid> = Some(example::id(1)),
        /// Whose number.
        phone_number_hash: PhoneNumberHash = example::hash(),
        /// The rules that were broken.
        rules_violated: Vec<String> = vec!["TCPA 64.1200(c)(1)".to_owned()],
        /// Whatever else is known. A number that no 64-bit integer or double holds loses digits
        /// when it is read as a typed event, and one beyond the greatest double (1e400) is refused
        /// then; the log keeps them.
        details: Map<String, Value> = example::object(r#"{"local_time":"21:14"}"#),
    }
}
