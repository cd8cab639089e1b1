//! Damage to what is on the medium.

use quipu_engine::storage::FileKind;

use super::{SimDisk, State};

const BLOCK: usize = 4_096;

impl SimDisk {
    /// Damages one segment: flips a bit, loses a block, or puts another block of the file in its
    /// place (a misdirected write); says what and where.
    pub fn damage(&self) -> Option<String> {
        let mut state = self.state.lock();
        let State { files, rng, .. } = &mut *state;
        let is_segment = |name: &str| matches!(FileKind::of(name), FileKind::Segment(_));
        let names: Vec<&String> = files.keys().filter(|name| is_segment(name)).collect();
        let name = names.get(rng.usize(0..names.len().max(1)))?;
        let bytes = &mut files.get(*name)?.lock().bytes;
        let at = rng.usize(0..bytes.len().max(1));
        let block = at / BLOCK * BLOCK;
        let end = (block + BLOCK).min(bytes.len());
        let what = match rng.u8(0..4) {
            0 => {
                bytes[block..end].fill(0);
                "zeros in the block"
            }
            1 => {
                let from = rng.usize(0..(bytes.len() / BLOCK).max(1)) * BLOCK;
                let to = (from + end - block).min(bytes.len());
                bytes.copy_within(from..to, block);
                "another block in the place of the one"
            }
            _ => {
                *bytes.get_mut(at)? ^= 1 << rng.u8(0..8);
                "a flipped bit"
            }
        };
        Some(format!("{what} at {at} of {name}"))
    }

    /// Flips a bit of something derived, a segment's index or a run: nobody may notice. Says which.
    pub fn damage_index(&self) -> Option<String> {
        let mut state = self.state.lock();
        let State { files, rng, .. } = &mut *state;
        let is_index =
            |name: &str| matches!(FileKind::of(name), FileKind::Index(_) | FileKind::Run(..));
        let names: Vec<&String> = files.keys().filter(|name| is_index(name)).collect();
        let name = names.get(rng.usize(0..names.len().max(1)))?;
        let bytes = &mut files.get(*name)?.lock().bytes;
        let at = rng.usize(0..bytes.len().max(1));
        *bytes.get_mut(at)? ^= 1 << rng.u8(0..8);
        Some(format!("a flipped bit at {at} of {name}"))
    }
}
