//! Every event of the platform, in one list.

mod account;
mod call;
mod compliance;

use quipu_client::{AggregateEvent, DecodeError, DecodeProblem, EncodeError, EncodedEvent, Record};

pub use account::*;
pub use call::*;
pub use compliance::*;

use crate::events::FamilyDescription;

/// Any event of the platform: what a consumer of the whole log reads.
#[derive(Clone, Debug, PartialEq)]
pub enum PlatformEvent {
    /// Of a phone number's consents.
    Consent(ConsentEvent),
    /// Of the checks of a phone number.
    Compliance(ComplianceEvent),
    /// Of a call.
    Call(CallEvent),
    /// Of an account.
    Account(AccountEvent),
}

/// What the catalogue says of every event, in the order of its page.
#[must_use]
pub fn catalogue() -> Vec<FamilyDescription> {
    vec![
        ConsentEvent::description(),
        ComplianceEvent::description(),
        CallEvent::description(),
        AccountEvent::description(),
    ]
}

impl AggregateEvent for PlatformEvent {
    fn encode(&self) -> Result<EncodedEvent, EncodeError> {
        match self {
            Self::Consent(event) => event.encode(),
            Self::Compliance(event) => event.encode(),
            Self::Call(event) => event.encode(),
            Self::Account(event) => event.encode(),
        }
    }

    fn decode(record: &Record) -> Result<Self, DecodeError> {
        match record.aggregate_type() {
            ConsentEvent::AGGREGATE_TYPE => ConsentEvent::decode(record).map(Self::Consent),
            ComplianceEvent::AGGREGATE_TYPE => {
                ComplianceEvent::decode(record).map(Self::Compliance)
            }
            CallEvent::AGGREGATE_TYPE => CallEvent::decode(record).map(Self::Call),
            AccountEvent::AGGREGATE_TYPE => AccountEvent::decode(record).map(Self::Account),
            _ => Err(DecodeProblem::UnknownType.of(record)),
        }
    }
}
