//! Who may be called: the facts by phone number, and the view `compliance_projections` over
//! `now()`.

use std::collections::HashMap;

use futures::FutureExt;
use futures::future::BoxFuture;
use quipu_client::{EventType, Record, Timestamp, Uuid};
use quipu_domain::PhoneNumberHash;
use quipu_domain::catalogue::{
    CallStarted, Channel, ComplianceViolationDetected, ConsentGranted, ConsentRevoked, ConsentType,
    DNCCheckPerformed, Severity,
};

use crate::checkpoints::sequence;
use crate::copy_rows::CopyRows;
use crate::instant::Instant;
use crate::projection::{Fold, Interest, OnFailure, Projection, declared, decoded};
use crate::session::Session;
use crate::sql_error::SqlError;

const MIGRATIONS: [&str; 1] = [include_str!("sql/compliance_1.sql")];
const CONTACTS: &str = include_str!("sql/compliance_contacts.sql");
const CONSENTS: &str = include_str!("sql/compliance_consents.sql");
const REVOCATIONS: &str = "UPDATE compliance_consents AS c SET revoked_at = n.revoked_at
    FROM unnest($1::uuid[], $2::text[], $3::timestamptz[])
        AS n(contact_id, consent_type, revoked_at)
    WHERE c.contact_id = n.contact_id AND c.consent_type = n.consent_type
      AND c.revoked_at IS NULL";
const CALLS: &str = "COPY compliance_calls FROM STDIN (FORMAT binary)";
const VIOLATIONS: &str = "COPY compliance_violations FROM STDIN (FORMAT binary)";

/// Consents, do-not-call checks, calls and violations of each phone number.
#[derive(Clone, Debug)]
pub struct Compliance {
    interest: Interest,
    on_failure: OnFailure,
}

impl Compliance {
    /// The projection `compliance`.
    #[must_use]
    pub fn new(on_failure: OnFailure) -> Self {
        let event_types = [
            ConsentGranted::NAME,
            ConsentRevoked::NAME,
            DNCCheckPerformed::NAME,
            ComplianceViolationDetected::NAME,
            CallStarted::NAME,
        ];
        let aggregate_types = [
            ConsentGranted::AGGREGATE_TYPE,
            DNCCheckPerformed::AGGREGATE_TYPE,
            CallStarted::AGGREGATE_TYPE,
        ];
        Self { interest: Interest::of(&aggregate_types, &event_types), on_failure }
    }
}

impl Projection for Compliance {
    declared!("compliance", MIGRATIONS);

    fn fold(&self) -> Box<dyn Fold> {
        Box::new(ComplianceFold {
            contacts: HashMap::new(),
            consents: HashMap::new(),
            revocations: HashMap::new(),
            calls: CopyRows::new(),
            violations: CopyRows::new(),
        })
    }
}

/// What the events of a batch say last of a phone number.
struct Contact {
    last_consent_at: Option<Instant>,
    last_consent_event: Option<&'static str>,
    dnc_status: Option<&'static str>,
    dnc_checked_at: Option<Instant>,
    last_call_at: Option<Instant>,
    updated_at: Instant,
}

/// When a consent was given, ends, and was taken back.
struct Granted {
    since: Instant,
    until: Option<Instant>,
    revoked: Option<Instant>,
}

struct ComplianceFold {
    contacts: HashMap<PhoneNumberHash, Contact>,
    /// Consents that were granted in this batch.
    consents: HashMap<(PhoneNumberHash, ConsentType, Channel), Granted>,
    /// When consents that were granted before this batch were first revoked in it.
    revocations: HashMap<(PhoneNumberHash, ConsentType), Instant>,
    calls: CopyRows,
    violations: CopyRows,
}

impl Fold for ComplianceFold {
    fn take(&mut self, record: &Record) -> Result<(), String> {
        let at = Instant::of(record.timestamp())?;
        match record.event_type() {
            ConsentGranted::NAME => self.grant(&decoded(record)?, at),
            ConsentRevoked::NAME => {
                self.revoke(&decoded(record)?, at);
                Ok(())
            }
            DNCCheckPerformed::NAME => {
                let check: DNCCheckPerformed = decoded(record)?;
                let contact = self.contact(check.phone_number_hash, at);
                contact.dnc_status = Some(if check.is_on_dnc { "listed" } else { "clear" });
                contact.dnc_checked_at = Some(at);
                Ok(())
            }
            ComplianceViolationDetected::NAME => {
                let violation: ComplianceViolationDetected = decoded(record)?;
                let hash = violation.phone_number_hash;
                self.contact(hash, at);
                let row = self.violations.row(4).uuid(contact_id(hash)).instant(at);
                row.bigint(sequence(record.position())).text(severity(violation.severity));
                Ok(())
            }
            _ => {
                let call: CallStarted = decoded(record)?;
                let hash = call.to_number_hash;
                self.contact(hash, at).last_call_at = Some(at);
                let row = self.calls.row(3).uuid(contact_id(hash)).instant(at);
                row.bigint(sequence(record.position()));
                Ok(())
            }
        }
    }

    fn apply<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<(), SqlError>> {
        async {
            self.write_contacts(session).await?;
            self.write_revocations(session).await?;
            self.write_consents(session).await?;
            for (rows, sql) in [(&self.calls, CALLS), (&self.violations, VIOLATIONS)] {
                if !rows.is_empty() {
                    session.copy("write compliance facts", sql, rows.finished()).await?;
                }
            }
            Ok(())
        }
        .boxed()
    }
}

impl ComplianceFold {
    fn grant(&mut self, grant: &ConsentGranted, granted_at: Instant) -> Result<(), String> {
        let expires_at = grant.expires_at.map(|end: Timestamp| Instant::of(end)).transpose()?;
        let contact = self.contact(grant.phone_number_hash, granted_at);
        contact.last_consent_at = Some(granted_at);
        contact.last_consent_event = Some("granted");
        let key = (grant.phone_number_hash, grant.consent_type, grant.channel);
        self.consents.insert(key, Granted { since: granted_at, until: expires_at, revoked: None });
        Ok(())
    }

    /// A revocation takes the consents of its kind on every channel.
    fn revoke(&mut self, revocation: &ConsentRevoked, revoked_at: Instant) {
        let (hash, kind) = (revocation.phone_number_hash, revocation.consent_type);
        self.contact(hash, revoked_at).last_consent_event = Some("revoked");
        self.revocations.entry((hash, kind)).or_insert(revoked_at);
        for channel in [Channel::Voice, Channel::Sms, Channel::Email] {
            if let Some(granted) = self.consents.get_mut(&(hash, kind, channel)) {
                granted.revoked.get_or_insert(revoked_at);
            }
        }
    }

    fn contact(&mut self, hash: PhoneNumberHash, updated_at: Instant) -> &mut Contact {
        let contact = self.contacts.entry(hash).or_insert(Contact {
            last_consent_at: None,
            last_consent_event: None,
            dnc_status: None,
            dnc_checked_at: None,
            last_call_at: None,
            updated_at,
        });
        contact.updated_at = updated_at;
        contact
    }

    async fn write_contacts(&self, session: &Session) -> Result<(), SqlError> {
        if self.contacts.is_empty() {
            return Ok(());
        }
        let ids: Vec<Uuid> = self.contacts.keys().map(|hash| contact_id(*hash)).collect();
        let hashes: Vec<String> = self.contacts.keys().map(ToString::to_string).collect();
        let contacts = || self.contacts.values();
        let consents: Vec<_> = contacts().map(|it| it.last_consent_at).collect();
        let consent_events: Vec<_> = contacts().map(|it| it.last_consent_event).collect();
        let dnc: Vec<_> = contacts().map(|it| it.dnc_status).collect();
        let checked: Vec<_> = contacts().map(|it| it.dnc_checked_at).collect();
        let calls: Vec<_> = contacts().map(|it| it.last_call_at).collect();
        let updated: Vec<_> = contacts().map(|it| it.updated_at).collect();
        session
            .execute(
                "write compliance_contacts",
                CONTACTS,
                &[&ids, &hashes, &consents, &consent_events, &dnc, &checked, &calls, &updated],
            )
            .await
            .map(drop)
    }

    async fn write_revocations(&self, session: &Session) -> Result<(), SqlError> {
        if self.revocations.is_empty() {
            return Ok(());
        }
        let revoked = || self.revocations.keys();
        let ids: Vec<Uuid> = revoked().map(|(hash, _)| contact_id(*hash)).collect();
        let kinds: Vec<&str> = revoked().map(|(_, kind)| consent_type(*kind)).collect();
        let times: Vec<Instant> = self.revocations.values().copied().collect();
        let doing = "write revocations";
        session.execute(doing, REVOCATIONS, &[&ids, &kinds, &times]).await.map(drop)
    }

    async fn write_consents(&self, session: &Session) -> Result<(), SqlError> {
        if self.consents.is_empty() {
            return Ok(());
        }
        let (keys, granted) = (|| self.consents.keys(), || self.consents.values());
        let ids: Vec<Uuid> = keys().map(|(hash, ..)| contact_id(*hash)).collect();
        let kinds: Vec<&str> = keys().map(|(_, kind, _)| consent_type(*kind)).collect();
        let channels: Vec<&str> = keys().map(|(.., it)| channel(*it)).collect();
        let granted_at: Vec<_> = granted().map(|it| it.since).collect();
        let expires_at: Vec<_> = granted().map(|it| it.until).collect();
        let revoked_at: Vec<_> = granted().map(|it| it.revoked).collect();
        session
            .execute(
                "write consents",
                CONSENTS,
                &[&ids, &kinds, &channels, &granted_at, &expires_at, &revoked_at],
            )
            .await
            .map(drop)
    }
}

/// The first half of the hash: two numbers do not share it.
fn contact_id(hash: PhoneNumberHash) -> Uuid {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.as_bytes()[..16]);
    Uuid::from_bytes(bytes)
}

fn consent_type(kind: ConsentType) -> &'static str {
    match kind {
        ConsentType::Express => "express",
        ConsentType::ExpressWritten => "express_written",
        ConsentType::Implied => "implied",
    }
}

fn channel(channel: Channel) -> &'static str {
    match channel {
        Channel::Voice => "voice",
        Channel::Sms => "sms",
        Channel::Email => "email",
    }
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Low => "low",
        Severity::Medium => "medium",
        Severity::High => "high",
        Severity::Critical => "critical",
    }
}
