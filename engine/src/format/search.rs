//! Searches among sorted entries that may turn out to be damaged.

use std::ops::{Range, RangeInclusive};

use super::index_header::IndexFault;

/// First index in `0..count` for which `before` is false, given that it is true up to there.
pub(crate) fn partition_point(
    count: usize,
    before: impl Fn(usize) -> Result<bool, IndexFault>,
) -> Result<usize, IndexFault> {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = usize::midpoint(low, high);
        if before(middle)? {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

/// Looks that go where the hash lets expect it, before the rest is halved: enough for any table
/// of a segment, if its hashes are spread as a good hash spreads them.
const GUESSES: u32 = 8;

/// First index in `0..count` whose hash is not less than `hash`, given that hashes ascend. Hashes
/// are spread evenly, so a few guesses come near: interpolation search.
pub(crate) fn first_not_less(
    count: usize,
    hash: u64,
    hash_at: impl Fn(usize) -> Result<u64, IndexFault>,
) -> Result<usize, IndexFault> {
    let (mut low, mut high) = (0, count);
    let (mut least, mut greatest) = (0, u64::MAX);
    let mut guesses = 0..GUESSES;
    while low < high {
        let middle = match guesses.next() {
            Some(_) => guess(low..high, least..=greatest, hash),
            None => usize::midpoint(low, high),
        };
        let found = hash_at(middle)?;
        if found < hash {
            (low, least) = (middle + 1, found);
        } else {
            (high, greatest) = (middle, found);
        }
    }
    Ok(low)
}

/// Where among these entries, whose hashes lie between these two, a hash is to be expected.
fn guess(entries: Range<usize>, hashes: RangeInclusive<u64>, hash: u64) -> usize {
    let above = u128::from(hash.saturating_sub(*hashes.start()));
    let width = u128::from(hashes.end().saturating_sub(*hashes.start())) + 1;
    let offset = above * entries.len() as u128 / width;
    entries.start + usize::try_from(offset).unwrap_or(usize::MAX).min(entries.len() - 1)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use quipu_types::Uuid;

    use super::*;
    use crate::index::keys::KeyHasher;

    /// What the search finds, and in how many looks.
    fn found(hashes: &[u64], hash: u64) -> (usize, usize) {
        let looks = Cell::new(0);
        let found = first_not_less(hashes.len(), hash, |index| {
            looks.set(looks.get() + 1);
            Ok(hashes[index])
        });
        (found.unwrap(), looks.get())
    }

    #[test]
    fn whatever_the_hashes_the_first_that_is_not_less_is_found() {
        let spread: Vec<u64> = (0..1_000_u64).map(|n| n.wrapping_mul(u64::MAX / 1_000)).collect();
        let uneven: Vec<u64> = (0..64).map(|n| 1 << n).collect();
        let same = vec![7; 100];
        for hashes in [vec![], vec![0], vec![u64::MAX], spread, uneven, same] {
            let around = hashes.iter().flat_map(|it| [it.saturating_sub(1), *it, it | 1]);
            for hash in around.chain([0, 7, u64::MAX]) {
                let expected = hashes.partition_point(|it| *it < hash);
                assert_eq!(found(&hashes, hash).0, expected, "{hash} in {hashes:?}");
            }
        }
    }

    #[test]
    fn a_few_looks_are_enough_among_many_hashes() {
        let hasher = KeyHasher::new(Uuid::from_u128(1));
        let mut hashes: Vec<u64> =
            (0..200_000).map(|n: u32| hasher.parts("Call", &n.to_string())).collect();
        hashes.sort_unstable();
        let looks: usize = hashes.iter().step_by(1_000).map(|hash| found(&hashes, *hash).1).sum();
        assert!(looks <= 200 * 8, "{} looks on average", looks / 200);
    }

    #[test]
    fn an_uneven_table_takes_no_more_looks_than_halving_and_the_guesses() {
        let hashes: Vec<u64> = (0..1 << 16).map(|n| u64::MAX - (1 << 16) + n).collect();
        for hash in [hashes[1], hashes[40_000], hashes[65_535]] {
            let (at, looks) = found(&hashes, hash);
            assert_eq!(hashes[at], hash);
            assert!(looks <= 17 + GUESSES as usize, "{looks}");
        }
    }
}
