//! The embedded log keeps every promise of an event store, with each way to reach the disk.

use std::sync::Arc;

use quipu_client::{Backend, Embedded, Mapping, Options};
use quipu_tests::conformance::{LIMITS, SEGMENT_BYTES, Subject};

fn embedded(backend: Backend, mapping: Mapping) -> Subject {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut options = Options { backend, mapping, ..Options::default() }.with_limits(LIMITS);
    options.log.segment_bytes = SEGMENT_BYTES;
    let store = Embedded::open(folder.path(), options).expect("a new log opens");
    Subject { store: Arc::new(store), keep: Box::new(folder) }
}

mod direct_and_mapped {
    fn open() -> super::Subject {
        super::embedded(super::Backend::Auto, super::Mapping::Mapped)
    }
    quipu_tests::conformance_suite!(open);
}

mod buffered_and_read {
    fn open() -> super::Subject {
        super::embedded(super::Backend::Buffered, super::Mapping::Read)
    }
    quipu_tests::conformance_suite!(open);
}
