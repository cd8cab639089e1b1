//! What bodies are made of: numbers, texts, options, lists; wire-protocol.md §3.1.

use bytes::{BufMut, Bytes, BytesMut};
use quipu_types::limits::{AGGREGATE_ID_BYTES_MAX, TYPE_BYTES_MAX};
use quipu_types::record::NotARecord;
use quipu_types::{AggregateKey, Invalid, Timestamp, Uuid};

/// Why a body could not be taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Its fields are not what the kind says.
    #[error("malformed at byte {offset} of the body: {reason}")]
    Malformed {
        /// Where, counted from the body's first byte.
        offset: usize,
        /// What was found there.
        reason: Malformation,
    },
    /// It breaks a limit.
    #[error("too much of {what}: {given}, the limit is {limit}")]
    OverLimit {
        /// What there is too much of.
        what: &'static str,
        /// How much is allowed.
        limit: usize,
        /// How much was given.
        given: usize,
    },
    /// An append that can never be stored.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The kind, or a flag, is not known.
    #[error("kind {kind:#04x} with flags {flags:#04x} is not known here")]
    Unknown {
        /// The kind.
        kind: u8,
        /// The flags.
        flags: u8,
    },
    /// The kind cannot carry this request id.
    #[error("a message of kind {kind:#04x} cannot carry the request id {id}")]
    RequestId {
        /// The kind.
        kind: u8,
        /// The id.
        id: u64,
    },
}

/// What makes a field malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformation {
    /// The body ends inside it.
    #[error("the body ends inside a field of {needed} bytes")]
    CutOff {
        /// Bytes the field needs.
        needed: usize,
    },
    /// A list that the rest of the body cannot hold.
    #[error("a list of {count} cannot fit into what is left")]
    Count {
        /// How many were announced.
        count: usize,
    },
    /// A text that is none.
    #[error("the text is not UTF-8")]
    NotUtf8,
    /// A value without a meaning.
    #[error("{given} has no meaning here")]
    Value {
        /// What was given.
        given: u64,
    },
    /// Bytes that should be a record.
    #[error("{0}")]
    Record(NotARecord),
}

/// A body that is read from front to back.
///
/// Invariants:
/// 1. Nothing is allocated for a length or a count before the body is known to hold as much.
/// 2. What is taken is borrowed from the body: only who keeps it copies it.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    body: &'a Bytes,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// A body, at its first field.
    #[must_use]
    pub fn new(body: &'a Bytes) -> Self {
        Self { body, rest: body }
    }

    /// Where the next field begins.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.body.len() - self.rest.len()
    }

    /// What has not been read yet; it shares the body's buffer.
    #[must_use]
    pub fn rest(&self) -> Bytes {
        self.body.slice(self.offset()..)
    }

    pub(crate) fn take(&mut self, needed: usize) -> Result<&'a [u8], DecodeError> {
        let Some((taken, rest)) = self.rest.split_at_checked(needed) else {
            return Err(malformed(self.offset(), Malformation::CutOff { needed }));
        };
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let cut_off = malformed(self.offset(), Malformation::CutOff { needed: N });
        let (array, rest) = self.rest.split_first_chunk().ok_or(cut_off)?;
        self.rest = rest;
        Ok(*array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn size(&mut self) -> Result<usize, DecodeError> {
        Ok(usize::try_from(self.u64()?).unwrap_or(usize::MAX))
    }

    pub(crate) fn time(&mut self) -> Result<Timestamp, DecodeError> {
        Ok(Timestamp::from_micros(i64::from_le_bytes(self.array()?)))
    }

    pub(crate) fn uuid(&mut self) -> Result<Uuid, DecodeError> {
        Ok(Uuid::from_bytes(self.array()?))
    }

    /// A uuid whose zeros mean none.
    pub(crate) fn uuid_or_nil(&mut self) -> Result<Option<Uuid>, DecodeError> {
        Ok(Some(self.uuid()?).filter(|id| !id.is_nil()))
    }

    /// One of a few values, each with its meaning.
    pub(crate) fn one_of<T>(
        &mut self,
        meaning: impl FnOnce(u8) -> Option<T>,
    ) -> Result<T, DecodeError> {
        let at = self.offset();
        let given = self.u8()?;
        let value = Malformation::Value { given: u64::from(given) };
        meaning(given).ok_or_else(|| malformed(at, value))
    }

    pub(crate) fn bool(&mut self) -> Result<bool, DecodeError> {
        self.one_of(|given| match given {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        })
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.u32()? as usize;
        self.take(length)
    }

    pub(crate) fn str(&mut self) -> Result<&'a str, DecodeError> {
        let at = self.offset();
        std::str::from_utf8(self.bytes()?).map_err(|_| malformed(at, Malformation::NotUtf8))
    }

    pub(crate) fn text(&mut self) -> Result<String, DecodeError> {
        self.str().map(str::to_owned)
    }

    /// A text of at most `limit` bytes.
    pub(crate) fn text_within(
        &mut self,
        what: &'static str,
        limit: usize,
    ) -> Result<String, DecodeError> {
        within(what, limit, self.clone().u32()? as usize)?;
        self.text()
    }

    pub(crate) fn key(&mut self) -> Result<AggregateKey, DecodeError> {
        Ok(AggregateKey { aggregate_type: self.text()?, aggregate_id: self.text()? })
    }

    /// A key to look for: none that is longer can be stored.
    pub(crate) fn key_within_limits(&mut self) -> Result<AggregateKey, DecodeError> {
        Ok(AggregateKey {
            aggregate_type: self.text_within("aggregate_type", TYPE_BYTES_MAX)?,
            aggregate_id: self.text_within("aggregate_id", AGGREGATE_ID_BYTES_MAX)?,
        })
    }

    pub(crate) fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if self.bool()? { read(self).map(Some) } else { Ok(None) }
    }

    /// How many items a list has, each of at least `item_bytes`.
    pub(crate) fn count(&mut self, item_bytes: usize) -> Result<usize, DecodeError> {
        let at = self.offset();
        let count = self.u32()? as usize;
        if count > self.rest.len() / item_bytes {
            return Err(malformed(at, Malformation::Count { count }));
        }
        Ok(count)
    }

    pub(crate) fn items<T>(
        &mut self,
        count: usize,
        mut read: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(read(self)?);
        }
        Ok(items)
    }
}

pub(crate) fn malformed(offset: usize, reason: Malformation) -> DecodeError {
    DecodeError::Malformed { offset, reason }
}

/// Checks a limit.
pub(crate) fn within(what: &'static str, limit: usize, given: usize) -> Result<(), DecodeError> {
    if given > limit {
        return Err(DecodeError::OverLimit { what, limit, given });
    }
    Ok(())
}

pub(crate) fn put_length(out: &mut BytesMut, length: usize) {
    out.put_u32_le(u32::try_from(length).unwrap_or(u32::MAX));
}

pub(crate) fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    put_length(out, bytes.len());
    out.put_slice(bytes);
}

pub(crate) fn put_text(out: &mut BytesMut, text: &str) {
    put_bytes(out, text.as_bytes());
}

pub(crate) fn put_uuid(out: &mut BytesMut, id: Uuid) {
    out.put_slice(id.as_bytes());
}

pub(crate) fn put_time(out: &mut BytesMut, time: Timestamp) {
    out.put_i64_le(time.as_micros());
}

pub(crate) fn put_size(out: &mut BytesMut, size: usize) {
    out.put_u64_le(size as u64);
}

pub(crate) fn put_bool(out: &mut BytesMut, value: bool) {
    out.put_u8(u8::from(value));
}

pub(crate) fn put_key(out: &mut BytesMut, key: &AggregateKey) {
    put_text(out, &key.aggregate_type);
    put_text(out, &key.aggregate_id);
}

pub(crate) fn put_option<T>(
    out: &mut BytesMut,
    value: Option<&T>,
    put: impl FnOnce(&mut BytesMut, &T),
) {
    put_bool(out, value.is_some());
    if let Some(value) = value {
        put(out, value);
    }
}

pub(crate) fn put_list<T>(out: &mut BytesMut, list: &[T], mut put: impl FnMut(&mut BytesMut, &T)) {
    put_length(out, list.len());
    for item in list {
        put(out, item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(bytes: &[u8]) -> Bytes {
        Bytes::copy_from_slice(bytes)
    }

    #[test]
    fn a_fault_is_named_with_its_offset() {
        let bytes = body(&[1, 5, 0, 0, 0, b'a']);
        let mut cut_off = Fields::new(&bytes);
        cut_off.u8().unwrap();
        let error = cut_off.text().unwrap_err();
        let reason = Malformation::CutOff { needed: 5 };
        assert_eq!(error, DecodeError::Malformed { offset: 5, reason });
        let error = Fields::new(&body(&[1, 0, 0, 0, 0xff])).text().unwrap_err();
        let reason = Malformation::NotUtf8;
        assert_eq!(error, DecodeError::Malformed { offset: 0, reason });
        let error = Fields::new(&body(&[2])).bool().unwrap_err();
        let reason = Malformation::Value { given: 2 };
        assert_eq!(error, DecodeError::Malformed { offset: 0, reason });
    }

    #[test]
    fn a_count_that_cannot_fit_is_refused() {
        let mut bytes = u32::MAX.to_le_bytes().to_vec();
        bytes.extend_from_slice(&[0; 100]);
        let reason = Malformation::Count { count: u32::MAX as usize };
        let error = Fields::new(&body(&bytes)).count(1).unwrap_err();
        assert_eq!(error, DecodeError::Malformed { offset: 0, reason });
    }

    #[test]
    fn a_text_over_its_limit_is_refused_by_its_length_alone() {
        let bytes = body(&300u32.to_le_bytes());
        let error = Fields::new(&bytes).text_within("client", 255).unwrap_err();
        let what = "client";
        assert_eq!(error, DecodeError::OverLimit { what, limit: 255, given: 300 });
    }
}
