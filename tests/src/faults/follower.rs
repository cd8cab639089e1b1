//! A subscriber that goes away and comes back, and records all that it hears.

use std::time::Duration;

use anyhow::Result;
use fastrand::Rng;
use quipu_client::{
    Checkpoint, EventStore, Filter, Position, Remote, StartAfter, SubscribeRequest,
    SubscriptionItem,
};
use tokio::sync::watch;

use super::client::is_wrong;
use super::phase::Phase;
use super::recorder::{Recorded, Recorder};
use crate::history::calls::{CallId, Following, Heard, Item};
use crate::history::journal::Entry;
use crate::history::stamp::Stamp;
use crate::history::stored::{Seen, key_of};

/// Batches that it hears, at most, before it goes away.
const STAYS: usize = 300;

/// A subscriber.
pub struct Follower {
    pub store: Remote,
    pub recorder: Recorder,
    pub rng: Rng,
    /// One aggregate's events, or all.
    pub of: Option<u32>,
    /// What it had before; `None`: each time it hears only what is new.
    pub after: Option<Position>,
}

/// Why one subscription ended.
enum Ended {
    /// It had enough, or the server had.
    Again,
    AllHeard,
}

impl Follower {
    /// Follows until it has heard all that is due.
    pub async fn run(mut self, mut phase: watch::Receiver<Phase>) -> Result<Recorded> {
        while let Ended::Again = self.follow(&mut phase).await? {}
        Ok(self.recorder.recorded())
    }

    async fn follow(&mut self, phase: &mut watch::Receiver<Phase>) -> Result<Ended> {
        let id = self.recorder.next_id();
        let (of, after, invoked) = (self.of, self.after, Stamp::now());
        let filter = of.map_or_else(Filter::default, |of| Filter::aggregate(key_of(of)));
        let request = SubscribeRequest { filter, after: self.start() };
        let mut following = Following { id, invoked, of, after, heard: Vec::new(), due: None };
        self.recorder.begin(|| Entry::Following(following.clone()))?;
        let mut subscription = self.store.subscribe(request)?;
        for _ in 0..self.rng.usize(1..STAYS) {
            if let Some(due) = self.all_heard(*phase.borrow_and_update()) {
                following.due = self.after.map(|_| due);
                self.recorder.end(Entry::Following(following))?;
                return Ok(Ended::AllHeard);
            }
            tokio::select! {
                batch = subscription.next_batch() => match batch {
                    Ok(items) => self.hear(id, items, &mut following)?,
                    Err(error) => {
                        if is_wrong(&error) {
                            self.recorder.wrong([format!("{id} cannot follow: {error}")]);
                            self.recorder.end(Entry::Following(following))?;
                            return Ok(Ended::AllHeard);
                        }
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        break;
                    }
                },
                _ = phase.changed() => {}
            }
        }
        self.recorder.end(Entry::Following(following))?;
        Ok(Ended::Again)
    }

    /// A checkpoint, which the server refuses if the log has lost it, or a bare position.
    fn start(&mut self) -> StartAfter {
        match self.after {
            None => StartAfter::End,
            Some(position) if self.rng.bool() => {
                StartAfter::Checkpoint(Checkpoint { log_id: self.store.log_id(), position })
            }
            Some(position) => StartAfter::Position(position),
        }
    }

    fn all_heard(&self, phase: Phase) -> Option<Position> {
        match phase {
            Phase::Drain(end) => self.after.is_none_or(|after| after >= end).then_some(end),
            Phase::Work | Phase::Stop => None,
        }
    }

    fn hear(
        &mut self,
        id: CallId,
        items: Vec<SubscriptionItem>,
        following: &mut Following,
    ) -> Result<()> {
        let at = Stamp::now();
        let mut heard = Vec::with_capacity(items.len());
        for item in items {
            let (item, position) = match item {
                SubscriptionItem::Event(record) => {
                    (Item::Event(Seen::of(&record)), record.position())
                }
                SubscriptionItem::Checkpoint(at)
                | SubscriptionItem::CaughtUp(at)
                | SubscriptionItem::FellBehind(at) => (Item::Mark(at), at),
                _ => continue,
            };
            heard.push(Heard { at, item });
            self.after = self.after.map(|_| position);
        }
        if self.recorder.is_in_file() {
            return self.recorder.end(Entry::Heard(id, heard));
        }
        following.heard.extend(heard);
        Ok(())
    }
}
