//! Admission: whether an append is stored, and under which positions and versions.

use quipu_types::record::stamp;
use quipu_types::{AppendError, IdConflictReason, Position, Timestamp, Version, VersionConflict};

use super::Sequencer;
use crate::bug::{Bug, seeded};
use crate::commit::inbox::Submission;
use crate::commit::outcome::{Admitted, Answer};
use crate::commit::placed::Placed;
use crate::commit::prepared::PreparedAppend;
use crate::format::group::GroupBuilder;
use crate::index::known::Unsearchable;

impl Sequencer {
    /// Admits an append into the group, or answers why not; the answer waits in `answers`.
    pub(super) fn admit(
        &mut self,
        submission: Submission,
        now: Timestamp,
        builder: &mut GroupBuilder,
        placed: &mut Vec<Placed>,
        answers: &mut Vec<Answer>,
    ) {
        let Submission { append, reply } = submission;
        let before = match self.check(&append) {
            Ok(Checked::Fresh(before)) => before,
            Ok(Checked::Known(positions)) => {
                let known = Admitted::Known { positions, append: Box::new(append) };
                return answers.push(Answer::new(reply, Ok(known)));
            }
            Err(error) => return answers.push(Answer::new(reply, Err(error))),
        };
        let append = self.place(append, &before, now, builder);
        let written = append.append.aggregates.iter().zip(&before);
        let versions = written
            .filter(|(aggregate, _)| aggregate.events > 0)
            .map(|(aggregate, before)| {
                (aggregate.key.clone(), Version(before.0 + aggregate.events))
            })
            .collect();
        let events = append.append.records.len() as u64;
        let stored = Admitted::Stored { first: append.first, events, versions };
        answers.push(Answer::new(reply, Ok(stored)));
        placed.push(append);
    }

    /// What an append comes to, or why it is refused.
    fn check(&mut self, append: &PreparedAppend) -> Result<Checked, AppendError> {
        self.known.touch(append);
        // Ids come before versions: a repetition of what is stored is no conflict.
        if seeded(Bug::ChecksVersionsBeforeIds) {
            self.check_versions(append)?;
        }
        if let Some(positions) = self.known_ids(append)? {
            return Ok(Checked::Known(positions));
        }
        self.check_versions(append).map(Checked::Fresh)
    }

    /// `None` if no id is known; else where all of them are, or that only some are.
    fn known_ids(&mut self, append: &PreparedAppend) -> Result<Option<Vec<Position>>, AppendError> {
        let mut first_known = None;
        for (index, record) in append.records.iter().enumerate() {
            let known = self.known.position_of(&self.log, record);
            if let Some(position) = known.map_err(|error| self.cannot_check(&error))? {
                first_known = Some((index, position));
                break;
            }
        }
        let Some((first, position)) = first_known else { return Ok(None) };
        let mut all = Vec::with_capacity(append.records.len());
        for record in &append.records {
            let known = self.known.position_of(&self.log, record);
            all.extend(known.map_err(|error| self.cannot_check(&error))?);
        }
        if all.len() == append.records.len() {
            return Ok(Some(all));
        }
        self.log.counters.conflict();
        let (event_id, reason) = (append.records[first].event_id(), IdConflictReason::PartlyKnown);
        Err(AppendError::IdConflict { event_id, position, reason })
    }

    /// The version of each aggregate before the append, or every conflict.
    fn check_versions(&mut self, append: &PreparedAppend) -> Result<Vec<Version>, AppendError> {
        let versions = append.aggregates.iter().map(|it| self.known.version(&self.log, it));
        let before: Result<Vec<Version>, _> = versions.collect();
        let before = before.map_err(|error| self.cannot_check(&error))?;
        let conflicts: Vec<VersionConflict> = (append.aggregates.iter().zip(&before))
            .filter(|(aggregate, actual)| !aggregate.expected.is_met_by(**actual))
            .map(|(aggregate, actual)| VersionConflict {
                key: (*aggregate.key).clone(),
                expected: aggregate.expected,
                actual: *actual,
            })
            .collect();
        if conflicts.is_empty() {
            return Ok(before);
        }
        self.log.counters.conflict();
        Err(AppendError::Conflict(conflicts))
    }

    /// Without an answer from the index nothing can be admitted: the log has failed.
    fn cannot_check(&mut self, error: &Unsearchable) -> AppendError {
        let reason = error.to_string();
        self.fail(&reason);
        AppendError::NotWritten(reason)
    }

    /// Copies the append into the group under its positions and versions.
    fn place(
        &mut self,
        mut append: PreparedAppend,
        before: &[Version],
        now: Timestamp,
        builder: &mut GroupBuilder,
    ) -> Placed {
        let first = builder.next_position();
        let last = if seeded(Bug::RecordedAtGoesBack) { now } else { self.last_recorded_at };
        let recorded_at = last.max(now);
        self.last_recorded_at = recorded_at;
        let mut versions = before.to_vec();
        let mut last_positions = vec![first; versions.len()];
        let frame = std::mem::take(&mut append.frame);
        let (records, known) = (&append.records, self.known.active());
        let places = records.iter().map(|record| record.at);
        builder.push(&frame, places, |index, position, bytes| {
            let record = &records[index];
            let version = versions[record.aggregate].next();
            versions[record.aggregate] = version;
            last_positions[record.aggregate] = position;
            if !seeded(Bug::KnowsDurableIdsOnly) {
                known.insert_new_id(&record.id, position);
            }
            stamp(bytes, position, version, recorded_at);
        });
        for (index, aggregate) in append.aggregates.iter().enumerate() {
            if aggregate.events > 0 && !seeded(Bug::ChecksDurableVersionsOnly) {
                let (version, position) = (versions[index], last_positions[index]);
                known.raise(&aggregate.wide, before[index], version, position);
            }
        }
        Placed { append, first, before: before.to_vec(), recorded_at }
    }
}

/// What an append comes to.
enum Checked {
    /// It is new; its aggregates are at these versions before it.
    Fresh(Vec<Version>),
    /// All its ids are known, at these positions.
    Known(Vec<Position>),
}
