//! Rows in the format of `COPY … (FORMAT binary)`, written straight into the bytes that are sent.

use bytes::{BufMut, Bytes, BytesMut};
use quipu_client::Uuid;

use crate::instant::Instant;

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// Flags, and the length of a header extension: there are none.
const NO_FLAGS: [u8; 8] = [0; 8];
const END: i16 = -1;
const JSONB_VERSION: u8 = 1;

/// Bytes that are handed over at once.
const CHUNK_BYTES: usize = 128 * 1024;

/// Rows for a COPY.
pub(crate) struct CopyRows {
    full: Vec<Bytes>,
    buffer: BytesMut,
    rows: usize,
}

impl CopyRows {
    pub(crate) fn new() -> Self {
        let mut buffer = BytesMut::new();
        buffer.put_slice(SIGNATURE);
        buffer.put_slice(&NO_FLAGS);
        Self { full: Vec::new(), buffer, rows: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// All rows, to be sent.
    pub(crate) fn finished(&self) -> Vec<Bytes> {
        let mut last = BytesMut::with_capacity(self.buffer.len() + 2);
        last.put_slice(&self.buffer);
        last.put_i16(END);
        self.full.iter().cloned().chain([last.freeze()]).collect()
    }

    /// Begins a row of so many columns, which follow in order.
    pub(crate) fn row(&mut self, columns: i16) -> &mut Self {
        self.rows += 1;
        if self.buffer.len() >= CHUNK_BYTES {
            let empty = BytesMut::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 8);
            self.full.push(std::mem::replace(&mut self.buffer, empty).freeze());
        }
        self.buffer.put_i16(columns);
        self
    }

    pub(crate) fn bigint(&mut self, value: i64) -> &mut Self {
        self.buffer.put_i32(8);
        self.buffer.put_i64(value);
        self
    }

    pub(crate) fn integer(&mut self, value: i32) -> &mut Self {
        self.buffer.put_i32(4);
        self.buffer.put_i32(value);
        self
    }

    pub(crate) fn instant(&mut self, value: Instant) -> &mut Self {
        self.bigint(value.micros())
    }

    pub(crate) fn uuid(&mut self, value: Uuid) -> &mut Self {
        self.bytes(value.as_bytes())
    }

    pub(crate) fn text(&mut self, value: &str) -> &mut Self {
        self.bytes(value.as_bytes())
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.buffer.put_i32(length(value.len()));
        self.buffer.put_slice(value);
        self
    }

    pub(crate) fn json(&mut self, value: &[u8]) -> &mut Self {
        self.buffer.put_i32(length(value.len() + 1));
        self.buffer.put_u8(JSONB_VERSION);
        self.buffer.put_slice(value);
        self
    }

    pub(crate) fn null(&mut self) -> &mut Self {
        self.buffer.put_i32(-1);
        self
    }
}

/// No field of an event is nearly as long as this can say.
fn length(bytes: usize) -> i32 {
    i32::try_from(bytes).expect("a field of an event is within the limit of an event")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_spelled_as_postgres_documents_it() {
        let mut rows = CopyRows::new();
        assert!(rows.is_empty());
        rows.row(3).integer(-2).json(b"{}").null();
        let (head, row) =
            (b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0", b"\0\x03\0\0\0\x04\xff\xff\xff\xfe");
        let rest = b"\0\0\0\x03\x01{}\xff\xff\xff\xff\xff\xff";
        assert_eq!(rows.finished().concat(), [&head[..], row, rest].concat());
    }
}
