//! The files of a log's folder, by kind, as opening finds them.

use super::chain::place;
use crate::error::OpenError;
use crate::shared::Environment;
use crate::storage::FileKind;

/// The files of a folder, by kind.
pub(super) struct Folder {
    pub(super) has_marker: bool,
    pub(super) segments: Vec<u64>,
    /// First and last segments of runs.
    pub(super) runs: Vec<(u64, u64)>,
    pub(super) temporary: Vec<String>,
    pub(super) unknown: Vec<String>,
}

impl Folder {
    pub(super) fn read(env: &Environment) -> Result<Self, OpenError> {
        let mut folder = Self {
            has_marker: false,
            segments: vec![],
            runs: vec![],
            temporary: vec![],
            unknown: vec![],
        };
        let files = env.storage.list().map_err(OpenError::io("list the folder"))?;
        for file in files {
            match FileKind::of(&file.name) {
                FileKind::Marker => folder.has_marker = true,
                FileKind::Segment(number) => folder.segments.push(number),
                FileKind::Run(first, last) => folder.runs.push((first, last)),
                FileKind::Temporary => folder.temporary.push(file.name),
                FileKind::Unknown => folder.unknown.push(file.name),
                FileKind::Lock | FileKind::Index(_) | FileKind::Torn => {}
            }
        }
        folder.segments.sort_unstable();
        folder.unknown.sort_unstable();
        Ok(folder)
    }

    /// Whether no log was ever completed here: then one may be made.
    pub(super) fn is_new(&self, env: &Environment) -> Result<bool, OpenError> {
        if self.has_marker {
            return Ok(false);
        }
        self.refuse_foreign()?;
        match self.segments.as_slice() {
            [] => Ok(true),
            // Creation was interrupted before the first header was whole.
            [1] => Ok(place(&*env.storage, &[1], None)?.is_half_made()),
            _ => Ok(false),
        }
    }

    pub(super) fn refuse_foreign(&self) -> Result<(), OpenError> {
        match self.unknown.first() {
            Some(found) if !self.has_marker && self.segments.is_empty() => {
                Err(OpenError::NotALog { found: found.clone() })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn remove_temporary(&self, env: &Environment) -> Result<(), OpenError> {
        for name in &self.temporary {
            match env.storage.remove(name) {
                // Another process that only tried to open the log has removed its own.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                other => other.map_err(OpenError::io(format!("remove {name}")))?,
            }
        }
        Ok(())
    }
}
