//! The newest groups of a segment that is being written, kept in memory so that those who follow
//! the log need no disk.

use std::collections::VecDeque;

use bytes::Bytes;

/// Groups by offset, the oldest dropped first when there are too many bytes.
pub struct Tail {
    groups: VecDeque<(u64, Bytes)>,
    bytes: usize,
    bytes_max: usize,
}

impl Tail {
    /// An empty tail that holds at most `bytes_max`, but always the newest group.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { groups: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// Takes the newest group.
    pub fn push(&mut self, offset: u64, group: Bytes) {
        self.bytes += group.len();
        self.groups.push_back((offset, group));
        while self.bytes > self.bytes_max && self.groups.len() > 1 {
            if let Some((_, oldest)) = self.groups.pop_front() {
                self.bytes -= oldest.len();
            }
        }
    }

    /// The group at `offset`, if it is still here.
    #[must_use]
    pub fn get(&self, offset: u64) -> Option<Bytes> {
        let index = self.groups.binary_search_by_key(&offset, |(offset, _)| *offset).ok()?;
        self.groups.get(index).map(|(_, group)| group.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_first_and_the_newest_stays() {
        let mut tail = Tail::new(10);
        for offset in 0..5 {
            tail.push(offset, Bytes::from_static(b"12345"));
        }
        assert!(tail.get(2).is_none() && tail.get(3).is_some() && tail.get(4).is_some());
        tail.push(5, Bytes::from_static(b"larger than the limit"));
        assert!(tail.get(4).is_none() && tail.get(5).is_some());
    }
}
