//! Memory maps of sealed segments: the one place of the engine with `unsafe`.
#![expect(unsafe_code, reason = "a memory map is unsafe to create")]

use std::io;

use bytes::Bytes;
use memmap2::{Advice, Mmap};

use super::ReadOrder;

/// Maps the whole of a file.
pub(super) fn map(file: &impl std::os::fd::AsFd, order: ReadOrder) -> io::Result<Bytes> {
    use std::os::fd::AsRawFd;
    let descriptor = file.as_fd().as_raw_fd();
    // SAFETY: only sealed segments and finished index files are mapped. The engine never writes
    // to them again and holds the folder's lock against other writers; a program outside that
    // truncates one ends this process, as the documentation of `Storage::map` says.
    let map = unsafe { Mmap::map(descriptor)? };
    map.advise(match order {
        // Pages are then read ahead of a scan rather than around each fault.
        ReadOrder::Sequential => Advice::Sequential,
        // One page is then read, not the megabytes around it.
        ReadOrder::Random => Advice::Random,
    })?;
    Ok(Bytes::from_owner(map))
}
