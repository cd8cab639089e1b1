//! How a log is opened to write to it: what may differ from one machine to the next.

use clap::ValueEnum;
use quipu_client::{Backend, Options};

use crate::units;

/// How to open a log.
#[derive(clap::Args, Clone, Copy)]
pub(crate) struct OpenArgs {
    /// How groups reach the disk; `quipu doctor` compares them.
    #[arg(long, value_enum, value_name = "HOW", default_value_t = Path::Auto)]
    backend: Path,
    /// Memory for the index of ids and versions, such as 512MiB.
    #[arg(long, value_name = "BYTES", default_value = "1GiB", value_parser = units::parse_bytes)]
    index_memory: u64,
}

/// A way to the disk.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Path {
    /// Direct where the file system takes it, else buffered.
    Auto,
    /// `O_DIRECT | O_DSYNC`: past the page cache.
    Direct,
    /// `O_DSYNC` through the page cache.
    Buffered,
    /// Direct, by `io_uring`.
    IoUring,
}

impl OpenArgs {
    /// By this way to the disk.
    pub(crate) fn by(backend: Path) -> Self {
        Self { backend, index_memory: Options::default().log.index_memory }
    }

    /// The settings that these are.
    pub(crate) fn options(self) -> Options {
        let backend = match self.backend {
            Path::Auto => Backend::Auto,
            Path::Direct => Backend::Direct,
            Path::Buffered => Backend::Buffered,
            Path::IoUring => Backend::IoUring,
        };
        let mut options = Options { backend, ..Options::default() };
        options.log.index_memory = self.index_memory;
        options
    }
}
