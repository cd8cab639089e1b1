//! Which of the segments that a run covers hold something (segments-format.md §15.2).

use super::run_file::Span;

const BITS: u64 = 64;

/// A set of segments of a span: a bit for each, or where there are more than 64 one for several
/// neighbours. So it may hold segments too many, and never one too few.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentSet(pub u64);

impl SegmentSet {
    /// None.
    pub const EMPTY: Self = Self(0);

    /// One segment of a span.
    #[must_use]
    pub fn of(span: &Span, segment: u64) -> Self {
        let bit = segment.saturating_sub(span.first_segment) / step(span);
        Self(1 << bit.min(BITS - 1))
    }

    /// Whether a segment of the span may be in it.
    #[must_use]
    pub fn may_have(self, span: &Span, segment: u64) -> bool {
        span.covers(segment) && self.0 & Self::of(span, segment).0 != 0
    }

    /// The same segments, of a span that covers those of their own.
    #[must_use]
    pub fn within(self, whole: &Span, own: &Span) -> Self {
        let before = own.first_segment.saturating_sub(whole.first_segment);
        if step(whole) == 1 {
            let before = u32::try_from(before).unwrap_or(u32::MAX);
            return Self(self.0.checked_shl(before).unwrap_or(0));
        }
        let (mut left, mut all) = (self.0, Self::EMPTY);
        while left != 0 {
            let first = own.first_segment + u64::from(left.trailing_zeros()) * step(own);
            let last = (first + step(own) - 1).min(own.last_segment);
            all = (first..=last).fold(all, |all, segment| all.union(Self::of(whole, segment)));
            left &= left - 1;
        }
        all
    }

    /// Whether it may have come of these of the span's segments: it has all of them, and where each
    /// has a bit of its own no others.
    #[must_use]
    pub fn stands_for(self, exactly: Self, span: &Span) -> bool {
        if step(span) == 1 { self == exactly } else { self.union(exactly) == self }
    }

    /// With those of another set of the same span.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// How many segments share a bit.
fn step(span: &Span) -> u64 {
    span.segments().div_ceil(BITS)
}

#[cfg(test)]
mod tests {
    use quipu_types::Position;

    use super::*;

    fn span(first_segment: u64, segments: u64) -> Span {
        Span {
            first_segment,
            last_segment: first_segment + segments - 1,
            seal_sum: 0,
            first_position: Position(1),
            next_position: Position(1),
        }
    }

    fn of(span: &Span, segments: &[u64]) -> SegmentSet {
        let sets = segments.iter().map(|segment| SegmentSet::of(span, *segment));
        sets.fold(SegmentSet::EMPTY, SegmentSet::union)
    }

    #[test]
    fn a_set_has_what_was_put_in_and_up_to_64_segments_nothing_else() {
        for segments in [1, 2, 63, 64] {
            let span = span(10, segments);
            let put: Vec<u64> = (10..10 + segments).filter(|segment| segment % 3 == 1).collect();
            let set = of(&span, &put);
            for segment in 0..200 {
                assert_eq!(set.may_have(&span, segment), put.contains(&segment), "{segment}");
            }
            assert!(set.stands_for(of(&span, &put), &span));
            assert!(!set.stands_for(of(&span, &put[1..]), &span), "one too many");
        }
    }

    #[test]
    fn no_segment_is_lost_however_often_a_set_is_widened() {
        let put = [3, 4, 66, 67, 130];
        let alone = |segment: &u64| (span(*segment, 1), of(&span(*segment, 1), &[*segment]));
        let mut own: Vec<(Span, SegmentSet)> = put.iter().map(alone).collect();
        for (first, segments) in [(1, 65), (66, 66), (1, 131), (1, 600), (1, 5_000)] {
            let whole = span(first, segments);
            let is_inside = |(own, _): &(Span, SegmentSet)| {
                own.first_segment >= first && own.last_segment <= whole.last_segment
            };
            let (inside, outside): (Vec<_>, Vec<_>) = own.into_iter().partition(is_inside);
            let sets = inside.iter().map(|(own, set)| set.within(&whole, own));
            let all = sets.fold(SegmentSet::EMPTY, SegmentSet::union);
            own = outside;
            own.push((whole, all));
            for segment in put {
                assert!(own.iter().any(|(span, set)| set.may_have(span, segment)), "{segment}");
            }
        }
        let (whole, set) = own[own.len() - 1];
        assert!(set.stands_for(of(&whole, &put), &whole));
        assert!(!set.stands_for(of(&whole, &[4_000]), &whole));
        let held = (1..=5_000).filter(|segment| set.may_have(&whole, *segment)).count();
        assert!(held < 300, "{held} segments: a bit stands for 79");
    }
}
