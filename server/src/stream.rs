//! A read or a subscription of a connection: its credit, and how it is told to end.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use quipu_engine::read::cursor::PageLimits;
use quipu_protocol::stream::RECORDS_HEAD_BYTES;
use quipu_protocol::{Balance, Credit, End, Fault, Mark, Message, Records};
use quipu_types::Record;
use tokio::sync::Notify;

use crate::budget::Charge;
use crate::chunk::Chunk;
use crate::meter::Counted;
use crate::paging::Found;
use crate::reader::panicked;
use crate::session::Session;

/// Most records of one message.
const PAGE_RECORDS: usize = 512;
/// Smaller records, on average, are copied: naming each to the system costs as much.
const COPIED_BELOW: usize = 512;

/// What the reader tells a stream.
pub(crate) struct Control {
    balance: Mutex<Balance>,
    pub(crate) filter_bytes: usize,
    cancelled: AtomicBool,
    changed: Notify,
}

impl Control {
    pub(crate) fn new(credit: Credit, filter_bytes: usize) -> Self {
        let balance = Mutex::new(Balance::new(credit));
        let (cancelled, changed) = (AtomicBool::new(false), Notify::new());
        Self { balance, filter_bytes, cancelled, changed }
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

    /// Waits for room for so many bytes of records, or for the end.
    pub(crate) async fn room_for(&self, bytes: usize) -> Result<Charge, Over> {
        self.unless_over(self.session.output.charge(bytes)).await
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

    /// Room for another page, if there is room now.
    pub(crate) fn try_room(&self) -> Option<Charge> {
        self.try_room_for(self.session.service.options.page_bytes)
    }

    /// Room for so many bytes of records, if there is room now.
    pub(crate) fn try_room_for(&self, bytes: usize) -> Option<Charge> {
        self.session.output.try_charge(bytes)
    }

    /// Puts in what was found: a message of records, which have room, and marks.
    pub(crate) fn put(&self, found: Found, charge: Option<Charge>) {
        for mark in &found.before {
            self.mark(*mark);
        }
        if let Some(charge) = charge.filter(|_| !found.records.is_empty()) {
            self.control.balance.lock().take(&found.records);
            let page = self.page(found.records, found.is_kept, charge);
            self.session.outbox.put_page(self.id, page);
        }
        for mark in &found.after {
            self.mark(*mark);
        }
    }

    pub(crate) fn page(&self, records: Vec<Record>, is_kept: bool, mut charge: Charge) -> Chunk {
        let bytes: usize = records.iter().map(|record| record.as_bytes().len()).sum();
        charge.shrink_to(RECORDS_HEAD_BYTES + bytes);
        let charge = Some(charge);
        if is_kept && bytes >= records.len() * COPIED_BELOW {
            let head = Bytes::copy_from_slice(&Records::head(&records, self.id));
            return Chunk::of_records(head, records, charge);
        }
        let mut page = BytesMut::new();
        Records::encode_page(&records, self.id, &mut page);
        Chunk::whole(page.freeze(), charge)
    }

    fn mark(&self, mark: Mark) {
        self.session.outbox.mark(self.id, mark);
    }
}
