//! Groups by `io_uring`: whoever submits goes on at once; one thread hears of the ends.
#![expect(unsafe_code, reason = "the kernel reads buffers that it is only given addresses of")]
#![expect(clippy::disallowed_methods, reason = "the thread that hears of completions starts here")]

use std::collections::HashMap;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use io_uring::{IoUring, opcode, squeue, types};
use parking_lot::{Condvar, Mutex};

use super::disk::short_write;
use super::{Completion, GroupWrite, StorageFile};
use crate::host::tell;

/// More than are ever in flight.
const ENTRIES: u32 = 64;
/// The entry that ends the thread; tickets count from one.
const END: u64 = 0;
/// How often the kernel is told again of what it was told of in vain, while somebody waits for it.
const TOLD_AGAIN_EVERY: Duration = Duration::from_millis(10);

/// A ring, and the thread that hears what it has done.
///
/// Invariants:
/// 1. What the kernel may still read is kept in `in_flight` until it has said that it is done; the
///    thread outlives it.
/// 2. A write is reported once: by `submit`'s answer, or through its completion.
pub(super) struct Ring {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    ring: IoUring,
    /// By the number of the entry. Locked while one is put in: the queue takes one at a time.
    in_flight: Mutex<HashMap<u64, InFlight>>,
    /// Something has ended.
    ended: Condvar,
}

enum Entered {
    /// The kernel has it.
    Yes,
    /// The kernel was told in vain: it takes the entry with the next one.
    Later(io::Error),
    /// There was no room for it.
    Never,
}

struct InFlight {
    /// Kept open and in memory for the kernel.
    _file: Arc<dyn StorageFile>,
    bytes: Bytes,
    /// Taken if its writer has been told already that it failed.
    done: Option<Completion>,
}

impl Ring {
    /// A ring of its own.
    ///
    /// # Errors
    /// That the kernel has none, or does not let this process have one.
    pub(super) fn new() -> io::Result<Self> {
        let ring = IoUring::builder().setup_clamp().build(ENTRIES)?;
        let shared = Arc::new(Shared { ring, in_flight: Mutex::default(), ended: Condvar::new() });
        let hears = Arc::clone(&shared);
        let thread = Builder::new().name("quipu-ring".to_owned()).spawn(move || hears.hear())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Begins a write of a whole group. Durable when it completes: the file is open with
    /// `O_DSYNC`, so that the kernel links the flush to the write.
    pub(super) fn submit(&self, write: GroupWrite) -> Option<io::Result<()>> {
        let Some(descriptor) = write.file.descriptor().map(|it| it.as_raw_fd()) else {
            return Some(write.file.write_durable(write.offset, &write.bytes));
        };
        let number = write.done.ticket();
        let GroupWrite { file, offset, bytes, done } = write;
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let entry = opcode::Write::new(types::Fd(descriptor), bytes.as_ptr(), length);
        let entry = entry.offset(offset).build().user_data(number);
        let mut in_flight = self.shared.in_flight.lock();
        in_flight.insert(number, InFlight { _file: file, bytes, done: Some(done) });
        // SAFETY: the entry's descriptor and buffer are kept in `in_flight` until the kernel has
        // completed it (invariant 1), also if this thread is told of an error in between.
        let error = match unsafe { self.shared.enter(&entry) } {
            Entered::Yes => return None,
            Entered::Later(error) => error,
            Entered::Never => {
                in_flight.remove(&number);
                return Some(Err(io::Error::other("the ring's queue is full")));
            }
        };
        // Only its writer's part in it is over.
        in_flight.get_mut(&number)?.done.take()?;
        Some(Err(error))
    }

    /// Waits until nothing is in flight.
    pub(super) fn quiesce(&self) {
        let mut in_flight = self.shared.in_flight.lock();
        while !in_flight.is_empty() {
            if let Err(error) = self.shared.ring.submit() {
                tell!(debug, %error, "the kernel does not take the ring's entries yet");
            }
            self.shared.ended.wait_for(&mut in_flight, TOLD_AGAIN_EVERY);
        }
    }
}

impl Shared {
    /// Puts an entry in and tells the kernel. The caller has `in_flight` locked.
    ///
    /// # Safety
    /// What the entry points to stays valid until it has completed.
    unsafe fn enter(&self, entry: &squeue::Entry) -> Entered {
        // SAFETY: one thread at a time puts in, as `in_flight` is locked; the entry is valid as the
        // caller says.
        if unsafe { self.ring.submission_shared().push(entry) }.is_err() {
            return Entered::Never;
        }
        loop {
            match self.ring.submit() {
                Ok(_) => return Entered::Yes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Entered::Later(error),
            }
        }
    }

    fn hear(&self) {
        let mut ending = false;
        while !ending || !self.in_flight.lock().is_empty() {
            match self.ring.submit_and_wait(1) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => tell!(error, %error, "cannot wait for the ring"),
            }
            // SAFETY: this thread alone takes completions out.
            let ended: Vec<(u64, i32)> = unsafe { self.ring.completion_shared() }
                .map(|entry| (entry.user_data(), entry.result()))
                .collect();
            for (number, result) in ended {
                ending |= number == END;
                self.ended(number, result);
            }
        }
    }

    fn ended(&self, number: u64, result: i32) {
        let Some(write) = self.in_flight.lock().remove(&number) else { return };
        self.ended.notify_all();
        let Some(done) = write.done else { return };
        done.complete(match usize::try_from(result) {
            Err(_) => Err(io::Error::from_raw_os_error(-result)),
            Ok(written) if written == write.bytes.len() => Ok(()),
            Ok(written) => Err(short_write(written, write.bytes.len())),
        });
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let mut guard = self.shared.in_flight.lock();
        let entry = opcode::Nop::new().build().user_data(END);
        // SAFETY: the entry points to nothing.
        let entered = unsafe { self.shared.enter(&entry) };
        let mut is_told = !matches!(entered, Entered::Later(_));
        while !is_told {
            self.shared.ended.wait_for(&mut guard, TOLD_AGAIN_EVERY);
            is_told = self.shared.ring.submit().is_ok();
        }
        drop(guard);
        let Some(thread) = self.thread.take() else { return };
        // The last that a completion lets go of may be the log itself.
        if matches!(entered, Entered::Never) || thread.thread().id() == std::thread::current().id()
        {
            return;
        }
        if thread.join().is_err() {
            tell!(error, "the thread of the ring has panicked");
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_types, reason = "files of this test only")]
mod tests {
    use std::fs::File;
    use std::os::fd::{AsFd, BorrowedFd};
    use std::os::unix::fs::FileExt;
    use std::sync::mpsc::{Sender, channel};

    use super::*;
    use crate::storage::CompletionSink;

    struct Plain(File);

    impl StorageFile for Plain {
        fn len(&self) -> io::Result<u64> {
            Ok(self.0.metadata()?.len())
        }

        fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read_at(buffer, offset)
        }

        fn write_durable(&self, _: u64, _: &[u8]) -> io::Result<()> {
            Err(io::Error::other("only the ring writes here"))
        }

        fn allocate(&self, _: u64) -> io::Result<()> {
            Ok(())
        }

        fn sync(&self) -> io::Result<()> {
            Ok(())
        }

        fn descriptor(&self) -> Option<BorrowedFd<'_>> {
            Some(self.0.as_fd())
        }
    }

    struct Heard(Mutex<Sender<(u64, io::Result<()>)>>);

    impl CompletionSink for Heard {
        fn completed(&self, ticket: u64, result: io::Result<()>) {
            self.0.lock().send((ticket, result)).ok();
        }
    }

    fn ring() -> Option<Ring> {
        match Ring::new() {
            Ok(ring) => Some(ring),
            Err(error) => {
                eprintln!("!!! NOT TESTED: this system refuses io_uring: {error} !!!");
                None
            }
        }
    }

    #[test]
    fn every_write_ends_once_and_all_have_ended_when_the_ring_is_dropped() {
        let Some(ring) = ring() else { return };
        let file = tempfile::tempfile().unwrap();
        let file: Arc<dyn StorageFile> = Arc::new(Plain(file));
        let (tell, heard) = channel();
        let sink = Arc::new(Heard(Mutex::new(tell)));
        for ticket in 1..=40_u8 {
            let bytes = Bytes::from(vec![ticket; 8192]);
            let done = Completion::new(u64::from(ticket), Arc::clone(&sink) as _);
            let offset = u64::from(ticket) * 8192;
            let write = GroupWrite { file: Arc::clone(&file), offset, bytes, done };
            assert!(ring.submit(write).is_none(), "it goes on its way");
        }
        drop(ring);
        drop(sink);
        let mut tickets: Vec<u64> = heard
            .iter()
            .map(|(ticket, result)| {
                result.unwrap();
                ticket
            })
            .collect();
        tickets.sort_unstable();
        assert!(tickets.into_iter().eq(1..=40));
        let mut content = vec![0; 8192];
        for ticket in 1..=40_u8 {
            file.read(u64::from(ticket) * 8192, &mut content).unwrap();
            assert!(content.iter().all(|byte| *byte == ticket));
        }
    }

    #[test]
    fn nothing_is_under_way_once_the_ring_is_quiet() {
        let Some(ring) = ring() else { return };
        let file: Arc<dyn StorageFile> = Arc::new(Plain(tempfile::tempfile().unwrap()));
        let (tell, heard) = channel();
        let sink = Arc::new(Heard(Mutex::new(tell)));
        for ticket in 1..=8_u8 {
            let (offset, bytes) = (u64::from(ticket) << 20, Bytes::from(vec![ticket; 1 << 20]));
            let done = Completion::new(u64::from(ticket), Arc::clone(&sink) as _);
            let write = GroupWrite { file: Arc::clone(&file), offset, bytes, done };
            assert!(ring.submit(write).is_none());
        }
        ring.quiesce();
        assert_eq!(file.len().unwrap(), 9 << 20);
        let mut content = vec![0; 1 << 20];
        for ticket in 1..=8_u8 {
            file.read(u64::from(ticket) << 20, &mut content).unwrap();
            assert!(content.iter().all(|byte| *byte == ticket));
        }
        drop((ring, sink));
        assert_eq!(heard.iter().count(), 8);
    }

    #[test]
    fn what_the_kernel_refuses_is_an_error_of_that_write_alone() {
        let Some(ring) = ring() else { return };
        let read_only: Arc<dyn StorageFile> = Arc::new(Plain(File::open("/dev/null").unwrap()));
        let good: Arc<dyn StorageFile> = Arc::new(Plain(tempfile::tempfile().unwrap()));
        let (tell, heard) = channel();
        let sink = Arc::new(Heard(Mutex::new(tell)));
        for (ticket, file) in [(1, read_only), (2, good)] {
            let done = Completion::new(ticket, Arc::clone(&sink) as _);
            let write = GroupWrite { file, offset: 0, bytes: Bytes::from_static(&[7; 512]), done };
            assert!(ring.submit(write).is_none());
        }
        let mut ended = [heard.recv().unwrap(), heard.recv().unwrap()];
        ended.sort_by_key(|(ticket, _)| *ticket);
        assert_eq!(ended[0].1.as_ref().unwrap_err().raw_os_error(), Some(9), "EBADF");
        assert!(ended[1].1.is_ok());
    }
}
