//! `quipu bench disk`: what the bare disk gives to a program that wants every write durable.
//!
//! The figures of every other benchmark can be quoted as a share of the sustained one.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::ValueEnum;
use hdrhistogram::Histogram;
use rkyv::util::AlignedVec;
use rustix::fs::{FallocateFlags, Mode as Permissions, OFlags};
use rustix::io::Errno;
use serde::Serialize;

use super::from_1_to;
use super::measures::{Percentiles, histogram, record, round};
use crate::failure::Failure;
use crate::output::{Output, whisper};
use crate::random::Random;
use crate::table::{Column, Table};
use crate::units;
use crate::wait::{now, since};

const SIZES: [usize; 4] = [4 * 1024, 64 * 1024, 256 * 1024, 1024 * 1024];
const IN_FLIGHT: [usize; 2] = [1, 2];
/// As much as a log allocates or zeroes before it is written: a burst writes over it again.
const AREA_BYTES: u64 = 256 * 1024 * 1024;
/// A run ends here also if its time is not over.
const RUN_BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;
/// As the log zeroes space ahead of its head.
const ZERO_STEP_BYTES: u64 = 16 * 1024 * 1024;

const EXAMPLES: &str = "Example:
  quipu bench disk --log ./log --seconds 5

burst   writes into space that is zeroed before the clock starts
zeroed  the same, and the zeroing counts: what a log can keep up
fresh   first writes into space that is only allocated: what a log can keep up without zeroing
Writes are O_DIRECT and O_DSYNC where the file system takes that, in a file that is removed.";

/// Where to measure, and how long.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A folder on the disk, which must exist; nothing in it is touched.
    #[arg(long, value_name = "DIR")]
    log: PathBuf,
    /// How long each of the 24 runs takes.
    #[arg(long, value_name = "S", default_value_t = 2, value_parser = from_1_to(3_600))]
    seconds: u64,
    /// Only these kinds of space; default all.
    #[arg(long, value_enum)]
    space: Vec<Space>,
}

/// What the space is like that is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Space {
    /// Zeroed before the clock starts.
    Burst,
    /// Zeroed step by step while the clock runs.
    Zeroed,
    /// Allocated, never written.
    Fresh,
}

#[derive(Serialize)]
struct Run {
    space: Space,
    write_bytes: usize,
    in_flight: usize,
    direct: bool,
    writes: u64,
    seconds: f64,
    mb_per_s: f64,
    latency_us: Percentiles,
}

/// Measures.
pub(crate) fn run(args: &Args, out: &mut Output) -> Result<(), Failure> {
    let all = [Space::Burst, Space::Zeroed, Space::Fresh];
    let spaces = if args.space.is_empty() { &all[..] } else { &args.space[..] };
    let runs = spaces.len() * SIZES.len() * IN_FLIGHT.len();
    whisper(format_args!("{runs} runs of {} s each", args.seconds));
    let mut table = Table::new([
        Column::Text("SPACE"),
        Column::Number("WRITE"),
        Column::Number("IN FLIGHT"),
        Column::Number("MB/S"),
        Column::Number("P50"),
        Column::Number("P99"),
        Column::Number("MAX"),
    ])
    .at_least([6, 9, 9, 7, 8, 8, 9]);
    let mut is_direct = true;
    for &space in spaces {
        for (write_bytes, in_flight) in SIZES.iter().flat_map(|&size| IN_FLIGHT.map(|n| (size, n)))
        {
            let run = measure(args, space, write_bytes, in_flight)
                .map_err(|error| cannot(&args.log, error))?;
            is_direct &= run.direct;
            if out.is_json() {
                out.object(&run)?;
            } else {
                table.write(out, &[row(&run)])?;
            }
            out.flush()?;
        }
    }
    if !is_direct {
        whisper("O_DIRECT is refused here: the writes went through the page cache");
    }
    Ok(())
}

fn row(run: &Run) -> [String; 7] {
    let latency = |micros| units::duration(Duration::from_micros(micros));
    [
        format!("{:?}", run.space).to_lowercase(),
        units::bytes(run.write_bytes as u64),
        run.in_flight.to_string(),
        format!("{:.1}", run.mb_per_s),
        latency(run.latency_us.p50),
        latency(run.latency_us.p99),
        latency(run.latency_us.max),
    ]
}

#[expect(clippy::cast_precision_loss, reason = "rates are not exact")]
fn measure(args: &Args, space: Space, write_bytes: usize, in_flight: usize) -> Result<Run, Errno> {
    let file = ScratchFile::create(&args.log)?;
    match space {
        Space::Burst => file.zero(0, AREA_BYTES)?,
        Space::Zeroed => file.zero(0, ZERO_STEP_BYTES)?,
        Space::Fresh => file.allocate(0, AREA_BYTES)?,
    }
    let started = now();
    let stop_at = started + Duration::from_secs(args.seconds);
    let head = Head { file: &file, space, write_bytes, next: AtomicU64::new(0), stop_at };
    let results: Vec<Result<Histogram<u64>, Errno>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..in_flight).map(|_| scope.spawn(|| head.write())).collect();
        threads.into_iter().map(|thread| thread.join().expect("writing does not panic")).collect()
    });
    let seconds = since(started).as_secs_f64();
    let mut latencies = histogram();
    for result in results {
        latencies += result?;
    }
    let bytes = latencies.len() as f64 * write_bytes as f64;
    Ok(Run {
        space,
        write_bytes,
        in_flight,
        direct: file.is_direct,
        writes: latencies.len(),
        seconds,
        mb_per_s: round(bytes / 1e6 / seconds),
        latency_us: Percentiles::of(&latencies),
    })
}

/// The place that is written next, shared by the threads that keep writes in flight.
struct Head<'a> {
    file: &'a ScratchFile,
    space: Space,
    write_bytes: usize,
    next: AtomicU64,
    stop_at: Duration,
}

impl Head<'_> {
    fn write(&self) -> Result<Histogram<u64>, Errno> {
        let mut latencies = histogram();
        let buffer = random_block(self.write_bytes);
        let write_bytes = self.write_bytes as u64;
        while now() < self.stop_at {
            let offset = self.next.fetch_add(write_bytes, Ordering::Relaxed);
            if offset >= RUN_BYTES_MAX {
                break;
            }
            self.prepare_after(offset)?;
            let offset = if self.space == Space::Burst { offset % AREA_BYTES } else { offset };
            let started = now();
            self.file.write(offset, &buffer)?;
            record(&mut latencies, since(started));
        }
        Ok(latencies)
    }

    /// Whoever comes first to a step makes the one after it ready.
    fn prepare_after(&self, offset: u64) -> Result<(), Errno> {
        match self.space {
            Space::Zeroed if offset.is_multiple_of(ZERO_STEP_BYTES) => {
                self.file.zero(offset + ZERO_STEP_BYTES, ZERO_STEP_BYTES)
            }
            Space::Fresh if offset.is_multiple_of(AREA_BYTES) => {
                self.file.allocate(offset + AREA_BYTES, AREA_BYTES)
            }
            _ => Ok(()),
        }
    }
}

/// A file without a name: its space is free again when the process ends, however it ends.
struct ScratchFile {
    durable: OwnedFd,
    plain: OwnedFd,
    is_direct: bool,
}

impl ScratchFile {
    fn create(folder: &Path) -> Result<Self, Errno> {
        let id = Random::from_entropy().uuid();
        let path = folder.join(format!("bench-disk-{id}.tmp"));
        let open = |flags| {
            let flags = flags | OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
            rustix::fs::open(&path, flags, Permissions::RUSR | Permissions::WUSR)
        };
        let plain = open(OFlags::EXCL)?;
        let durable = open(OFlags::DSYNC | OFlags::DIRECT);
        let is_direct = durable.is_ok();
        let durable = match durable {
            Err(Errno::INVAL) => open(OFlags::DSYNC),
            result => result,
        };
        rustix::fs::unlink(&path)?;
        Ok(Self { durable: durable?, plain, is_direct })
    }

    fn allocate(&self, offset: u64, bytes: u64) -> Result<(), Errno> {
        match rustix::fs::fallocate(&self.plain, FallocateFlags::empty(), offset, bytes) {
            Err(Errno::OPNOTSUPP) => Ok(()),
            result => result,
        }
    }

    /// Writes zeros and flushes once.
    fn zero(&self, offset: u64, bytes: u64) -> Result<(), Errno> {
        let zeros = vec![0; 1024 * 1024];
        self.allocate(offset, bytes)?;
        for at in (offset..offset + bytes).step_by(zeros.len()) {
            write_all(&self.plain, at, &zeros)?;
        }
        rustix::fs::fdatasync(&self.plain)
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        write_all(&self.durable, offset, bytes)
    }
}

fn write_all(file: &OwnedFd, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
    let mut written = 0;
    while written < bytes.len() {
        written += rustix::io::pwrite(file, &bytes[written..], offset + written as u64)?;
    }
    Ok(())
}

fn random_block(bytes: usize) -> AlignedVec<4096> {
    let mut random = Random::from_entropy();
    let mut block = AlignedVec::with_capacity(bytes);
    while block.len() < bytes {
        block.extend_from_slice(&random.bytes());
    }
    block
}

fn cannot(folder: &Path, error: Errno) -> Failure {
    Failure::Unreachable(format!("cannot write in {}: {error}", folder.display()))
}
