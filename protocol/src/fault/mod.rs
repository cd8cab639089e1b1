//! What can go wrong on a connection, each with its stable code; wire-protocol.md §9.

use bytes::{BufMut, Bytes, BytesMut};
use quipu_types::{AppendError, ReadError};

use crate::fields::{DecodeError, Fields, put_bytes, put_text};
use crate::handshake::Versions;
use crate::message::{Kind, Message};

mod codes;
mod detail;

/// The text for people is cut to so many bytes; the detail is complete.
pub const TEXT_BYTES_MAX: usize = 1_024;
const RETRYABLE: u8 = 1;
const OUTCOME_UNKNOWN: u8 = 2;

/// An Error message: why a request, or the connection, failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// No protocol version that both speak.
    #[error("no common protocol version: the client speaks {given}, the server {supported}")]
    Protocol {
        /// The client's.
        given: Versions,
        /// The server's.
        supported: Versions,
    },
    /// Records that the client does not read.
    #[error("the server sends record formats {supported}, the client reads {given}")]
    RecordFormats {
        /// The client's.
        given: Versions,
        /// The server's.
        supported: Versions,
    },
    /// Credentials came where none are taken.
    #[error("this server takes no credentials: send none")]
    Credentials,
    /// The server is shutting down.
    #[error("the server is stopping")]
    Stopping,
    /// A message that is not what the protocol says.
    #[error("malformed message at byte {offset} of the body: {reason}")]
    Malformed {
        /// Where, counted from the body's first byte.
        offset: u32,
        /// What was found there.
        reason: String,
    },
    /// A message, or a flag, that is not known.
    #[error("kind {kind:#04x} with flags {flags:#04x} is not known to this server")]
    Unknown {
        /// The kind.
        kind: u8,
        /// The flags.
        flags: u8,
    },
    /// A limit of the protocol.
    #[error("too much of {what}: {given}, the limit is {limit}")]
    OverLimit {
        /// What there is too much of.
        what: String,
        /// How much is allowed.
        limit: u64,
        /// How much was given.
        given: u64,
    },
    /// The request id is open already, or cannot be one.
    #[error("request id {id} is in use, or cannot be used for this message")]
    RequestId {
        /// The id.
        id: u64,
    },
    /// A fault of the server itself.
    #[error("a fault of the server: {0}")]
    Server(String),
    /// An append failed.
    #[error(transparent)]
    Append(AppendError),
    /// A read or a subscription failed, or the log is not the expected one.
    #[error(transparent)]
    Read(ReadError),
    /// An error that only a newer program knows in full.
    #[error("{text} (error {code})")]
    Other {
        /// Its code.
        code: u16,
        /// Whether the same request may succeed later.
        retryable: bool,
        /// Whether the append may have been stored although it failed.
        outcome_unknown: bool,
        /// What it says to people.
        text: String,
        /// What it says to programs.
        detail: Bytes,
    },
}

impl Fault {
    /// That there is too much of something.
    pub fn over(what: impl Into<String>, limit: usize, given: usize) -> Self {
        Self::OverLimit { what: what.into(), limit: limit as u64, given: given as u64 }
    }

    /// Its code.
    #[must_use]
    pub fn code(&self) -> u16 {
        codes::of(self)
    }

    /// Whether the same request may succeed later, unchanged.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Stopping => true,
            Self::Append(error) => error.is_retryable(),
            Self::Read(error) => error.is_retryable(),
            Self::Other { retryable, .. } => *retryable,
            _ => false,
        }
    }

    /// Whether the append may have been stored although it failed.
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        match self {
            Self::Append(error) => error.is_outcome_unknown(),
            Self::Other { outcome_unknown, .. } => *outcome_unknown,
            _ => false,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Other { text, .. } => cut(text.clone()),
            _ => cut(self.to_string()),
        }
    }
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    text
}

impl From<AppendError> for Fault {
    fn from(error: AppendError) -> Self {
        Self::Append(error)
    }
}

impl From<ReadError> for Fault {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

/// What a server answers to a message that it cannot take.
impl From<DecodeError> for Fault {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::Malformed { offset, reason } => Self::Malformed {
                offset: u32::try_from(offset).unwrap_or(u32::MAX),
                reason: reason.to_string(),
            },
            DecodeError::OverLimit { what, limit, given } => Self::over(what, limit, given),
            DecodeError::Invalid(invalid) => Self::Append(invalid.into()),
            DecodeError::Unknown { kind, flags } => Self::Unknown { kind, flags },
            DecodeError::RequestId { id, .. } => Self::RequestId { id },
        }
    }
}

/// Gives the fault back where it is not one of an append.
impl TryFrom<Fault> for AppendError {
    type Error = Fault;

    fn try_from(fault: Fault) -> Result<Self, Fault> {
        match fault {
            Fault::Append(error) => Ok(error),
            other => Err(other),
        }
    }
}

/// Gives the fault back where it is not one of a read.
impl TryFrom<Fault> for ReadError {
    type Error = Fault;

    fn try_from(fault: Fault) -> Result<Self, Fault> {
        match fault {
            Fault::Read(error) => Ok(error),
            other => Err(other),
        }
    }
}

impl Message for Fault {
    const KIND: Kind = Kind::Error;

    fn write(&self, out: &mut BytesMut) {
        out.put_u16_le(self.code());
        let retryable = if self.is_retryable() { RETRYABLE } else { 0 };
        let outcome_unknown = if self.is_outcome_unknown() { OUTCOME_UNKNOWN } else { 0 };
        out.put_u8(retryable | outcome_unknown);
        out.put_u8(0);
        put_text(out, &self.text());
        let mut detail = BytesMut::new();
        detail::write(self, &mut detail);
        put_bytes(out, &detail);
    }

    fn read(fields: &mut Fields) -> Result<Self, DecodeError> {
        let code = fields.u16()?;
        let flags = fields.u8()?;
        fields.u8()?;
        let text = cut(fields.text()?);
        let detail = Bytes::copy_from_slice(fields.bytes()?);
        Ok(detail::read(code, &detail).unwrap_or_else(|| Self::Other {
            code,
            retryable: flags & RETRYABLE != 0,
            outcome_unknown: flags & OUTCOME_UNKNOWN != 0,
            text,
            detail,
        }))
    }
}
