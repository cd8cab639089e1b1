//! File names of a log (segments-format.md §3).

/// What a file in a log's folder is, by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// Says that the folder is a log.
    Marker,
    /// The writer's lock.
    Lock,
    /// A segment, by number.
    Segment(u64),
    /// A sealed segment's index, by number.
    Index(u64),
    /// A sorted run of the index, by its first and last segment.
    Run(u64, u64),
    /// A copy of a torn tail.
    Torn,
    /// A file that was being written when the process ended.
    Temporary,
    /// None of ours.
    Unknown,
}

/// Name of the file that says that a folder is a log.
pub const MARKER_NAME: &str = "LOG";
/// Name of the lock file.
pub const LOCK_NAME: &str = "lock";
/// Beginning of the name of the file on which direct I/O is tried.
pub(super) const PROBE_STEM: &str = "direct-probe-";
const DIGITS: usize = 20;

impl FileKind {
    /// What a file of this name is.
    #[must_use]
    pub fn of(name: &str) -> Self {
        match name {
            MARKER_NAME => return Self::Marker,
            LOCK_NAME => return Self::Lock,
            _ => {}
        }
        match name.rsplit_once('.') {
            Some((number, "seg")) => numbered(number).map_or(Self::Unknown, Self::Segment),
            Some((number, "idx")) => numbered(number).map_or(Self::Unknown, Self::Index),
            Some((segments, "run")) => spanned(segments).unwrap_or(Self::Unknown),
            Some((stem, "torn")) if stem.split('.').next().is_some_and(is_numbered) => Self::Torn,
            Some((stem, "tmp")) if is_made_here(stem) => Self::Temporary,
            _ => Self::Unknown,
        }
    }
}

/// Whether a file of this name is written by way of a temporary one, or tries direct I/O.
fn is_made_here(stem: &str) -> bool {
    FileKind::of(stem) != FileKind::Unknown || stem.starts_with(PROBE_STEM)
}

fn is_numbered(text: &str) -> bool {
    numbered(text).is_some()
}

fn numbered(text: &str) -> Option<u64> {
    let digits = text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().filter(|number| *number > 0)
}

fn spanned(text: &str) -> Option<FileKind> {
    let (first, last) = text.split_once('-')?;
    let (first, last) = (numbered(first)?, numbered(last)?);
    (first <= last).then_some(FileKind::Run(first, last))
}

/// Name of a segment.
#[must_use]
pub fn segment_name(number: u64) -> String {
    format!("{number:020}.seg")
}

/// Name of a sealed segment's index.
#[must_use]
pub fn index_name(number: u64) -> String {
    format!("{number:020}.idx")
}

/// Name of the run of these segments.
#[must_use]
pub fn run_name(first: u64, last: u64) -> String {
    format!("{first:020}-{last:020}.run")
}

/// Name of a file while it is written.
#[must_use]
pub fn temporary_name(name: &str) -> String {
    format!("{name}.tmp")
}

/// Name of a copy of a torn tail.
#[must_use]
pub fn torn_name(number: u64, offset: u64, epoch: u64) -> String {
    format!("{number:020}.{offset}.{epoch}.torn")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_strictly() {
        assert_eq!(FileKind::of(&segment_name(7)), FileKind::Segment(7));
        assert_eq!(FileKind::of(&index_name(7)), FileKind::Index(7));
        assert_eq!(FileKind::of(&run_name(3, 7)), FileKind::Run(3, 7));
        assert_eq!(FileKind::of(&run_name(7, 3)), FileKind::Unknown);
        assert_eq!(FileKind::of(&torn_name(7, 4096, 2)), FileKind::Torn);
        assert_eq!(FileKind::of("LOG"), FileKind::Marker);
        for name in [
            "LOG".to_owned(),
            index_name(7),
            run_name(1, 7),
            torn_name(7, 4096, 2),
            "direct-probe-1".into(),
        ] {
            assert_eq!(FileKind::of(&temporary_name(&name)), FileKind::Temporary, "{name}");
        }
        let unknown =
            ["7.seg", "0000000000000000000a.seg", "00000000000000000000.seg", "notes.txt"];
        for name in unknown.into_iter().chain(["draft.tmp"]) {
            assert_eq!(FileKind::of(name), FileKind::Unknown, "{name}");
        }
    }
}
