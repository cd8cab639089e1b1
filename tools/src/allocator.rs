//! The allocator of this program, and what it does with memory that is free.

use std::ffi::c_int;

use libmimalloc_sys::{mi_option_set_default, mi_option_t};

// Appends allocate in one thread and free in another, a hundred kilobytes at a time: the system's
// allocator spends an eighth of all time on that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` in mimalloc.h, which its Rust binding leaves out.
const PURGE_DELAY: mi_option_t = 15 as c_int;

/// Keeps free memory for use again, and gives none back to the system, unless the environment
/// (`MIMALLOC_PURGE_DELAY`) says otherwise.
///
/// Who allocates gives back, and who touches memory anew has it cleared: with a log both fall to
/// the thread that commits. On a virtual machine, whose host must find the memory first, clearing
/// 2 MiB takes up to 6 ms, and every append waits.
#[expect(unsafe_code, reason = "mimalloc is C")]
pub(crate) fn keep_free_memory() {
    // SAFETY: the option exists in every version that the binding builds, and any value of it is
    // valid at any time.
    unsafe { mi_option_set_default(PURGE_DELAY, -1) };
}
