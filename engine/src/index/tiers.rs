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

/// Entries to merge for each record that is appended to so many segments, so that merges keep up: a
/// record has an id and an aggregate, each of which is merged once for every power of the fan-in.
#[must_use]
pub fn merged_for_a_record(segments: u64, fan_in: usize) -> usize {
    let powers = segments.max(1).ilog(fan_in.max(2) as u64) + 1;
    2 * powers as usize
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

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

    /// The most runs there are at once while so many segments of one record each are appended, and
    /// several merges are under way, the smallest first.
    fn runs_at_most(segments: u64, fan_in: usize) -> usize {
        // Runs and merges by their first segment: how many they cover, and entries left to merge.
        let mut runs = BTreeMap::<u64, u64>::new();
        let mut merges = BTreeMap::<u64, (u64, usize)>::new();
        let mut most = 0;
        for segment in 1..=segments {
            runs.insert(segment, 1);
            let mut due = merged_for_a_record(segment, fan_in);
            while due > 0 {
                let is_merged = |run: u64| {
                    merges.iter().any(|(first, of)| (*first..first + of.0).contains(&run))
                };
                let size = |run: (&u64, &u64)| if is_merged(*run.0) { 0 } else { *run.1 };
                let sizes: Vec<u64> = runs.iter().map(size).collect();
                if let Some(range) = to_merge(&sizes, fan_in) {
                    let size: u64 = sizes[range.clone()].iter().sum();
                    let first = *runs.keys().nth(range.start).unwrap();
                    merges.insert(first, (size, 2 * usize::try_from(size).unwrap()));
                    continue;
                }
                let Some((first, merge)) = merges.iter_mut().min_by_key(|it| it.1.0) else { break };
                let step = due.min(merge.1);
                due -= step;
                merge.1 -= step;
                if let (first, (size, 0)) = (*first, *merge) {
                    merges.remove(&first);
                    runs.retain(|run, _| !(first..first + size).contains(run));
                    runs.insert(first, size);
                }
            }
            most = most.max(runs.len());
        }
        most
    }

    #[test]
    fn at_the_pace_of_appends_merges_keep_up() {
        for fan_in in [2, 4, 16] {
            let powers = merged_for_a_record(2_000, fan_in) / 2;
            assert!(runs_at_most(2_000, fan_in) <= fan_in * powers, "{fan_in}");
        }
    }
}
