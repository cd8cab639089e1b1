//! Real and hostile event files that lie beside a checkout, where they are there.
#![expect(clippy::print_stderr, reason = "a skipped test says so loudly")]

use std::path::{Path, PathBuf};

/// A data file, or `None` with a loud line: a clone elsewhere does not have them.
pub fn file(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data").join(name);
    if path.exists() {
        return Some(path);
    }
    eprintln!("SKIPPED: {name} is not there (it lies beside the checkout, in ../shared/data)");
    None
}
