//! The scheduling class that the threads which write have obtained.
#![expect(clippy::disallowed_methods, reason = "the kernel says it in /proc, which is no log")]

use std::path::Path;

/// Name of the engine's threads that write.
const WRITER: &str = "quipu-commit";
/// Where the class is among the fields that follow the thread's name.
const POLICY_FIELD: usize = 38;

/// The class of the threads that write, in words; `unknown` where the system does not say.
pub(crate) fn class() -> &'static str {
    let tasks = std::fs::read_dir("/proc/self/task");
    let found = tasks.into_iter().flatten().flatten().find_map(|task| policy_of(&task.path()));
    match found {
        Some(0) => "other",
        Some(1) => "fifo",
        Some(2) => "round_robin",
        Some(3) => "batch",
        Some(5) => "idle",
        Some(6) => "deadline",
        _ => "unknown",
    }
}

fn policy_of(task: &Path) -> Option<u32> {
    let stat = std::fs::read_to_string(task.join("stat")).ok()?;
    let (head, fields) = stat.rsplit_once(')')?;
    if !head.ends_with(WRITER) {
        return None;
    }
    fields.split_whitespace().nth(POLICY_FIELD)?.parse().ok()
}
