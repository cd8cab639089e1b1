//! The envelope that every message travels in; wire-protocol.md §3 and §4.

use bytes::{BufMut, Bytes, BytesMut};
use quipu_types::Limits;
use quipu_types::limits::EVENT_BYTES_HARD_MAX;

use crate::fault::Fault;
use crate::fields::{DecodeError, Fields};

/// The first bytes of each direction.
pub const MAGIC: [u8; 8] = *b"QUIPUTCP";
/// Bytes of a message's header.
pub const MESSAGE_HEADER_BYTES: usize = 16;
/// Every message's length is a multiple of this, so that records keep their alignment.
pub const MESSAGE_ALIGN: usize = quipu_types::record::RECORD_ALIGN;
/// The largest message until the handshake is done.
pub const HANDSHAKE_BYTES_MAX: usize = 4_096;
/// What a message may hold beside an append, or beside one event's payload and custom metadata.
const BESIDE_APPEND_BYTES: usize = 64 * 1024;

/// The largest message of a server whose log has these limits. They may have been higher before:
/// whatever is stored fits, too.
#[must_use]
pub fn message_bytes_max(limits: &Limits) -> usize {
    limits.append_bytes_max.max(EVENT_BYTES_HARD_MAX).saturating_add(BESIDE_APPEND_BYTES)
}

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "each is the kind of the message that has its name")]
pub enum Kind {
    Hello = 0x01,
    Append = 0x02,
    Read = 0x03,
    Subscribe = 0x04,
    Credit = 0x05,
    Cancel = 0x06,
    VersionOf = 0x07,
    Status = 0x08,
    Ping = 0x09,
    SystemAppend = 0x0a,
    Welcome = 0x81,
    Appended = 0x82,
    Records = 0x83,
    Mark = 0x84,
    End = 0x85,
    VersionIs = 0x87,
    StatusIs = 0x88,
    Pong = 0x89,
    Error = 0xff,
}

impl Kind {
    /// Every kind of this version.
    pub const ALL: [Self; 19] = [
        Self::Hello,
        Self::Append,
        Self::Read,
        Self::Subscribe,
        Self::Credit,
        Self::Cancel,
        Self::VersionOf,
        Self::Status,
        Self::Ping,
        Self::SystemAppend,
        Self::Welcome,
        Self::Appended,
        Self::Records,
        Self::Mark,
        Self::End,
        Self::VersionIs,
        Self::StatusIs,
        Self::Pong,
        Self::Error,
    ];

    /// The kind with this number.
    #[must_use]
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == number)
    }

    /// Whether the message opens a request, which is closed by exactly one answer.
    #[must_use]
    pub fn opens_request(self) -> bool {
        let others = [Self::Read, Self::Subscribe, Self::VersionOf, Self::Status];
        self.is_append() || others.contains(&self)
    }

    /// Whether the message is an append, of events or of what clients keep in the system's
    /// aggregates: both are admitted and answered in the order sent.
    #[must_use]
    pub fn is_append(self) -> bool {
        matches!(self, Self::Append | Self::SystemAppend)
    }

    /// Whether the message may carry this request id.
    #[must_use]
    pub fn takes(self, request_id: u64) -> bool {
        match self {
            Self::Hello | Self::Welcome => request_id == 0,
            Self::Ping | Self::Pong | Self::Error => true,
            _ => request_id != 0,
        }
    }
}

/// The fixed header in front of a message's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the whole message.
    pub length: u32,
    /// What it is; see [`Kind`].
    pub kind: u8,
    /// 0; a flag must be understood by its receiver.
    pub flags: u8,
    /// 0.
    pub zero: u16,
    /// The request it belongs to.
    pub request_id: u64,
}

impl Header {
    /// A header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; MESSAGE_HEADER_BYTES] {
        let mut bytes = [0; MESSAGE_HEADER_BYTES];
        bytes[0..4].copy_from_slice(&self.length.to_le_bytes());
        bytes[4] = self.kind;
        bytes[5] = self.flags;
        bytes[6..8].copy_from_slice(&self.zero.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.request_id.to_le_bytes());
        bytes
    }

    /// Reads a header; `None` where there are too few bytes for one.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (&length, rest) = bytes.split_first_chunk()?;
        let (&[kind, flags, zero @ ..], request_id) = rest.split_first_chunk::<4>()?;
        Some(Self {
            length: u32::from_le_bytes(length),
            kind,
            flags,
            zero: u16::from_le_bytes(zero),
            request_id: u64::from_le_bytes(*request_id.first_chunk()?),
        })
    }
}

/// One kind of message: how its body is written and read.
pub trait Message: Sized {
    /// Which kind.
    const KIND: Kind;

    /// Appends the body's fields.
    fn write(&self, out: &mut BytesMut);

    /// Reads the body's fields; what follows them is of no concern (§11).
    ///
    /// # Errors
    /// What makes them malformed, or which limit they break.
    fn read(fields: &mut Fields) -> Result<Self, DecodeError>;

    /// Appends the whole message.
    fn encode(&self, request_id: u64, out: &mut BytesMut) {
        let start = out.len();
        out.put_bytes(0, MESSAGE_HEADER_BYTES);
        self.write(out);
        let length = (out.len() - start).next_multiple_of(MESSAGE_ALIGN);
        out.resize(start + length, 0);
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        let header = Header { length, kind: Self::KIND as u8, flags: 0, zero: 0, request_id };
        out[start..start + MESSAGE_HEADER_BYTES].copy_from_slice(&header.encode());
    }

    /// Appends the whole message if the other side will take it.
    ///
    /// # Errors
    /// That it is too long, and how long; nothing is appended then.
    fn encode_within(
        &self,
        request_id: u64,
        bytes_max: usize,
        out: &mut BytesMut,
    ) -> Result<(), Fault> {
        let start = out.len();
        self.encode(request_id, out);
        let given = out.len() - start;
        if given > bytes_max {
            out.truncate(start);
            return Err(Fault::over("message", bytes_max, given));
        }
        Ok(())
    }

    /// Reads a body.
    ///
    /// # Errors
    /// What makes it malformed, or which limit it breaks.
    fn decode(body: Bytes) -> Result<Self, DecodeError> {
        Self::read(&mut Fields::new(&body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::question::{Ping, StatusIs};

    #[test]
    fn every_message_ends_at_a_multiple_of_eight() {
        for bytes in 0..20 {
            let mut out = BytesMut::new();
            StatusIs("x".repeat(bytes)).encode(5, &mut out);
            let header = Header::decode(&out).unwrap();
            assert_eq!(header.length as usize, out.len());
            assert!(out.len().is_multiple_of(MESSAGE_ALIGN));
            assert_eq!(header.encode(), out[..MESSAGE_HEADER_BYTES]);
        }
    }

    #[test]
    fn a_message_that_is_too_long_leaves_no_trace() {
        let mut out = BytesMut::new();
        Ping.encode(1, &mut out);
        let refused = StatusIs("x".repeat(100)).encode_within(2, 64, &mut out).unwrap_err();
        assert_eq!(refused, Fault::over("message", 64, 120));
        assert_eq!(out.len(), MESSAGE_HEADER_BYTES);
    }

    #[test]
    fn kinds_are_told_by_their_numbers() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_u8(kind as u8), Some(kind));
        }
        assert_eq!(Kind::from_u8(0x86), None);
    }
}
