//! Reads and subscriptions: streams that send as long as they have credit; wire-protocol.md §7.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quipu_types::record::{HEADER_BYTES, RECORD_ALIGN, RecordBuffer, RecordHeader};
use quipu_types::{
    Checkpoint, Direction, Position, ReadRequest, Record, StartAfter, SubscribeRequest,
    SubscriptionItem, Uuid,
};

use crate::fields::{
    DecodeError, Fields, Malformation, malformed, put_length, put_option, put_uuid,
};
use crate::filter::{filter, put_filter};
use crate::message::{Header, Kind, MESSAGE_HEADER_BYTES, Message};

/// Bytes of a Records message before its first record.
pub const RECORDS_HEAD_BYTES: usize = MESSAGE_HEADER_BYTES + 8;
/// A record's header and the root of its archive.
const RECORD_BYTES_MIN: usize = HEADER_BYTES + 136;

/// How much more a stream may send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credit {
    /// Records.
    pub events: u32,
    /// Bytes of records as stored.
    pub bytes: u32,
}

impl Default for Balance {
    fn default() -> Self {
        Self::new(Credit::default())
    }
}

/// What is left of the credit that a stream was given.
///
/// Invariants:
/// 1. Records are sent only while both are above 0.
/// 2. `bytes` falls below 0 by one record at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balance {
    events: i64,
    bytes: i64,
}

impl Balance {
    /// The balance that a request begins with.
    #[must_use]
    pub fn new(credit: Credit) -> Self {
        Self { events: i64::from(credit.events), bytes: i64::from(credit.bytes) }
    }

    /// Adds credit.
    pub fn add(&mut self, credit: Credit) {
        self.events = self.events.saturating_add(i64::from(credit.events));
        self.bytes = self.bytes.saturating_add(i64::from(credit.bytes));
    }

    /// Whether a message of records may be sent.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.events > 0 && self.bytes > 0
    }

    /// How many records the next message may carry; at least one if the balance is open.
    #[must_use]
    pub fn records(&self) -> usize {
        usize::try_from(self.events).unwrap_or(0)
    }

    /// How many bytes of records the next message may carry, but for one larger record.
    #[must_use]
    pub fn bytes(&self) -> usize {
        usize::try_from(self.bytes).unwrap_or(0)
    }

    /// Counts what was sent.
    pub fn take(&mut self, records: &[Record]) {
        let bytes: usize = records.iter().map(|record| record.as_bytes().len()).sum();
        self.events = self.events.saturating_sub_unsigned(records.len() as u64);
        self.bytes = self.bytes.saturating_sub_unsigned(bytes as u64);
    }
}

fn put_credit(out: &mut BytesMut, credit: Credit) {
    out.put_u32_le(credit.events);
    out.put_u32_le(credit.bytes);
}

impl Message for Credit {
    const KIND: Kind = Kind::Credit;

    fn write(&self, out: &mut BytesMut) {
        put_credit(out, *self);
    }

    fn read(fields: &mut Fields) -> Result<Self, DecodeError> {
        Ok(Self { events: fields.u32()?, bytes: fields.u32()? })
    }
}

/// Ends a stream early.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cancel;

impl Message for Cancel {
    const KIND: Kind = Kind::Cancel;

    fn write(&self, _: &mut BytesMut) {}

    fn read(_: &mut Fields) -> Result<Self, DecodeError> {
        Ok(Self)
    }
}

/// Opens a read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// What to read.
    pub request: ReadRequest,
    /// The first credit.
    pub credit: Credit,
}

impl Message for Read {
    const KIND: Kind = Kind::Read;

    fn write(&self, out: &mut BytesMut) {
        let request = &self.request;
        put_filter(out, &request.filter);
        put_option(out, request.from.as_ref(), |out, from| out.put_u64_le(*from));
        out.put_u8(match request.direction {
            Direction::Forward => 0,
            Direction::Backward => 1,
        });
        put_option(out, request.limit.as_ref(), |out, limit| out.put_u64_le(*limit));
        put_credit(out, self.credit);
    }

    fn read(fields: &mut Fields) -> Result<Self, DecodeError> {
        let request = ReadRequest {
            filter: filter(fields)?,
            from: fields.option(Fields::u64)?,
            direction: fields.one_of(|given| match given {
                0 => Some(Direction::Forward),
                1 => Some(Direction::Backward),
                _ => None,
            })?,
            limit: fields.option(Fields::u64)?,
        };
        Ok(Self { request, credit: Credit::read(fields)? })
    }
}

/// Opens a subscription.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subscribe {
    /// What to follow.
    pub request: SubscribeRequest,
    /// The first credit.
    pub credit: Credit,
}

impl Message for Subscribe {
    const KIND: Kind = Kind::Subscribe;

    fn write(&self, out: &mut BytesMut) {
        put_filter(out, &self.request.filter);
        let (kind, position, log_id) = match self.request.after {
            StartAfter::Position(position) => (0, position, Uuid::nil()),
            StartAfter::End => (1, Position::START, Uuid::nil()),
            StartAfter::Checkpoint(checkpoint) => (2, checkpoint.position, checkpoint.log_id),
        };
        out.put_u8(kind);
        out.put_u64_le(position.0);
        put_uuid(out, log_id);
        put_credit(out, self.credit);
    }

    fn read(fields: &mut Fields) -> Result<Self, DecodeError> {
        let filter = filter(fields)?;
        let kind = fields.one_of(|kind| (kind <= 2).then_some(kind))?;
        let position = Position(fields.u64()?);
        let log_id = fields.uuid()?;
        let after = match kind {
            0 => StartAfter::Position(position),
            1 => StartAfter::End,
            _ => StartAfter::Checkpoint(Checkpoint { log_id, position }),
        };
        let request = SubscribeRequest { filter, after };
        Ok(Self { request, credit: Credit::read(fields)? })
    }
}

/// Records of a stream, each with the very bytes that are stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records(pub Vec<Record>);

impl Records {
    /// Appends a message of records that need not be owned: each is copied once.
    pub fn encode_page(records: &[Record], request_id: u64, out: &mut BytesMut) {
        let bytes = records.iter().map(|record| record.as_bytes().len()).sum::<usize>();
        out.reserve(RECORDS_HEAD_BYTES + bytes);
        out.put_slice(&Self::head(records, request_id));
        put_records(out, records);
    }

    /// What precedes the bytes of these records in their message: for who sends them without a
    /// copy.
    #[must_use]
    pub fn head(records: &[Record], request_id: u64) -> [u8; RECORDS_HEAD_BYTES] {
        let bytes: usize = records.iter().map(|record| record.as_bytes().len()).sum();
        let length = u32::try_from(RECORDS_HEAD_BYTES + bytes).unwrap_or(u32::MAX);
        let kind = Kind::Records as u8;
        let header = Header { length, kind, flags: 0, zero: 0, request_id };
        let count = u32::try_from(records.len()).unwrap_or(u32::MAX);
        let mut head = [0; RECORDS_HEAD_BYTES];
        head[..MESSAGE_HEADER_BYTES].copy_from_slice(&header.encode());
        head[MESSAGE_HEADER_BYTES..MESSAGE_HEADER_BYTES + 4].copy_from_slice(&count.to_le_bytes());
        head
    }
}

fn put_records(out: &mut BytesMut, records: &[Record]) {
    for record in records {
        out.put_slice(record.as_bytes());
    }
}

impl Message for Records {
    const KIND: Kind = Kind::Records;

    fn write(&self, out: &mut BytesMut) {
        put_length(out, self.0.len());
        out.put_u32_le(0);
        put_records(out, &self.0);
    }

    fn read(fields: &mut Fields) -> Result<Self, DecodeError> {
        let count = fields.count(RECORD_BYTES_MIN)?;
        fields.take(4)?;
        let (start, mut rest) = (fields.offset(), aligned(fields.rest()));
        let whole = rest.len();
        let mut records = Vec::with_capacity(count);
        for _ in 0..count {
            let offset = start + whole - rest.len();
            records.push(next_record(&mut rest).map_err(|reason| malformed(offset, reason))?);
        }
        fields.take(whole - rest.len())?;
        Ok(Self(records))
    }
}

/// The one place that owes records their alignment: in a receive buffer that begins at a multiple
/// of 8 they have it, and share the buffer; elsewhere the page is copied, once.
fn aligned(page: Bytes) -> Bytes {
    if page.as_ptr().addr().is_multiple_of(RECORD_ALIGN) {
        return page;
    }
    let mut copy = RecordBuffer::with_capacity(page.len());
    copy.extend_from_slice(&page);
    Bytes::from_owner(copy)
}

fn next_record(rest: &mut Bytes) -> Result<Record, Malformation> {
    let cut_off = |needed| Malformation::CutOff { needed };
    let header = RecordHeader::decode(rest).ok_or(cut_off(HEADER_BYTES))?;
    let needed = header.record_bytes();
    if needed > rest.len() {
        return Err(cut_off(needed));
    }
    let record = Record::parse(rest.slice(..needed)).map_err(Malformation::Record)?;
    rest.advance(needed);
    Ok(record)
}

/// A place in a subscription that is safe to save.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Nothing up to here is left to deliver.
    Checkpoint(Position),
    /// Everything durable up to here has been delivered.
    CaughtUp(Position),
    /// The stream was live and is now behind.
    FellBehind(Position),
}

impl From<Mark> for SubscriptionItem {
    fn from(mark: Mark) -> Self {
        match mark {
            Mark::Checkpoint(position) => Self::Checkpoint(position),
            Mark::CaughtUp(position) => Self::CaughtUp(position),
            Mark::FellBehind(position) => Self::FellBehind(position),
        }
    }
}

impl Message for Mark {
    const KIND: Kind = Kind::Mark;

    fn write(&self, out: &mut BytesMut) {
        let (mark, position) = match self {
            Self::Checkpoint(position) => (1, position),
            Self::CaughtUp(position) => (2, position),
            Self::FellBehind(position) => (3, position),
        };
        out.put_u8(mark);
        out.put_u64_le(position.0);
    }

    fn read(fields: &mut Fields) -> Result<Self, DecodeError> {
        let mark = fields.one_of(|mark| (1..=3).contains(&mark).then_some(mark))?;
        let position = Position(fields.u64()?);
        Ok(match mark {
            1 => Self::Checkpoint(position),
            2 => Self::CaughtUp(position),
            _ => Self::FellBehind(position),
        })
    }
}

/// Why a stream ended well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Everything was sent.
    Complete,
    /// The client cancelled it.
    Cancelled,
    /// The server is shutting down.
    Stopping,
}

impl Message for End {
    const KIND: Kind = Kind::End;

    fn write(&self, out: &mut BytesMut) {
        out.put_u8(match self {
            Self::Complete => 0,
            Self::Cancelled => 1,
            Self::Stopping => 2,
        });
    }

    fn read(fields: &mut Fields) -> Result<Self, DecodeError> {
        fields.one_of(|reason| match reason {
            0 => Some(Self::Complete),
            1 => Some(Self::Cancelled),
            2 => Some(Self::Stopping),
            _ => None,
        })
    }
}
