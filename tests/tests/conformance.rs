//! The embedded log keeps every promise of an event store, with each way to reach the disk and
//! without a disk; and so does a log behind a server.
#![expect(clippy::print_stderr, reason = "a skipped test says so loudly")]

use std::sync::Arc;

use quipu_client::{Backend, Embedded, Mapping, Options};
use quipu_server::ServerOptions;
use quipu_tests::conformance::{LIMITS, SEGMENT_BYTES, Subject};
use quipu_tests::served::Served;

fn options(backend: Backend, mapping: Mapping) -> Options {
    let mut options = Options { backend, mapping, ..Options::default() }.with_limits(LIMITS);
    options.log.segment_bytes = SEGMENT_BYTES;
    options
}

fn remote() -> Subject {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = options(Backend::Auto, Mapping::Mapped);
    // Its pages are larger than this log's messages may be: it keeps to what is agreed.
    let served = Served::open(folder.path(), options, ServerOptions::default());
    let store = served.connect();
    Subject { store: Arc::new(store), keep: Box::new((served, folder)) }
}

fn embedded(backend: Backend, mapping: Mapping) -> Subject {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = options(backend, mapping);
    let store = Embedded::open(folder.path(), options).expect("a new log opens");
    Subject { store: Arc::new(store), keep: Box::new(folder) }
}

mod direct_and_mapped {
    fn open() -> super::Subject {
        super::embedded(super::Backend::Auto, super::Mapping::Mapped)
    }
    quipu_tests::conformance_suite!(open);
}

/// As many containers do, a system may refuse `io_uring`: then the direct backend stands in for it.
fn by_ring() -> Subject {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let options = |backend| options(backend, Mapping::Mapped);
    let store = Embedded::open(folder.path(), options(Backend::IoUring)).or_else(|error| {
        eprintln!("SKIPPED: io_uring: {error}");
        Embedded::open(folder.path(), options(Backend::Auto))
    });
    Subject { store: Arc::new(store.expect("a new log opens")), keep: Box::new(folder) }
}

mod io_uring {
    quipu_tests::conformance_suite!(super::by_ring);
}

mod in_memory {
    use super::{Backend, Embedded, Mapping, Subject, options};

    fn open() -> Subject {
        let options = options(Backend::Auto, Mapping::Mapped);
        let store = Embedded::in_memory(options).expect("a new log opens");
        Subject { store: std::sync::Arc::new(store), keep: Box::new(()) }
    }
    quipu_tests::conformance_suite!(open);
}

mod over_tcp {
    quipu_tests::conformance_suite!(super::remote);
}

mod buffered_and_read {
    fn open() -> super::Subject {
        super::embedded(super::Backend::Buffered, super::Mapping::Read)
    }
    quipu_tests::conformance_suite!(open);
}
