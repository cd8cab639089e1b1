//! One stream or question as its consumer holds it; dropping it cancels it.

use std::sync::Arc;

use bytes::Bytes;
use quipu_protocol::{Credit, Message, Records};
use quipu_types::{ReadError, Record};
use tokio::sync::mpsc::UnboundedReceiver;

use super::calls::{Part, Patience};
use super::options::RemoteOptions;
use super::store::Owner;

/// One stream or question on one connection. It keeps the connection alive.
pub(super) struct Feed {
    owner: Arc<Owner>,
    id: u64,
    parts: UnboundedReceiver<Part>,
    /// Handled, and not yet given back as credit.
    handled: Credit,
}

impl Feed {
    pub(super) fn open(owner: &Arc<Owner>, message: &impl Message, patience: Patience) -> Self {
        let (id, parts) = owner.shared.call(message, patience);
        Self { owner: Arc::clone(owner), id, parts, handled: Credit::default() }
    }

    pub(super) async fn next(&mut self) -> Part {
        self.parts.recv().await.unwrap_or(Part::Failed(ReadError::Closed))
    }

    /// Checks what came, and gives it back as credit once it is half a window.
    pub(super) fn take(&mut self, body: Bytes) -> Result<Vec<Record>, ReadError> {
        let records = Records::decode(body).map_err(|error| {
            self.owner.shared.broken.notify_one();
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
