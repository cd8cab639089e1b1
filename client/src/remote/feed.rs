//! One stream or question as its consumer holds it; dropping it cancels it.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, select};
use futures_timer::Delay;
use quipu_protocol::{Credit, Message, Records};
use quipu_types::{ReadError, Record};

use super::calls::Patience;
use super::options::RemoteOptions;
use super::parts::{Part, PartReceiver};
use super::store::Owner;

/// One stream or question on one connection. It keeps the connection alive.
pub(super) struct Feed {
    owner: Arc<Owner>,
    id: u64,
    parts: PartReceiver,
    /// Handled, and not yet given back as credit.
    handled: Credit,
}

impl Feed {
    pub(super) fn open(owner: &Arc<Owner>, message: &impl Message, patience: Patience) -> Self {
        let (id, parts) = owner.shared.call(message, patience);
        Self { owner: Arc::clone(owner), id, parts, handled: Credit::default() }
    }

    pub(super) async fn next(&mut self) -> Part {
        self.parts.next().await
    }

    /// As [`Self::next`], but fails where nothing comes for so long.
    pub(super) async fn next_within(&mut self, patience: Duration) -> Part {
        if let Some(part) = self.parts.try_next() {
            return part;
        }
        let next = pin!(self.parts.next());
        match select(next, Delay::new(patience)).await {
            Either::Left((part, _)) => part,
            Either::Right(_) => {
                let address = &self.owner.shared.address;
                let problem = format!("{address} has sent nothing for {patience:?}");
                Part::Failed(ReadError::Unavailable(problem))
            }
        }
    }

    /// Checks what came, and gives it back as credit once it is half a window.
    pub(super) fn take(&mut self, body: Bytes, connection: u64) -> Result<Vec<Record>, ReadError> {
        let records = Records::decode(body).map_err(|error| {
            self.owner.shared.break_off(connection);
            ReadError::Refused(format!("its records are none: {error}"))
        })?;
        self.give_back(&records.0);
        Ok(records.0)
    }

    fn give_back(&mut self, records: &[Record]) {
        let handled = &mut self.handled;
        let bytes: usize = records.iter().map(|record| record.as_bytes().len()).sum();
        handled.events = handled.events.saturating_add(saturated(records.len()));
        handled.bytes = handled.bytes.saturating_add(saturated(bytes));
        let window = window(&self.owner.shared.options);
        if handled.events >= window.events / 2 || handled.bytes >= window.bytes / 2 {
            self.owner.shared.give_credit(self.id, std::mem::take(handled));
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.owner.shared.cancel(self.id);
    }
}

/// The credit that a stream begins with.
pub(super) fn window(options: &RemoteOptions) -> Credit {
    Credit { events: options.window_events.max(1), bytes: options.window_bytes.max(1) }
}

fn saturated(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
