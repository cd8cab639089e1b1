//! A handle of one file.

use std::io;
use std::sync::Arc;

use quipu_engine::storage::StorageFile;

use super::content::Content;
use super::operation::{self, Defect, IoFault, Operation};
use super::{Reach, SimDisk, State};

pub(super) struct SimFile {
    pub(super) disk: SimDisk,
    pub(super) content: Content,
}

impl StorageFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.disk.operate(Operation::Read, "measuring")?;
        Ok(self.content.lock().bytes.len() as u64)
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.disk.operate(Operation::Read, "reading")?;
        let file = self.content.lock();
        let start = usize::try_from(offset).expect("small files").min(file.bytes.len());
        let length = buffer.len().min(file.bytes.len() - start);
        buffer[..length].copy_from_slice(&file.bytes[start..start + length]);
        Ok(length)
    }

    fn write_durable(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let at = usize::try_from(offset).expect("small files");
        let mut state = self.disk.state.lock();
        let short = matches!(state.fault, Some((0, IoFault::Short)));
        let result = state.operate(Operation::Write, || operation::name(offset, bytes));
        let State { rng, reach, defect, .. } = &mut *state;
        match (&result, *reach) {
            (Ok(()), Reach::Medium) => self.content.lock().write(at, bytes),
            (Ok(()), Reach::Partly) => self.content.lock().write_cached(at, bytes, || rng.bool()),
            (Ok(()), _) => self.content.lock().write_cached(at, bytes, || true),
            (Err(_), Reach::Medium) if short => {
                self.content.lock().write(at, &bytes[..bytes.len() / 2]);
                if *defect == Some(Defect::TakesShortWriteAsWhole) {
                    return Ok(());
                }
            }
            // A write that fails, or that the power leaves, may have done anything in its place.
            (Err(_), Reach::Medium | Reach::Torn) => self.tear(&mut state, at, bytes),
            (Err(_), Reach::Cache | Reach::Partly) => {}
        }
        result
    }

    fn allocate(&self, end: u64) -> io::Result<()> {
        self.disk.operate(Operation::Make, "allocating")?;
        self.content.lock().extend_to(usize::try_from(end).expect("small files"));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.operate(Operation::Change, "syncing a file")?;
        if self.disk.state.lock().defect != Some(Defect::SkipsFileSync) {
            self.content.lock().sync();
        }
        Ok(())
    }
}

impl SimFile {
    fn tear(&self, state: &mut State, at: usize, bytes: &[u8]) {
        let others: Vec<&Content> =
            state.files.values().filter(|it| !Arc::ptr_eq(it, &self.content)).collect();
        let other = (!others.is_empty()).then(|| others[state.rng.usize(0..others.len())].lock());
        // Another segment's header in the place of this one's would be a misdirected write, not a
        // torn one.
        let recycled = other.as_ref().filter(|_| at > 0).map(|it| it.bytes.as_slice());
        self.content.lock().tear(at, bytes, recycled, &mut state.rng);
    }
}
