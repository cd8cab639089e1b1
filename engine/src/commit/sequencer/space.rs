//! Space for the groups to come: asked for ahead, and, where there is none, appends refused until
//! there is.

use std::time::Duration;

use quipu_types::AppendError;

use super::{Message, Sequencer, Step};
use crate::commit::head::Head;
use crate::commit::preparer::{PrepareError, PrepareJob, Prepared};
use crate::shared::LogState;

/// How long to wait before trying again for space.
const SPACE_RETRY: Duration = Duration::from_millis(250);

impl Sequencer {
    /// Takes space that was prepared, or that there is none.
    pub(super) fn take_prepared(&mut self, prepared: Prepared) {
        self.preparing = false;
        let active = self.head.segment().header().number;
        let result = match prepared {
            Prepared::Allocated(segment, end, result) => result.map(|()| {
                if segment == active {
                    self.head.allocated(end);
                }
            }),
            Prepared::Zeroed(segment, to, result) => {
                if segment == active {
                    self.head.zeroed(result.is_ok().then_some(to));
                }
                result
            }
            Prepared::Spare(result) => result.map(|spare| self.spare = Some(spare)),
        };
        match result {
            Ok(()) if self.no_space.take().is_some() => self.log.set_state(LogState::Writable),
            Ok(()) => {}
            Err(PrepareError::NoSpace(reason)) => {
                // Not at each look: there may be none for days.
                if self.no_space.is_none() {
                    self.messages.push(Message::NoSpace(reason.clone()));
                }
                self.log.set_state(LogState::NoSpace(reason.clone()));
                self.no_space = Some((reason, self.log.env.clock.monotonic() + SPACE_RETRY));
            }
            Err(error @ PrepareError::Io(_)) => self.fail(&error.to_string()),
        }
    }

    /// Refuses what waits, if there was no space and it is not time to look again.
    pub(super) fn refuse_without_space(&mut self, step: &mut Step) {
        if let Some((reason, retry_at)) = &self.no_space
            && self.log.env.clock.monotonic() < *retry_at
        {
            let error = AppendError::NoSpace(reason.clone());
            self.refuse_all(step, &error);
        }
    }

    /// What to prepare next, one thing at a time.
    pub(super) fn next_prepare(&mut self) -> Option<PrepareJob> {
        if self.preparing {
            return None;
        }
        if let Some((_, retry_at)) = &self.no_space
            && self.log.env.clock.monotonic() < *retry_at
        {
            return None;
        }
        let reserve = self.log.options.reserve_bytes();
        let next_bytes = self.log.inbox.next_bytes().unwrap_or(0) as u64;
        let wants_spare = self.spare.is_none()
            && (self.roll.needs_spare() || self.roll.is_no() && self.head.wants_spare());
        let job = if wants_spare {
            let segment = self.head.segment().header().number + 1;
            let bytes = Head::spare_bytes(self.log.options.segment_bytes);
            Some(PrepareJob::Spare { segment, bytes, reserve })
        } else {
            self.head.plan(next_bytes, reserve)
        };
        self.preparing = job.is_some();
        if job.is_none() && self.no_space.take().is_some() {
            // What there was no space for was refused; the rest has its space.
            self.log.set_state(LogState::Writable);
        }
        job
    }
}
