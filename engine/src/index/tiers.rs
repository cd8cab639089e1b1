//! Which runs are merged into one: as many neighbours of one size as the fan-in says. Sizes are
//! thus powers of it, and there are few runs for any number of segments.

use std::ops::Range;

/// The runs to merge, given how many segments each covers, oldest first; the smallest ones first.
/// 0 stands for what cannot be merged.
#[must_use]
pub fn to_merge(sizes: &[u64], fan_in: usize) -> Option<Range<usize>> {
    let is_tier = |runs: &[u64]| runs[0] > 0 && runs.iter().all(|size| *size == runs[0]);
    let tiers = sizes.windows(fan_in.max(1)).enumerate().filter(|(_, runs)| is_tier(runs));
    let (first, _) = tiers.min_by_key(|(first, runs)| (runs[0], *first))?;
    Some(first..first + fan_in)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_of_one_size_are_merged_and_few_runs_are_left() {
        assert_eq!(to_merge(&[], 4), None);
        assert_eq!(to_merge(&[1, 1, 1], 4), None);
        assert_eq!(to_merge(&[4, 1, 1, 1, 1], 4), Some(1..5));
        assert_eq!(to_merge(&[4, 1, 1, 4, 1, 1], 4), None);
        assert_eq!(to_merge(&[1, 1, 0, 1, 1], 4), None);
        assert_eq!(to_merge(&[0, 0, 0, 0], 4), None);
        assert_eq!(to_merge(&[4, 4, 4, 4, 1, 1, 1, 1], 4), Some(4..8));
        let mut sizes: Vec<u64> = Vec::new();
        for segments in 1..=1_000_u64 {
            sizes.push(1);
            while let Some(range) = to_merge(&sizes, 4) {
                let size = sizes[range.clone()].iter().sum();
                sizes.splice(range, [size]);
            }
            assert_eq!(sizes.iter().sum::<u64>(), segments);
            assert!(sizes.len() <= 15, "{segments} segments have {} runs", sizes.len());
        }
    }
}
