//! A stored event: a fixed header and an rkyv archive, the same bytes on disk, wire and in memory.
//!
//! segments-format.md §6 specifies every byte. This is the only file that reads an archive.
#![expect(unsafe_code, reason = "the archive is validated once, then used in place")]
// The structs that `Archive` derives have no place for documentation of their fields.
#![allow(missing_docs, reason = "rkyv's derive makes undocumented fields of its own")]

use bytes::Bytes;
use rkyv::rancor::{self, ResultExt};
use rkyv::ser::allocator::Arena;
use rkyv::util::AlignedVec;
use rkyv::with::InlineAsBox;
use uuid::Uuid;

use crate::aggregate::AggregateKey;
use crate::event::{Metadata, NewEvent};
use crate::position::Position;
use crate::timestamp::Timestamp;
use crate::version::Version;

/// Bytes of a record's header.
pub const HEADER_BYTES: usize = 40;
/// Records start at multiples of this in a segment and in a message.
pub const RECORD_ALIGN: usize = 8;
/// The archive layout that this program writes.
pub const RECORD_FORMAT: u8 = 1;

/// A buffer whose start is aligned for records.
pub type RecordBuffer = AlignedVec<16>;

/// What the submitter knew of an event, in the order it is archived: an event as it is borrowed
/// from a [`NewEvent`], or from the message in which it came.
///
/// Absent options are empty text, empty bytes or the nil UUID.
#[derive(Clone, Copy, Debug, rkyv::Archive, rkyv::Serialize)]
#[rkyv(attr(doc = "The archived form of [`EventBody`]; segments-format.md §6.2."))]
pub struct EventBody<'a> {
    pub event_id: [u8; 16],
    pub user_id: [u8; 16],
    pub timestamp_us: i64,
    #[rkyv(with = InlineAsBox)]
    pub aggregate_type: &'a str,
    #[rkyv(with = InlineAsBox)]
    pub aggregate_id: &'a str,
    #[rkyv(with = InlineAsBox)]
    pub event_type: &'a str,
    #[rkyv(with = InlineAsBox)]
    pub content_type: &'a str,
    #[rkyv(with = InlineAsBox)]
    pub correlation_id: &'a str,
    #[rkyv(with = InlineAsBox)]
    pub causation_id: &'a str,
    #[rkyv(with = InlineAsBox)]
    pub ip_address: &'a str,
    #[rkyv(with = InlineAsBox)]
    pub user_agent: &'a str,
    #[rkyv(with = InlineAsBox)]
    pub traceparent: &'a str,
    #[rkyv(with = InlineAsBox)]
    pub custom: &'a [u8],
    #[rkyv(with = InlineAsBox)]
    pub payload: &'a [u8],
    pub schema_version: u16,
}

impl<'a> From<&'a NewEvent> for EventBody<'a> {
    fn from(event: &'a NewEvent) -> Self {
        let metadata = &event.metadata;
        Self {
            event_id: event.event_id.into_bytes(),
            user_id: metadata.user_id.unwrap_or_default().into_bytes(),
            timestamp_us: event.timestamp.as_micros(),
            aggregate_type: &event.aggregate.aggregate_type,
            aggregate_id: &event.aggregate.aggregate_id,
            event_type: &event.event_type,
            content_type: &event.content_type,
            correlation_id: &metadata.correlation_id,
            causation_id: &metadata.causation_id,
            ip_address: &metadata.ip_address,
            user_agent: &metadata.user_agent,
            traceparent: &metadata.traceparent,
            custom: &metadata.custom,
            payload: &event.payload,
            schema_version: event.schema_version,
        }
    }
}

/// Bytes of an archive beside its texts and bytes.
const ARCHIVE_ROOT_BYTES: usize = 136;

impl EventBody<'_> {
    /// Bytes of the record that [`encode`] makes of it.
    #[must_use]
    pub fn record_bytes(&self) -> usize {
        let texts = [
            self.aggregate_type,
            self.aggregate_id,
            self.event_type,
            self.content_type,
            self.correlation_id,
            self.causation_id,
            self.ip_address,
            self.user_agent,
            self.traceparent,
        ];
        let texts: usize = texts.iter().map(|text| text.len()).sum();
        let data = texts + self.custom.len() + self.payload.len();
        HEADER_BYTES + data.next_multiple_of(RECORD_ALIGN) + ARCHIVE_ROOT_BYTES
    }

    /// The event with fields of its own.
    #[must_use]
    pub fn to_new_event(&self) -> NewEvent {
        NewEvent {
            event_id: Uuid::from_bytes(self.event_id),
            aggregate: AggregateKey::new(self.aggregate_type, self.aggregate_id),
            event_type: self.event_type.to_owned(),
            timestamp: Timestamp::from_micros(self.timestamp_us),
            schema_version: self.schema_version,
            metadata: Metadata {
                user_id: Some(Uuid::from_bytes(self.user_id)).filter(|id| !id.is_nil()),
                correlation_id: self.correlation_id.to_owned(),
                causation_id: self.causation_id.to_owned(),
                ip_address: self.ip_address.to_owned(),
                user_agent: self.user_agent.to_owned(),
                traceparent: self.traceparent.to_owned(),
                custom: self.custom.to_owned(),
            },
            content_type: self.content_type.to_owned(),
            payload: self.payload.to_owned(),
        }
    }
}

/// The fixed header in front of a record's archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordHeader {
    /// Bytes of the archive; a multiple of 8.
    pub archive_bytes: u32,
    /// CRC-32 (ISO-HDLC) of the archive.
    pub crc: u32,
    /// Place in the log.
    pub position: Position,
    /// Number within the aggregate.
    pub version: Version,
    /// When the log took it.
    pub recorded_at: Timestamp,
    /// Reserved for encryption; 0.
    pub key_id: u32,
    /// Reserved; 0.
    pub flags: u16,
    /// Layout of the archive: [`RECORD_FORMAT`].
    pub format: u8,
}

impl RecordHeader {
    /// Reads a header from the first [`HEADER_BYTES`] of `bytes`; `None` where there are fewer.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
        Some(Self {
            archive_bytes: u32_at(bytes, 0),
            crc: u32_at(bytes, 4),
            position: Position(u64_at(bytes, 8)),
            version: Version(u64_at(bytes, 16)),
            recorded_at: Timestamp::from_micros(u64_at(bytes, 24).cast_signed()),
            key_id: u32_at(bytes, 32),
            flags: u16::from_le_bytes([bytes[36], bytes[37]]),
            format: bytes[38],
        })
    }

    fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&self.archive_bytes.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.crc.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.position.0.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.version.0.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.recorded_at.as_micros().to_le_bytes());
        bytes[32..36].copy_from_slice(&self.key_id.to_le_bytes());
        bytes[36..38].copy_from_slice(&self.flags.to_le_bytes());
        bytes[38] = self.format;
        bytes
    }

    /// CRC-32 (ISO-HDLC) of the header's bytes.
    #[must_use]
    pub fn sum(&self) -> u32 {
        crc32fast::hash(&self.encode())
    }

    /// Bytes of the whole record.
    #[must_use]
    pub fn record_bytes(&self) -> usize {
        HEADER_BYTES + self.archive_bytes as usize
    }
}

fn u32_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8; HEADER_BYTES], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// Appends a record to `buffer`: its archive is final, its header lacks what the sequencer fills.
///
/// `buffer` must end at a multiple of [`RECORD_ALIGN`], and does so again afterwards.
#[must_use]
pub fn encode(mut buffer: RecordBuffer, body: &EventBody<'_>, arena: &mut Arena) -> RecordBuffer {
    debug_assert!(buffer.len().is_multiple_of(RECORD_ALIGN), "records start at multiples of 8");
    let start = buffer.len();
    buffer.extend_from_slice(&[0; HEADER_BYTES]);
    let mut buffer = rkyv::api::high::to_bytes_in_with_alloc::<_, _, rancor::Panic>(
        body,
        buffer,
        arena.acquire(),
    )
    .always_ok();
    debug_assert_eq!(buffer.len() - start, body.record_bytes(), "room is made for just as much");
    let archive = &buffer[start + HEADER_BYTES..];
    let header = RecordHeader {
        archive_bytes: u32::try_from(archive.len()).unwrap_or(u32::MAX),
        crc: crc32fast::hash(archive),
        format: RECORD_FORMAT,
        ..RecordHeader::default()
    };
    buffer[start..start + HEADER_BYTES].copy_from_slice(&header.encode());
    buffer
}

/// Writes into an encoded record's header what only the sequencer knows.
pub fn stamp(record: &mut [u8], position: Position, version: Version, recorded_at: Timestamp) {
    record[8..16].copy_from_slice(&position.0.to_le_bytes());
    record[16..24].copy_from_slice(&version.0.to_le_bytes());
    record[24..32].copy_from_slice(&recorded_at.as_micros().to_le_bytes());
}

/// Bytes that are not a record, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotARecord {
    /// Fewer bytes than the header says.
    #[error("the record is cut off")]
    Short,
    /// More bytes than the header says.
    #[error("bytes follow the record")]
    Long,
    /// It does not start at a multiple of 8.
    #[error("the record is not aligned to 8 bytes")]
    Misaligned,
    /// A layout that this program does not know.
    #[error("record format {0} is not known to this program")]
    Format(u8),
    /// A reserved field is not zero.
    #[error("a reserved field of the record header is not zero")]
    Reserved,
    /// The archive's checksum does not match.
    #[error("the record's checksum does not match its archive")]
    Checksum,
    /// The archive is not a valid one.
    #[error("the record's archive is not valid")]
    Archive,
}

/// A stored event. Cheap to clone: it shares the buffer it was read from.
///
/// Invariants, kept by [`Record::parse`], the only way to make one:
/// 1. `bytes` starts at a multiple of 8 and holds exactly one header and its archive.
/// 2. The archive's checksum matches and rkyv has validated it.
#[derive(Clone)]
pub struct Record {
    bytes: Bytes,
}

impl Record {
    /// Checks and takes a record's bytes.
    ///
    /// # Errors
    /// What makes them no record. Nothing is allocated, whatever the bytes say.
    pub fn parse(bytes: Bytes) -> Result<Self, NotARecord> {
        if !bytes.as_ptr().addr().is_multiple_of(RECORD_ALIGN) {
            return Err(NotARecord::Misaligned);
        }
        let header = RecordHeader::decode(&bytes).ok_or(NotARecord::Short)?;
        if header.format != RECORD_FORMAT {
            return Err(NotARecord::Format(header.format));
        }
        if header.key_id != 0 || header.flags != 0 || bytes[39] != 0 {
            return Err(NotARecord::Reserved);
        }
        match header.record_bytes().cmp(&bytes.len()) {
            std::cmp::Ordering::Greater => return Err(NotARecord::Short),
            std::cmp::Ordering::Less => return Err(NotARecord::Long),
            std::cmp::Ordering::Equal => {}
        }
        let archive = &bytes[HEADER_BYTES..];
        if crc32fast::hash(archive) != header.crc {
            return Err(NotARecord::Checksum);
        }
        rkyv::access::<ArchivedEventBody<'_>, rancor::Failure>(archive)
            .map_err(|_| NotARecord::Archive)?;
        Ok(Self { bytes })
    }

    fn body(&self) -> &ArchivedEventBody<'_> {
        // SAFETY: invariants 1 and 2: `parse` has validated these very bytes as this very type at
        // this alignment, and `Bytes` never changes.
        unsafe { rkyv::access_unchecked::<ArchivedEventBody<'_>>(&self.bytes[HEADER_BYTES..]) }
    }

    /// The record's header.
    #[must_use]
    pub fn header(&self) -> RecordHeader {
        RecordHeader::decode(&self.bytes).unwrap_or_default()
    }

    /// The record's bytes as stored, header included.
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Place in the log.
    pub fn position(&self) -> Position {
        self.header().position
    }

    /// Number within the aggregate.
    pub fn version(&self) -> Version {
        self.header().version
    }

    /// When the log took it.
    pub fn recorded_at(&self) -> Timestamp {
        self.header().recorded_at
    }

    /// The event's id.
    pub fn event_id(&self) -> Uuid {
        Uuid::from_bytes(self.body().event_id)
    }

    /// The aggregate's type.
    pub fn aggregate_type(&self) -> &str {
        &self.body().aggregate_type
    }

    /// The aggregate's id.
    pub fn aggregate_id(&self) -> &str {
        &self.body().aggregate_id
    }

    /// The aggregate's key.
    pub fn aggregate(&self) -> AggregateKey {
        AggregateKey::new(self.aggregate_type(), self.aggregate_id())
    }

    /// Whether the record belongs to this aggregate.
    pub fn is_of(&self, key: &AggregateKey) -> bool {
        self.aggregate_id() == key.aggregate_id && self.aggregate_type() == key.aggregate_type
    }

    /// What happened.
    pub fn event_type(&self) -> &str {
        &self.body().event_type
    }

    /// When it happened, by the host's clock.
    pub fn timestamp(&self) -> Timestamp {
        Timestamp::from_micros(self.body().timestamp_us.to_native())
    }

    /// Version of the payload's schema.
    pub fn schema_version(&self) -> u16 {
        self.body().schema_version.to_native()
    }

    /// MIME type of the payload.
    pub fn content_type(&self) -> &str {
        &self.body().content_type
    }

    /// The user who acted, if known.
    pub fn user_id(&self) -> Option<Uuid> {
        Some(Uuid::from_bytes(self.body().user_id)).filter(|id| !id.is_nil())
    }

    /// Ties together all events of one business transaction; may be empty.
    pub fn correlation_id(&self) -> &str {
        &self.body().correlation_id
    }

    /// What caused it; may be empty.
    pub fn causation_id(&self) -> &str {
        &self.body().causation_id
    }

    /// Where the request came from; may be empty.
    pub fn ip_address(&self) -> &str {
        &self.body().ip_address
    }

    /// The program that sent the request; may be empty.
    pub fn user_agent(&self) -> &str {
        &self.body().user_agent
    }

    /// W3C trace context; may be empty.
    pub fn traceparent(&self) -> &str {
        &self.body().traceparent
    }

    /// Custom metadata, a JSON object as it was given; may be empty.
    pub fn custom(&self) -> &[u8] {
        &self.body().custom
    }

    /// The payload as it was given.
    pub fn payload(&self) -> &[u8] {
        &self.body().payload
    }

    /// The payload as a buffer that outlives the record, without a copy.
    pub fn payload_bytes(&self) -> Bytes {
        self.bytes.slice_ref(self.payload())
    }

    /// Whether an event submitted again under the same id has this content: aggregate, event
    /// type, schema version, content type and payload. Timestamp and metadata are not compared.
    pub fn has_content_of(&self, other: &Self) -> bool {
        self.aggregate_type() == other.aggregate_type()
            && self.aggregate_id() == other.aggregate_id()
            && self.event_type() == other.event_type()
            && self.schema_version() == other.schema_version()
            && self.content_type() == other.content_type()
            && self.payload() == other.payload()
    }

    /// The event as it was submitted.
    pub fn to_new_event(&self) -> NewEvent {
        NewEvent {
            event_id: self.event_id(),
            aggregate: self.aggregate(),
            event_type: self.event_type().to_owned(),
            timestamp: self.timestamp(),
            schema_version: self.schema_version(),
            metadata: Metadata {
                user_id: self.user_id(),
                correlation_id: self.correlation_id().to_owned(),
                causation_id: self.causation_id().to_owned(),
                ip_address: self.ip_address().to_owned(),
                user_agent: self.user_agent().to_owned(),
                traceparent: self.traceparent().to_owned(),
                custom: self.custom().to_vec(),
            },
            content_type: self.content_type().to_owned(),
            payload: self.payload().to_vec(),
        }
    }
}

impl PartialEq for Record {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Record {}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record")
            .field("position", &self.position().0)
            .field("aggregate", &self.aggregate())
            .field("version", &self.version().0)
            .field("event_type", &self.event_type())
            .field("event_id", &self.event_id())
            .finish_non_exhaustive()
    }
}

const _: () = {
    assert!(
        size_of::<ArchivedEventBody<'static>>() == ARCHIVE_ROOT_BYTES,
        "segments-format.md §6.2"
    );
    assert!(align_of::<ArchivedEventBody<'static>>() == RECORD_ALIGN);
    assert!(HEADER_BYTES.is_multiple_of(RECORD_ALIGN));
};
