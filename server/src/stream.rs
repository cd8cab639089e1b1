//! A read or a subscription of a connection: its credit, and how it is told to end.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::BytesMut;
use parking_lot::Mutex;
use quipu_engine::read::cursor::PageLimits;
use quipu_protocol::{Balance, Credit, End, Fault, Mark, Message, Records};
use quipu_types::Record;
use tokio::sync::Notify;

use crate::budget::Charge;
use crate::meter::Counted;
use crate::reader::panicked;
use crate::session::Session;

/// Most records of one message.
const PAGE_RECORDS: usize = 512;

/// What the reader tells a stream.
pub(crate) struct Control {
    balance: Mutex<Balance>,
    cancelled: AtomicBool,
    changed: Notify,
}

impl Control {
    pub(crate) fn new(credit: Credit) -> Self {
        let balance = Mutex::new(Balance::new(credit));
        Self { balance, cancelled: AtomicBool::new(false), changed: Notify::new() }
    }

    pub(crate) fn credit(&self, credit: Credit) {
        self.balance.lock().add(credit);
        self.changed.notify_one();
    }

    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        self.changed.notify_one();
    }
}

/// Why a stream's work is over.
pub(crate) enum Over {
    Ended(End),
    Failed(Fault),
}

impl<E: Into<Fault>> From<E> for Over {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// One stream under way; when it is dropped its client has been told, or is gone, also if its work
/// has panicked.
pub(crate) struct StreamTask {
    pub(crate) session: Arc<Session>,
    id: u64,
    control: Arc<Control>,
    _counted: Counted,
}

impl Drop for StreamTask {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.close(&panicked());
        }
    }
}

impl StreamTask {
    pub(crate) fn new(session: Arc<Session>, id: u64, control: Arc<Control>) -> Self {
        let counted = session.service.meter.count(|meter| &meter.streams);
        Self { session, id, control, _counted: counted }
    }

    /// Runs the stream and closes its request.
    pub(crate) async fn run<F>(self, work: impl FnOnce(Arc<Self>) -> F)
    where
        F: Future<Output = Over>,
    {
        let task = Arc::new(self);
        match work(Arc::clone(&task)).await {
            Over::Ended(end) => task.close(&end),
            Over::Failed(fault) => task.close(&fault),
        }
    }

    pub(crate) fn close(&self, message: &impl Message) {
        self.session.streams.lock().remove(&self.id);
        self.session.outbox.close(self.id, message);
    }

    /// Whether the stream is to end, and how.
    pub(crate) fn is_over(&self) -> Option<Over> {
        if self.control.cancelled.load(Ordering::Acquire) {
            return Some(Over::Ended(End::Cancelled));
        }
        self.session.stop.is_cancelled().then_some(Over::Ended(End::Stopping))
    }

    pub(crate) fn has_credit(&self) -> bool {
        self.control.balance.lock().is_open()
    }

    /// What the next message may carry.
    pub(crate) fn page_limits(&self, room: &Charge) -> PageLimits {
        let balance = self.control.balance.lock();
        let bytes = balance.bytes().min(room.bytes());
        let records = balance.records().min(PAGE_RECORDS);
        PageLimits { records, bytes, ..PageLimits::default() }
    }

    /// Waits for credit or for the end.
    pub(crate) async fn credit(&self) -> Result<(), Over> {
        loop {
            match self.is_over() {
                Some(over) => return Err(over),
                None if self.has_credit() => return Ok(()),
                None => self.changed().await,
            }
        }
    }

    /// Waits for credit, the client's cancellation, or the server's end.
    pub(crate) async fn changed(&self) {
        tokio::select! {
            () = self.control.changed.notified() => {}
            () = self.session.stop.cancelled() => {}
        }
    }

    /// Waits for room for a page, or for the end.
    pub(crate) async fn room(&self) -> Result<Charge, Over> {
        let page_bytes = self.session.service.options.page_bytes;
        self.unless_over(self.session.output.charge_at_most(page_bytes)).await
    }

    async fn unless_over(&self, charge: impl Future<Output = Charge>) -> Result<Charge, Over> {
        let mut charge = std::pin::pin!(charge);
        loop {
            tokio::select! {
                charge = &mut charge => return Ok(charge),
                () = self.changed() => {}
            }
            if let Some(over) = self.is_over() {
                return Err(over);
            }
        }
    }

    /// Puts in a message of records. One that is larger than a page waits for room of its own.
    pub(crate) async fn send(&self, records: &[Record], mut charge: Charge) -> Result<(), Over> {
        if records.is_empty() {
            return Ok(());
        }
        let bytes: usize = records.iter().map(|record| record.as_bytes().len()).sum();
        if bytes > charge.bytes() {
            // Given back first: two that hold a page and want more would wait for each other.
            drop(charge);
            charge = self.unless_over(self.session.output.charge(bytes)).await?;
        }
        self.control.balance.lock().take(records);
        let mut page = BytesMut::new();
        Records::encode_page(records, self.id, &mut page);
        charge.shrink_to(page.len());
        self.session.outbox.put_page(page.freeze(), charge);
        Ok(())
    }

    /// Puts in a mark.
    pub(crate) fn mark(&self, mark: Mark) {
        self.session.outbox.mark(self.id, mark);
    }
}
