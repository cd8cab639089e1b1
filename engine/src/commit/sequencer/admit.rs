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
        // Ids come before versions: a repetition of what is stored is no conflict.
        let overruled =
            seeded(Bug::ChecksVersionsBeforeIds) && self.check_versions(&append).is_err();
        if let Some(known) = self.known_ids(&append).filter(|_| !overruled) {
            let result =
                known.map(|positions| Admitted::Known { positions, append: Box::new(append) });
            answers.push(Answer::new(reply, result));
            return;
        }
        let before = match self.check_versions(&append) {
            Ok(before) => before,
            Err(error) => {
                self.log.counters.conflict();
                answers.push(Answer::new(reply, Err(error)));
                return;
            }
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

    /// `None` if no id is known; else where all of them are, or that only some are.
    fn known_ids(&self, append: &PreparedAppend) -> Option<Result<Vec<Position>, AppendError>> {
        let position = |index: usize| self.ids.get(append.records[index].event_id);
        let count = append.records.len();
        let first_known = (0..count).find_map(|index| Some((index, position(index)?)));
        let (index, known_at) = first_known?;
        let all: Option<Vec<Position>> = (0..count).map(position).collect();
        Some(all.ok_or_else(|| {
            self.log.counters.conflict();
            AppendError::IdConflict {
                event_id: append.records[index].event_id,
                position: known_at,
                reason: IdConflictReason::PartlyKnown,
            }
        }))
    }

    /// The version of each aggregate before the append, or every conflict.
    fn check_versions(&self, append: &PreparedAppend) -> Result<Vec<Version>, AppendError> {
        let before: Vec<Version> =
            append.aggregates.iter().map(|it| self.versions.get(it.hash, &it.key)).collect();
        let conflicts: Vec<VersionConflict> = (append.aggregates.iter().zip(&before))
            .filter(|(aggregate, actual)| !aggregate.expected.is_met_by(**actual))
            .map(|(aggregate, actual)| VersionConflict {
                key: (*aggregate.key).clone(),
                expected: aggregate.expected,
                actual: *actual,
            })
            .collect();
        if conflicts.is_empty() { Ok(before) } else { Err(AppendError::Conflict(conflicts)) }
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
        let frame = std::mem::take(&mut append.frame);
        let (records, ids) = (&append.records, &mut self.ids);
        let places = records.iter().map(|record| record.at);
        builder.push(&frame, places, |index, position, bytes| {
            let record = &records[index];
            let version = versions[record.aggregate].next();
            versions[record.aggregate] = version;
            if !seeded(Bug::KnowsDurableIdsOnly) {
                ids.insert(record.event_id, position);
            }
            stamp(bytes, position, version, recorded_at);
        });
        for (aggregate, version) in append.aggregates.iter().zip(&versions) {
            if aggregate.events > 0 && !seeded(Bug::ChecksDurableVersionsOnly) {
                self.versions.set(aggregate.hash, &aggregate.key, *version);
            }
        }
        Placed { append, first, before: before.to_vec(), recorded_at }
    }
}
