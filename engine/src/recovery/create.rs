//! Makes a new log: segment 1 with its header, and then the file that says that the folder is one.

use quipu_types::{Position, Timestamp, Uuid};

use super::repair;
use crate::commit::head::Head;
use crate::commit::preparer::{PrepareJob, Prepared};
use crate::error::OpenError;
use crate::format::segment_header::SegmentHeader;
use crate::format::{BLOCK_BYTES, FORMAT_VERSION, IN_FLIGHT_BYTES_MAX, is_zero};
use crate::options::LogOptions;
use crate::shared::Environment;
use crate::storage::{MARKER_NAME, ReadOrder, Storage, segment_name};

/// Makes segment 1 of a new log, over whatever an interrupted creation has left of it.
///
/// # Errors
/// That the disk refused, or has too little space.
pub fn create(env: &Environment, options: &LogOptions) -> Result<(), OpenError> {
    clear_half_made(&*env.storage)?;
    let bytes = Head::spare_bytes(options.segment_bytes);
    let reserve = options.reserve_bytes();
    let job = PrepareJob::Spare { segment: 1, bytes, reserve };
    let Prepared::Spare(spare) = job.run(&*env.storage) else {
        return Err(OpenError::Unreadable("no segment was prepared".to_owned()));
    };
    let spare =
        spare.map_err(|error| OpenError::Unreadable(format!("cannot create it: {error}")))?;
    let header = SegmentHeader {
        log_id: env.entropy.uuid(),
        segment_id: env.entropy.uuid(),
        number: 1,
        first_position: Position::FIRST,
        epoch: 1,
        created_at: env.clock.now(),
        segment_bytes: options.segment_bytes,
        previous_end: 0,
        previous_chain: 0,
        last_recorded_at: Timestamp::from_micros(0),
    };
    debug_assert!(spare.allocated >= BLOCK_BYTES as u64);
    spare.file.write_durable(0, &header.encode()).map_err(OpenError::io("write segment 1"))?;
    write_marker(&*env.storage, header.log_id)
}

/// Removes what an interrupted creation has left: a file without a valid header and without a
/// group. What it holds is kept in a copy, unless it is zeros.
fn clear_half_made(storage: &dyn Storage) -> Result<(), OpenError> {
    let name = segment_name(1);
    let file = match storage.open(&name) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(OpenError::io(format!("open {name}")))?,
    };
    let content =
        storage.map(&name, ReadOrder::Sequential).map_err(OpenError::io(format!("read {name}")))?;
    if !is_zero(&content) {
        let range = (0, content.len() as u64);
        let copied = usize::try_from(IN_FLIGHT_BYTES_MAX).unwrap_or(usize::MAX);
        let fits = content.get(copied..).is_none_or(is_zero);
        let copy = fits.then(|| repair::keep_copy(storage, &*file, 1, range, 1)).flatten();
        copy.ok_or_else(|| {
            OpenError::Unreadable(format!("{name} is half made, and no copy of it can be kept"))
        })?;
    }
    storage.remove(&name).map_err(OpenError::io(format!("remove {name}")))
}

/// Writes the file that says that the folder is a log.
///
/// # Errors
/// That the disk refused.
pub fn write_marker(storage: &dyn Storage, log_id: Uuid) -> Result<(), OpenError> {
    let text = format!("quipu log\nlog_id: {log_id}\nformat: {FORMAT_VERSION}\n");
    storage.write_atomic(MARKER_NAME, text.as_bytes()).map_err(OpenError::io("write LOG"))
}

/// The log's id, as the file says that says that the folder is a log.
///
/// # Errors
/// That the file is damaged.
pub fn read_marker(storage: &dyn Storage) -> Result<Uuid, OpenError> {
    let bytes =
        storage.map(MARKER_NAME, ReadOrder::Sequential).map_err(OpenError::io("read LOG"))?;
    let damaged = || OpenError::Unreadable("the file LOG is damaged".to_owned());
    let text = str::from_utf8(&bytes).map_err(|_| damaged())?;
    let mut lines = text.lines();
    if lines.next() != Some("quipu log") {
        return Err(damaged());
    }
    let id = lines.next().and_then(|line| line.strip_prefix("log_id: "));
    let id = id.and_then(|id| Uuid::try_parse(id).ok()).ok_or_else(damaged)?;
    let format = lines.next().and_then(|line| line.strip_prefix("format: "));
    match format.and_then(|format| format.parse().ok()) {
        Some(found) if found > FORMAT_VERSION => {
            Err(OpenError::Newer { segment: 0, found, supported: FORMAT_VERSION })
        }
        Some(1..) => Ok(id),
        _ => Err(damaged()),
    }
}
