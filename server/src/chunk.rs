//! Bytes to be written to a connection: a finished message, or the head of one and its records,
//! which are written from where they lie.

use std::vec::IntoIter;

use bytes::{Buf, Bytes};
use quipu_types::Record;

use crate::budget::Charge;

/// What is to be written, and the room it holds until it is.
pub(crate) struct Chunk {
    bytes: Bytes,
    /// Records behind the bytes.
    records: IntoIter<Record>,
    /// How much of the first of them is written.
    written: usize,
    _charge: Option<Charge>,
}

impl Chunk {
    /// A finished message, or several.
    pub(crate) fn whole(bytes: Bytes, charge: Option<Charge>) -> Self {
        Self::of_records(bytes, Vec::new(), charge)
    }

    /// A message of records without a copy of them.
    pub(crate) fn of_records(head: Bytes, records: Vec<Record>, charge: Option<Charge>) -> Self {
        Self { bytes: head, records: records.into_iter(), written: 0, _charge: charge }
    }

    /// Whether there are records behind the bytes.
    pub(crate) fn has_records(&self) -> bool {
        !self.records.as_slice().is_empty()
    }

    /// What is left, in order; parts may be empty.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let mut written = self.written;
        let left = move |record| &Record::as_bytes(record)[std::mem::take(&mut written)..];
        std::iter::once(&self.bytes[..]).chain(self.records.as_slice().iter().map(left))
    }

    /// Takes what was written off the front and off `written`; true once nothing is left.
    pub(crate) fn advance(&mut self, written: &mut usize) -> bool {
        let of_bytes = self.bytes.len().min(*written);
        self.bytes.advance(of_bytes);
        *written -= of_bytes;
        while let Some(first) = self.records.as_slice().first() {
            let left = first.as_bytes().len() - self.written;
            if *written < left {
                self.written += std::mem::take(written);
                return false;
            }
            *written -= left;
            self.written = 0;
            self.records.next();
        }
        self.bytes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::record;

    #[test]
    fn what_is_written_in_any_steps_is_the_whole() {
        let whole: Vec<u8> = [&b"head"[..], record(1).as_bytes(), record(2).as_bytes()].concat();
        for step in 1..=whole.len() + 1 {
            let head = Bytes::from_static(b"head");
            let mut chunk = Chunk::of_records(head, vec![record(1), record(2)], None);
            let (mut sent, mut is_done) = (Vec::new(), false);
            while !is_done {
                let left = chunk.parts().collect::<Vec<_>>().concat();
                assert_eq!(left, whole[sent.len()..]);
                let mut written = step.min(left.len());
                sent.extend_from_slice(&left[..written]);
                is_done = chunk.advance(&mut written);
                assert_eq!(written, 0);
            }
            assert_eq!(sent, whole);
        }
        let mut more = 9;
        assert!(Chunk::whole(Bytes::from_static(b"whole"), None).advance(&mut more));
        assert_eq!(more, 4, "what is left is of the next chunk");
    }
}
