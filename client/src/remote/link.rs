//! Keeps a connection: connects again when it is lost, and ends only for good reasons.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::error::{ConnectError, Ending};
use super::handshake::{Connection, connect};
use super::session;
use super::shared::Shared;

const PAUSE_MIN: Duration = Duration::from_millis(100);
/// How often in their time-out requests are looked at.
const LOOKS: u32 = 8;
const LOOK_EVERY_MAX: Duration = Duration::from_secs(1);

/// Runs until there can be no connection any more.
pub(super) fn run(
    shared: Arc<Shared>,
    first: Connection,
) -> impl Future<Output = ()> + Send + 'static {
    // However this ends, also with the runtime it runs on and before it ran, nobody waits for ever.
    let ended = Ended(shared);
    async move {
        let shared = &*ended.0;
        let ending = tokio::select! {
            ending = keep_connected(shared, first) => ending,
            never = expire(shared) => match never {},
        };
        shared.end(&ending);
    }
}

struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.end(&Ending::Closed);
    }
}

/// What a host does with messages is its own code: one that panics, as the usual one does where
/// standard error cannot be written, must not take the connection along.
fn tell(message: impl FnOnce()) {
    catch_unwind(AssertUnwindSafe(message)).ok();
}

async fn keep_connected(shared: &Shared, first: Connection) -> Ending {
    let mut connection = first;
    loop {
        let problem = session::run(shared, connection).await;
        tell(|| tracing::warn!(server = %shared.address, %problem, "connection lost"));
        shared.lost(problem);
        connection = match reconnect(shared).await {
            Ok(connection) => connection,
            Err(ending) => return ending,
        };
        tell(|| tracing::info!(server = %shared.address, "connected again"));
    }
}

/// Tries until there is a connection, or a reason why there never will be.
async fn reconnect(shared: &Shared) -> Result<Connection, Ending> {
    let mut pause = PAUSE_MIN;
    loop {
        sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        pause = (pause * 2).min(shared.options.reconnect_pause_max.max(PAUSE_MIN));
        match connect(&shared.address, &shared.options, Some(shared.log_id)).await {
            Ok(connection) => return Ok(connection),
            Err(ConnectError::OtherLog { expected, actual, .. }) => {
                let server = &shared.address;
                tell(|| tracing::error!(%server, %expected, %actual, "another log"));
                return Err(Ending::OtherLog { expected, actual });
            }
            Err(error) if error.is_retryable() => shared.set_problem(error.to_string()),
            Err(error) => return Err(Ending::Incompatible(error.to_string())),
        }
    }
}

async fn expire(shared: &Shared) -> std::convert::Infallible {
    let every = (shared.options.timeout / LOOKS).min(LOOK_EVERY_MAX);
    loop {
        sleep(every.max(Duration::from_millis(1))).await;
        shared.expire(Instant::now());
    }
}
