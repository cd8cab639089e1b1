//! What became of calls: by day, direction and outcome; and the checks before them.
//!
//! The event that ends a call does not say which way it went: the attempt did. Nearly always both
//! are in one batch; of a call that has not ended, `call_directions` keeps it.

use std::collections::HashMap;

use futures::FutureExt;
use futures::future::BoxFuture;
use quipu_client::{EventType, Record};
use quipu_domain::catalogue::{CallAttempted, CallCompleted, CallFailed, CallOutcome, Direction};

use crate::instant::Instant;
use crate::projection::{Fold, Interest, OnFailure, Projection, declared, decoded, storable};
use crate::session::Session;
use crate::sql_error::SqlError;

const MIGRATIONS: [&str; 1] = [include_str!("sql/call_statistics_1.sql")];
const STATISTICS: &str = include_str!("sql/call_statistics.sql");
const CHECKS: &str = include_str!("sql/call_check_statistics.sql");
const KEEP: &str = "INSERT INTO call_directions (call_id, direction)
    SELECT * FROM unnest($1::text[], $2::text[])
    ON CONFLICT (call_id) DO UPDATE SET direction = excluded.direction";
const FORGET: &str = "DELETE FROM call_directions WHERE call_id = ANY($1::text[])";
const CHECK_TYPE_CHARACTERS_MAX: usize = 255;

/// Calls by day, direction and outcome, and their checks by type.
#[derive(Clone, Debug)]
pub struct CallStatistics {
    interest: Interest,
    on_failure: OnFailure,
}

impl CallStatistics {
    /// The projection `call_statistics`.
    #[must_use]
    pub fn new(on_failure: OnFailure) -> Self {
        let event_types = [CallAttempted::NAME, CallCompleted::NAME, CallFailed::NAME];
        Self { interest: Interest::of(&[CallAttempted::AGGREGATE_TYPE], &event_types), on_failure }
    }
}

impl Projection for CallStatistics {
    declared!("call_statistics", MIGRATIONS);

    fn fold(&self) -> Box<dyn Fold> {
        Box::new(CallsFold::default())
    }
}

/// What the batch says of a call's direction.
#[derive(Clone, Copy)]
enum Known {
    /// It was attempted, and has not ended since.
    Is(&'static str),
    /// It has ended: what follows is of no known direction.
    Ended,
}

/// Calls that ended in one way.
#[derive(Default)]
struct Ends {
    calls: i64,
    duration_ns: u128,
}

#[derive(Default)]
struct Checks {
    made: i64,
    failed: i64,
    duration_ns: u128,
}

#[derive(Default)]
struct CallsFold {
    directions: HashMap<String, Known>,
    /// By day, direction and outcome.
    ends: HashMap<(i32, &'static str, &'static str), Ends>,
    /// Of calls that were attempted before this batch: by day, call and outcome.
    elsewhere: Vec<(i32, String, &'static str, u64)>,
    checks: HashMap<(i32, &'static str, String), Checks>,
}

impl Fold for CallsFold {
    fn take(&mut self, record: &Record) -> Result<(), String> {
        let day = Instant::of(record.timestamp())?.day();
        match record.event_type() {
            CallAttempted::NAME => self.attempt(record.aggregate_id(), &decoded(record)?, day),
            CallCompleted::NAME => {
                let completed: CallCompleted = decoded(record)?;
                let outcome = outcome(completed.outcome);
                self.end(record.aggregate_id(), day, outcome, completed.duration.0);
                Ok(())
            }
            _ => {
                decoded::<CallFailed>(record)?;
                self.end(record.aggregate_id(), day, "failed", 0);
                Ok(())
            }
        }
    }

    fn apply<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<(), SqlError>> {
        async {
            self.write_ends(session).await?;
            self.write_checks(session).await?;
            self.write_directions(session).await
        }
        .boxed()
    }
}

impl CallsFold {
    fn attempt(&mut self, call: &str, attempt: &CallAttempted, day: i32) -> Result<(), String> {
        for check in &attempt.compliance_checks {
            storable("a check's type", &check.check_type, CHECK_TYPE_CHARACTERS_MAX)?;
        }
        let direction = direction(attempt.direction);
        for check in &attempt.compliance_checks {
            let checks = self.checks.entry((day, direction, check.check_type.clone())).or_default();
            checks.made += 1;
            checks.failed += i64::from(!check.passed);
            checks.duration_ns += u128::from(check.duration.0);
        }
        self.know(call, Known::Is(direction));
        Ok(())
    }

    fn end(&mut self, call: &str, day: i32, outcome: &'static str, duration_ns: u64) {
        let direction = match self.directions.get(call) {
            Some(Known::Is(direction)) => *direction,
            Some(Known::Ended) => "unknown",
            None => {
                self.elsewhere.push((day, call.to_owned(), outcome, duration_ns));
                return self.know(call, Known::Ended);
            }
        };
        let ends = self.ends.entry((day, direction, outcome)).or_default();
        ends.calls += 1;
        ends.duration_ns += u128::from(duration_ns);
        self.know(call, Known::Ended);
    }

    fn know(&mut self, call: &str, known: Known) {
        match self.directions.get_mut(call) {
            Some(before) => *before = known,
            None => drop(self.directions.insert(call.to_owned(), known)),
        }
    }

    async fn write_ends(&self, session: &Session) -> Result<(), SqlError> {
        if self.ends.is_empty() && self.elsewhere.is_empty() {
            return Ok(());
        }
        let (ends, elsewhere) = (|| self.ends.iter(), || self.elsewhere.iter());
        let days: Vec<i32> =
            ends().map(|((day, ..), _)| *day).chain(elsewhere().map(|it| it.0)).collect();
        let directions: Vec<Option<&str>> = (ends().map(|((_, direction, _), _)| Some(*direction)))
            .chain(elsewhere().map(|_| None))
            .collect();
        let calls_elsewhere: Vec<Option<&str>> =
            ends().map(|_| None).chain(elsewhere().map(|it| Some(it.1.as_str()))).collect();
        let outcomes: Vec<&str> =
            ends().map(|((.., outcome), _)| *outcome).chain(elsewhere().map(|it| it.2)).collect();
        let calls: Vec<i64> =
            ends().map(|(_, ends)| ends.calls).chain(elsewhere().map(|_| 1)).collect();
        let durations: Vec<String> = (ends().map(|(_, ends)| ends.duration_ns.to_string()))
            .chain(elsewhere().map(|it| it.3.to_string()))
            .collect();
        session
            .execute(
                "write call_statistics",
                STATISTICS,
                &[&days, &directions, &calls_elsewhere, &outcomes, &calls, &durations],
            )
            .await
            .map(drop)
    }

    async fn write_checks(&self, session: &Session) -> Result<(), SqlError> {
        if self.checks.is_empty() {
            return Ok(());
        }
        let (keys, checks) = (|| self.checks.keys(), || self.checks.values());
        let days: Vec<i32> = keys().map(|(day, ..)| *day).collect();
        let directions: Vec<&str> = keys().map(|(_, direction, _)| *direction).collect();
        let types: Vec<&str> = keys().map(|(.., check_type)| check_type.as_str()).collect();
        let counts: Vec<i64> = checks().map(|it| it.made).collect();
        let failed: Vec<i64> = checks().map(|it| it.failed).collect();
        let durations: Vec<String> = checks().map(|it| it.duration_ns.to_string()).collect();
        session
            .execute(
                "write call_check_statistics",
                CHECKS,
                &[&days, &directions, &types, &counts, &failed, &durations],
            )
            .await
            .map(drop)
    }

    /// Calls that were attempted and ended within the batch need not be known; but one of the same
    /// id may have been attempted before.
    async fn write_directions(&self, session: &Session) -> Result<(), SqlError> {
        let (mut open, mut ended) = (Vec::new(), Vec::new());
        for (call, known) in &self.directions {
            match known {
                Known::Is(direction) => open.push((call.as_str(), *direction)),
                Known::Ended => ended.push(call.as_str()),
            }
        }
        if !ended.is_empty() {
            session.execute("forget calls that ended", FORGET, &[&ended]).await?;
        }
        if !open.is_empty() {
            let (calls, directions): (Vec<&str>, Vec<&str>) = open.into_iter().unzip();
            session.execute("keep directions", KEEP, &[&calls, &directions]).await?;
        }
        Ok(())
    }
}

fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Inbound => "inbound",
        Direction::Outbound => "outbound",
    }
}

fn outcome(outcome: CallOutcome) -> &'static str {
    match outcome {
        CallOutcome::Connected => "connected",
        CallOutcome::Voicemail => "voicemail",
        CallOutcome::NoAnswer => "no_answer",
        CallOutcome::Busy => "busy",
        CallOutcome::Rejected => "rejected",
    }
}
