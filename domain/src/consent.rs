//! The consents of one phone number: given for a kind and a channel, revoked for a kind.

use std::collections::{BTreeMap, BTreeSet};

use quipu_client::{Aggregate, Inapplicable, Snapshotted, Timestamp};
use serde::{Deserialize, Serialize};

use crate::catalogue::{Channel, ConsentEvent, ConsentGranted, ConsentRevoked, ConsentType};
use crate::phone_number_hash::PhoneNumberHash;

/// The consents of one phone number; the aggregate's id is the number's hash.
///
/// Rules:
/// 1. A consent that holds is not granted again; one that was revoked or has expired may be.
/// 2. A consent is not granted for a time that is over.
/// 3. What was never granted is not revoked, and what was revoked is not revoked again.
/// 4. All events are of one phone number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consent {
    phone_number_hash: Option<PhoneNumberHash>,
    /// When each ends.
    #[serde(with = "crate::pairs")]
    granted: BTreeMap<(ConsentType, Channel), Option<Timestamp>>,
    revoked: BTreeSet<ConsentType>,
}

/// Why a consent was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConsentRefusal {
    /// It holds already.
    #[error("the {0:?} consent for {1:?} is already given")]
    AlreadyGranted(ConsentType, Channel),
    /// It would be over before it began.
    #[error("the consent would end at {expires_at}, which is not after {now}")]
    ExpiresInThePast {
        /// When it would end.
        expires_at: Timestamp,
        /// The time it is now.
        now: Timestamp,
    },
    /// There is nothing to revoke.
    #[error("there is no {0:?} consent to revoke")]
    NeverGranted(ConsentType),
    /// It is revoked already.
    #[error("the {0:?} consent is already revoked")]
    AlreadyRevoked(ConsentType),
    /// The event is of another number than all events so far.
    #[error("these are the consents of number {expected}, not of {given}")]
    OtherNumber {
        /// The number's hash so far.
        expected: PhoneNumberHash,
        /// The hash given.
        given: PhoneNumberHash,
    },
}

impl Consent {
    /// Whether the number may be contacted in this way at this time.
    #[must_use]
    pub fn holds(&self, consent_type: ConsentType, channel: Channel, at: Timestamp) -> bool {
        let expires_at = self.granted.get(&(consent_type, channel));
        expires_at.is_some_and(|expires_at| expires_at.is_none_or(|end| at < end))
    }

    /// Grants a consent.
    ///
    /// # Errors
    /// Rules 1, 2 and 4.
    pub fn grant(
        &self,
        grant: ConsentGranted,
        now: Timestamp,
    ) -> Result<Vec<ConsentEvent>, ConsentRefusal> {
        self.check_number(grant.phone_number_hash)?;
        if let Some(expires_at) = grant.expires_at.filter(|expires_at| *expires_at <= now) {
            return Err(ConsentRefusal::ExpiresInThePast { expires_at, now });
        }
        if self.holds(grant.consent_type, grant.channel, now) {
            return Err(ConsentRefusal::AlreadyGranted(grant.consent_type, grant.channel));
        }
        Ok(vec![grant.into()])
    }

    /// Revokes a consent, expired or not, on every channel.
    ///
    /// # Errors
    /// Rules 3 and 4.
    pub fn revoke(&self, revocation: ConsentRevoked) -> Result<Vec<ConsentEvent>, ConsentRefusal> {
        self.check_number(revocation.phone_number_hash)?;
        let consent_type = revocation.consent_type;
        if self.revoked.contains(&consent_type) {
            return Err(ConsentRefusal::AlreadyRevoked(consent_type));
        }
        if !self.granted.keys().any(|(granted, _)| *granted == consent_type) {
            return Err(ConsentRefusal::NeverGranted(consent_type));
        }
        Ok(vec![revocation.into()])
    }

    fn check_number(&self, given: PhoneNumberHash) -> Result<(), ConsentRefusal> {
        match self.phone_number_hash {
            Some(expected) if expected != given => {
                Err(ConsentRefusal::OtherNumber { expected, given })
            }
            _ => Ok(()),
        }
    }
}

impl Snapshotted for Consent {}

impl Aggregate for Consent {
    const TYPE: &'static str = ConsentEvent::AGGREGATE_TYPE;
    type Event = ConsentEvent;

    fn apply(&mut self, event: &ConsentEvent) -> Result<(), Inapplicable> {
        let hash = match event {
            ConsentEvent::ConsentGranted(grant) => grant.phone_number_hash,
            ConsentEvent::ConsentRevoked(revocation) => revocation.phone_number_hash,
        };
        self.check_number(hash).map_err(|other| Inapplicable::because(other.to_string()))?;
        self.phone_number_hash = Some(hash);
        match event {
            ConsentEvent::ConsentGranted(grant) => {
                self.granted.insert((grant.consent_type, grant.channel), grant.expires_at);
                self.revoked.remove(&grant.consent_type);
            }
            ConsentEvent::ConsentRevoked(revocation) => {
                self.granted.retain(|(granted, _), _| *granted != revocation.consent_type);
                self.revoked.insert(revocation.consent_type);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use quipu_client::testing::given;

    use super::*;
    use crate::example;

    fn grant(channel: Channel, expires_at: Option<Timestamp>) -> ConsentGranted {
        ConsentGranted { channel, expires_at, ..ConsentGranted::example() }
    }

    fn granted(channel: Channel) -> ConsentEvent {
        grant(channel, None).into()
    }

    fn revocation() -> ConsentRevoked {
        ConsentRevoked::example()
    }

    fn seconds(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    const KIND: ConsentType = ConsentType::ExpressWritten;

    #[test]
    fn a_consent_is_granted_and_holds_for_its_kind_and_channel_only() {
        let after = given::<Consent>([])
            .when(|consent| consent.grant(grant(Channel::Voice, None), seconds(1)))
            .then([granted(Channel::Voice)]);
        assert!(after.state().holds(KIND, Channel::Voice, seconds(1)));
        assert!(!after.state().holds(KIND, Channel::Sms, seconds(1)));
        assert!(!after.state().holds(ConsentType::Implied, Channel::Voice, seconds(1)));
    }

    #[test]
    fn a_consent_that_holds_is_not_granted_again() {
        given::<Consent>([granted(Channel::Voice)])
            .when(|consent| consent.grant(grant(Channel::Voice, Some(seconds(9))), seconds(1)))
            .then_refused(ConsentRefusal::AlreadyGranted(KIND, Channel::Voice));
    }

    #[test]
    fn an_expired_consent_does_not_hold_and_may_be_granted_again() {
        let until_five = grant(Channel::Sms, Some(seconds(5)));
        let expired = given::<Consent>([until_five.into()]);
        assert!(expired.state().holds(KIND, Channel::Sms, seconds(4)));
        assert!(!expired.state().holds(KIND, Channel::Sms, seconds(5)));
        expired
            .when(|consent| consent.grant(grant(Channel::Sms, None), seconds(5)))
            .then([granted(Channel::Sms)]);
    }

    #[test]
    fn a_consent_for_a_time_that_is_over_is_refused() {
        let (expires_at, now) = (seconds(5), seconds(5));
        given::<Consent>([])
            .when(|consent| consent.grant(grant(Channel::Sms, Some(expires_at)), now))
            .then_refused(ConsentRefusal::ExpiresInThePast { expires_at, now });
    }

    #[test]
    fn a_revocation_takes_every_channel_of_its_kind() {
        let other_kind =
            ConsentGranted { consent_type: ConsentType::Implied, ..grant(Channel::Voice, None) };
        let after =
            given::<Consent>([granted(Channel::Voice), granted(Channel::Sms), other_kind.into()])
                .when(|consent| consent.revoke(revocation()))
                .then([revocation().into()]);
        assert!(!after.state().holds(KIND, Channel::Voice, seconds(1)));
        assert!(!after.state().holds(KIND, Channel::Sms, seconds(1)));
        assert!(after.state().holds(ConsentType::Implied, Channel::Voice, seconds(1)));
    }

    #[test]
    fn a_revoked_consent_cannot_be_revoked_again() {
        given::<Consent>([granted(Channel::Voice), revocation().into()])
            .when(|consent| consent.revoke(revocation()))
            .then_refused(ConsentRefusal::AlreadyRevoked(KIND));
    }

    #[test]
    fn what_was_never_granted_cannot_be_revoked() {
        given::<Consent>([])
            .when(|consent| consent.revoke(revocation()))
            .then_refused(ConsentRefusal::NeverGranted(KIND));
    }

    #[test]
    fn a_revoked_consent_may_be_granted_and_revoked_anew() {
        given::<Consent>([granted(Channel::Voice), revocation().into()])
            .when(|consent| consent.grant(grant(Channel::Voice, None), seconds(1)))
            .then([granted(Channel::Voice)])
            .when(|consent| consent.revoke(revocation()))
            .then([revocation().into()]);
    }

    #[test]
    fn another_numbers_events_are_refused_and_never_folded() {
        let (expected, given_hash) = (example::hash(), example::other_hash());
        let other = ConsentRevoked { phone_number_hash: given_hash, ..revocation() };
        let refusal = ConsentRefusal::OtherNumber { expected, given: given_hash };
        given::<Consent>([granted(Channel::Voice)])
            .when(|consent| consent.revoke(other.clone()))
            .then_refused(refusal);
        let mut consent = Consent::default();
        consent.apply(&granted(Channel::Voice)).unwrap();
        let error = consent.apply(&other.into()).unwrap_err();
        assert_eq!(error.to_string(), refusal.to_string());
    }
}
