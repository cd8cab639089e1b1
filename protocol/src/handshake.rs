//! The first message of each side: who speaks, and what both keep to; wire-protocol.md §5.

use bytes::{BufMut, Bytes, BytesMut};
use quipu_types::{ReadError, Uuid};

use crate::fault::Fault;
use crate::fields::{DecodeError, Fields, put_bytes, put_text, put_uuid};
use crate::message::{Kind, Message};

/// The protocol versions that this program speaks.
pub const PROTOCOL: Versions = Versions { min: 1, max: 1 };
/// The record formats that this program reads.
pub const RECORD_FORMATS: Versions = Versions {
    min: quipu_types::record::RECORD_FORMAT as u16,
    max: quipu_types::record::RECORD_FORMAT as u16,
};
/// Longest name of a client or server, in bytes.
pub const NAME_BYTES_MAX: usize = 255;

/// A range of versions, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The oldest.
    pub min: u16,
    /// The newest.
    pub max: u16,
}

impl Versions {
    /// The newest version that is in both ranges.
    #[must_use]
    pub fn newest_common(self, other: Self) -> Option<u16> {
        let newest = self.max.min(other.max);
        (newest >= self.min.max(other.min)).then_some(newest)
    }

    /// Whether all of `other` is in this range.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        self.min <= other.min && other.max <= self.max
    }

    pub(crate) fn write(self, out: &mut BytesMut) {
        out.put_u16_le(self.min);
        out.put_u16_le(self.max);
    }

    pub(crate) fn read(fields: &mut Fields) -> Result<Self, DecodeError> {
        Ok(Self { min: fields.u16()?, max: fields.u16()? })
    }
}

impl std::fmt::Display for Versions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.min == self.max {
            return self.min.fmt(f);
        }
        write!(f, "{} to {}", self.min, self.max)
    }
}

/// The client's first message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Protocol versions that it speaks.
    pub protocol: Versions,
    /// Record formats that it reads.
    pub record_formats: Versions,
    /// The log it expects; none: any.
    pub log_id: Option<Uuid>,
    /// Its name and version; at most 255 bytes.
    pub client: String,
    /// Empty in version 1.
    pub credentials: Bytes,
}

impl Hello {
    /// What this program says as a client.
    #[must_use]
    pub fn new(client: impl Into<String>, log_id: Option<Uuid>) -> Self {
        let credentials = Bytes::new();
        let (protocol, record_formats) = (PROTOCOL, RECORD_FORMATS);
        Self { protocol, record_formats, log_id, client: client.into(), credentials }
    }

    /// The protocol version to speak with this client on a log.
    ///
    /// # Errors
    /// Why the two do not fit.
    pub fn negotiate(&self, log_id: Uuid) -> Result<u16, Fault> {
        let common = self.protocol.newest_common(PROTOCOL);
        let protocol =
            common.ok_or(Fault::Protocol { given: self.protocol, supported: PROTOCOL })?;
        if !self.record_formats.covers(RECORD_FORMATS) {
            let (given, supported) = (self.record_formats, RECORD_FORMATS);
            return Err(Fault::RecordFormats { given, supported });
        }
        if !self.credentials.is_empty() {
            return Err(Fault::Credentials);
        }
        match self.log_id {
            Some(given) if given != log_id => {
                Err(ReadError::OtherLog { given, actual: log_id }.into())
            }
            _ => Ok(protocol),
        }
    }
}

impl Message for Hello {
    const KIND: Kind = Kind::Hello;

    fn write(&self, out: &mut BytesMut) {
        self.protocol.write(out);
        self.record_formats.write(out);
        put_uuid(out, self.log_id.unwrap_or_default());
        put_text(out, &self.client);
        put_bytes(out, &self.credentials);
    }

    fn read(fields: &mut Fields) -> Result<Self, DecodeError> {
        Ok(Self {
            protocol: Versions::read(fields)?,
            record_formats: Versions::read(fields)?,
            log_id: fields.uuid_or_nil()?,
            client: fields.text_within("client name", NAME_BYTES_MAX)?,
            credentials: Bytes::copy_from_slice(fields.bytes()?),
        })
    }
}

/// The server's first message: what both sides keep to from here on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The protocol version that both speak.
    pub protocol: u16,
    /// The newest record format that will be sent.
    pub record_format: u16,
    /// The log.
    pub log_id: Uuid,
    /// Payload and custom metadata of one event, in bytes.
    pub event_bytes_max: u32,
    /// Bytes of one append as stored.
    pub append_bytes_max: u32,
    /// Events, and expectations, in one append.
    pub append_events_max: u32,
    /// Bytes of one message, in both directions.
    pub message_bytes_max: u32,
    /// The credit in records that a stream should begin with.
    pub window_events: u32,
    /// The same in bytes.
    pub window_bytes: u32,
    /// Reads and subscriptions open at once on one connection.
    pub streams_max: u32,
    /// A side that has sent nothing for so long sends Ping.
    pub heartbeat_ms: u32,
    /// A side that has received nothing for so long gives up.
    pub dead_after_ms: u32,
    /// The server's name and version; at most 255 bytes.
    pub server: String,
}

impl Message for Welcome {
    const KIND: Kind = Kind::Welcome;

    fn write(&self, out: &mut BytesMut) {
        out.put_u16_le(self.protocol);
        out.put_u16_le(self.record_format);
        put_uuid(out, self.log_id);
        out.put_u32_le(self.event_bytes_max);
        out.put_u32_le(self.append_bytes_max);
        out.put_u32_le(self.append_events_max);
        out.put_u32_le(self.message_bytes_max);
        out.put_u32_le(self.window_events);
        out.put_u32_le(self.window_bytes);
        out.put_u32_le(self.streams_max);
        out.put_u32_le(self.heartbeat_ms);
        out.put_u32_le(self.dead_after_ms);
        put_text(out, &self.server);
    }

    fn read(fields: &mut Fields) -> Result<Self, DecodeError> {
        Ok(Self {
            protocol: fields.u16()?,
            record_format: fields.u16()?,
            log_id: fields.uuid()?,
            event_bytes_max: fields.u32()?,
            append_bytes_max: fields.u32()?,
            append_events_max: fields.u32()?,
            message_bytes_max: fields.u32()?,
            window_events: fields.u32()?,
            window_bytes: fields.u32()?,
            streams_max: fields.u32()?,
            heartbeat_ms: fields.u32()?,
            dead_after_ms: fields.u32()?,
            server: fields.text_within("server name", NAME_BYTES_MAX)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: Uuid = Uuid::from_u128(7);

    #[test]
    fn the_newest_common_version_is_taken() {
        let versions = |min, max| Versions { min, max };
        assert_eq!(versions(1, 3).newest_common(versions(2, 5)), Some(3));
        assert_eq!(versions(2, 5).newest_common(versions(1, 3)), Some(3));
        assert_eq!(versions(1, 2).newest_common(versions(3, 4)), None);
    }

    #[test]
    fn a_client_that_does_not_fit_learns_why() {
        let hello = Hello::new("test", None);
        assert_eq!(hello.negotiate(LOG), Ok(1));
        assert_eq!(Hello::new("test", Some(LOG)).negotiate(LOG), Ok(1));
        let newer = Versions { min: 2, max: 9 };
        let protocol = Hello { protocol: newer, ..hello.clone() }.negotiate(LOG);
        assert_eq!(protocol, Err(Fault::Protocol { given: newer, supported: PROTOCOL }));
        let format = Hello { record_formats: newer, ..hello.clone() }.negotiate(LOG);
        let supported = RECORD_FORMATS;
        assert_eq!(format, Err(Fault::RecordFormats { given: newer, supported }));
        let credentials = Hello { credentials: Bytes::from_static(b"x"), ..hello }.negotiate(LOG);
        assert_eq!(credentials, Err(Fault::Credentials));
        let given = Uuid::from_u128(8);
        let other = Hello::new("test", Some(given)).negotiate(LOG);
        assert_eq!(other, Err(ReadError::OtherLog { given, actual: LOG }.into()));
    }
}
