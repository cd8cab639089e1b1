//! Takes the power from a file system: what is not on its disk is gone, and later writes fail.
//!
//! The one call that no safe function makes.
#![allow(unsafe_code, reason = "an ioctl that only the kernel's file systems know")]

use std::io;
use std::os::fd::AsFd;

use rustix::ioctl::{Setter, ioctl};

/// `EXT4_IOC_SHUTDOWN`, and XFS' `XFS_IOC_GOINGDOWN`: the same number.
const SHUTDOWN: rustix::ioctl::Opcode = 0x8004_587d;
/// Not even the journal is written out.
const NO_LOG_FLUSH: u32 = 2;

/// Shuts the file system down that this file or folder belongs to.
pub(super) fn cut(any_file: impl AsFd) -> io::Result<()> {
    // SAFETY: both file systems read one u32 from the pointer that is given, and write nothing.
    let shutdown = unsafe { Setter::<SHUTDOWN, u32>::new(NO_LOG_FLUSH) };
    // SAFETY: as above; a file system that does not know the number refuses it.
    unsafe { ioctl(any_file, shutdown) }?;
    Ok(())
}
