//! Catch up, then follow: one code path, so that there is no hand-over to get wrong.

use std::sync::Arc;
use std::time::Duration;

use quipu_types::{
    Checkpoint, Filter, Position, ReadError, StartAfter, SubscribeRequest, SubscriptionItem,
};

use super::cursor::{Cursor, PageLimits};
use crate::commit::listeners::Listener;
use crate::shared::{LogState, Shared};

/// A live subscriber further behind than this has fallen behind.
const WINDOW_RECORDS: u64 = 1_000;
/// A filtered subscription gets a checkpoint after so many skipped records…
const CHECKPOINT_SKIPPED: u64 = 10_000;
/// …or after so long, if any were skipped.
const CHECKPOINT_AFTER: Duration = Duration::from_secs(1);

/// One subscriber's place in the log.
///
/// Invariants:
/// 1. Everything up to `after` that the filter takes has been delivered, once, in order.
/// 2. Nothing above the watermark is ever delivered.
pub struct Subscription {
    log: Arc<Shared>,
    filter: Filter,
    after: Position,
    /// The subscriber has been told that it is caught up, and not since that it fell behind.
    live: bool,
    /// Skipped since the last item that gives a position to save.
    skipped: u64,
    saved_at: Duration,
}

impl Subscription {
    /// A subscription that begins after what its consumer handled last. A position past the end
    /// is waited for.
    ///
    /// # Errors
    /// That a checkpoint is of another log, or lies past the end of this one.
    pub fn new(log: Arc<Shared>, request: SubscribeRequest) -> Result<Self, ReadError> {
        let after = match request.after {
            StartAfter::Position(position) => position,
            StartAfter::End => log.watermark.current(),
            StartAfter::Checkpoint(checkpoint) => check(&log, checkpoint)?,
        };
        let saved_at = log.env.clock.monotonic();
        let filter = request.filter;
        Ok(Self { log, filter, after, live: false, skipped: 0, saved_at })
    }

    /// The position that is safe to save once everything delivered so far is handled.
    #[must_use]
    pub fn after(&self) -> Position {
        self.after
    }

    /// Whether it has caught up, and not fallen behind since.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// What there is to deliver right now; empty if there is nothing. May read from disk.
    ///
    /// # Errors
    /// Damage or a disk error at the next record, or that the log is closed.
    pub fn try_next(&mut self, limits: PageLimits) -> Result<Vec<SubscriptionItem>, ReadError> {
        let mut items = Vec::new();
        let end = self.log.watermark.current();
        if self.after >= end {
            self.at_the_end(end, &mut items)?;
            return Ok(items);
        }
        if self.live && end.0 - self.after.0 > WINDOW_RECORDS {
            self.live = false;
            items.push(SubscriptionItem::FellBehind(self.after));
        }
        let mut cursor = Cursor::after(Arc::clone(&self.log), self.filter.clone(), self.after);
        let page = match cursor.next_page(limits) {
            Ok(page) => page,
            Err(_) if !items.is_empty() => return Ok(items),
            Err(error) => return Err(error),
        };
        let looked_up_to = cursor.looked_up_to();
        let delivered = page.records.len() as u64;
        self.skipped += (looked_up_to.0 - self.after.0).saturating_sub(delivered);
        let last_delivered = page.records.last().map(quipu_types::Record::position);
        items.extend(page.records.into_iter().map(SubscriptionItem::Event));
        self.after = looked_up_to;
        if last_delivered == Some(looked_up_to) {
            self.saved();
        }
        if self.skipped >= CHECKPOINT_SKIPPED {
            items.push(SubscriptionItem::Checkpoint(self.after));
            self.saved();
        }
        // What follows damage is not live: the next call says so.
        if self.after >= end && !self.live && self.log.damage().is_none() {
            self.live = true;
            items.push(SubscriptionItem::CaughtUp(self.after));
            self.saved();
        }
        Ok(items)
    }

    fn at_the_end(
        &mut self,
        end: Position,
        items: &mut Vec<SubscriptionItem>,
    ) -> Result<(), ReadError> {
        match self.log.state() {
            LogState::Closed => return Err(ReadError::Closed),
            // What follows is damaged: waiting for it would be silence for ever.
            LogState::Damaged(damage) if !self.has_more() => return Err(damage.into()),
            LogState::Damaged(_) => return Ok(()),
            _ => {}
        }
        if !self.live && self.after == end {
            self.live = true;
            items.push(SubscriptionItem::CaughtUp(self.after));
            self.saved();
        } else if self.checkpoint_due_in() == Some(Duration::ZERO) {
            items.push(SubscriptionItem::Checkpoint(self.after));
            self.saved();
        }
        Ok(())
    }

    fn saved(&mut self) {
        self.skipped = 0;
        self.saved_at = self.log.env.clock.monotonic();
    }

    /// How long until a checkpoint item is due; `None` if nothing was skipped.
    #[must_use]
    pub fn checkpoint_due_in(&self) -> Option<Duration> {
        let since = self.log.env.clock.monotonic().saturating_sub(self.saved_at);
        (self.skipped > 0).then(|| CHECKPOINT_AFTER.saturating_sub(since))
    }

    /// Whether there is something beyond what was delivered.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.log.watermark.current() > self.after
    }

    /// Whether the next records can be had without the disk.
    #[must_use]
    pub fn is_in_memory(&self) -> bool {
        Cursor::after(Arc::clone(&self.log), Filter::default(), self.after).is_in_memory()
    }

    /// Resolves when the log next advances or closes. Take it before looking, or miss what came
    /// in between.
    pub fn listen(&self) -> Listener {
        self.log.watermark.listen()
    }
}

fn check(log: &Shared, checkpoint: Checkpoint) -> Result<Position, ReadError> {
    let (given, actual) = (checkpoint.log_id, log.log_id);
    if given != actual {
        return Err(ReadError::OtherLog { given, actual });
    }
    let (given, end) = (checkpoint.position, log.watermark.current());
    if given > end {
        return Err(ReadError::PastEnd { given, end });
    }
    Ok(given)
}
