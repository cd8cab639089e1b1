//! Opening for reading: nothing is written, and a writer may be at work meanwhile.

use std::sync::Arc;

use super::{Folder, Follower, Last, Opened, Opening, Progress, place};
use crate::error::OpenError;
use crate::recovery::tail::scan_beside_writer;
use crate::segment::Segment;
use crate::segment::scanner::ScanEnd;
use crate::shared::LogState;

impl Opening {
    pub(super) fn finish_read_only(mut self, progress: Progress<'_>) -> Result<Opened, OpenError> {
        let mut segments = self.load_sealed(None, false, progress)?;
        let last = self.last()?;
        if self.chain.damage.is_none() {
            self.judge_beside_writer(&last)?;
        }
        let header = last.header.clone();
        let file = Arc::clone(&last.file);
        let active = Arc::new(Segment::live(header, file, self.options.tail_bytes));
        segments.push(Arc::clone(&active));
        let mut follower = Follower::new(active, last.file);
        let damage = self.chain.damage.clone();
        let first_position = last.header.first_position;
        let mut opened = self.opened(segments, first_position, LogState::ReadOnly, None);
        let shown = match &damage {
            Some(_) => follower.show_all(&opened.shared).map(|()| 0),
            None => follower.refresh(&opened.shared),
        };
        let unproven = shown.map_err(|error| OpenError::Io {
            action: "read the active segment".to_owned(),
            error: std::io::Error::other(error.to_string()),
        })?;
        opened.report.last_position = opened.shared.watermark.current();
        opened.report.unproven_bytes = unproven;
        opened.report.segments = opened.shared.segments.snapshot().len();
        match damage {
            Some(mut damage) => {
                damage.first = damage.first.max(opened.report.last_position.next());
                opened.report.damage = Some(damage.clone());
                opened.shared.set_state(LogState::Damaged(damage));
            }
            None => opened.follower = Some(follower),
        }
        Ok(opened)
    }

    /// As [`Self::judge`], beside a writer.
    fn judge_beside_writer(&mut self, last: &Last) -> Result<(), OpenError> {
        let number = last.header.number;
        let tail = scan_beside_writer(&last.header, &last.file, &mut |_| {})
            .map_err(OpenError::io(format!("read segment {number}")))?;
        self.report.clean = tail.clean;
        if tail.end != ScanEnd::Sealed || !self.has_rolled(last.header.number)? {
            self.judge(last, &tail);
        }
        Ok(())
    }

    /// Whether the segment after a sealed one is active by now; else what is there in its place.
    /// The file is there before SEAL is, and its header before its groups, but what is read first
    /// may be older than what is read next: the second look is sure.
    fn has_rolled(&mut self, sealed: u64) -> Result<bool, OpenError> {
        for _ in 0..2 {
            let numbers = Folder::read(&self.env)?.segments;
            let chain = place(&*self.env.storage, &numbers, Some(self.log_id))?;
            if chain.placed.len() as u64 > sealed {
                return Ok(true);
            }
            self.chain.last_file = chain.last_file;
        }
        Ok(false)
    }
}
