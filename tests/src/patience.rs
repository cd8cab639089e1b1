//! Tests that hang fail: what they wait for comes within a bound.

use std::time::Duration;

use futures::future::{Either, select};
use futures_timer::Delay;

/// Longer than anything a test waits for on the slowest machine.
pub const PATIENCE: Duration = Duration::from_mins(5);

/// What the future gives.
///
/// # Panics
/// If nothing comes.
#[track_caller]
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    match futures::executor::block_on(select(Box::pin(future), Delay::new(PATIENCE))) {
        Either::Left((value, _)) => value,
        Either::Right(_) => panic!("nothing came within {PATIENCE:?}"),
    }
}
