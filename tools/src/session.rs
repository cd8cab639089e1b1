//! A worker's way to the store: the log that all share, or a connection of its own, which the
//! thread of the worker drives itself, so that no other thread is woken on the way.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::executor::block_on;
use futures::future::{Either, select};
use futures_timer::Delay;
use quipu_client::{Embedded, EventStore, RemoteOptions};
use tokio::runtime::{Builder, Runtime};

use crate::failure::Failure;
use crate::log_args::status_of;
use crate::store_args::{Server, connect_on};
use crate::wait::{self, now};

/// Where workers go.
#[derive(Clone, Copy)]
pub(crate) enum Target<'a> {
    /// All to one log in this process.
    Log(&'a Embedded),
    /// Each to a connection to this server.
    Server(&'a str),
}

/// One worker's way to the store.
pub(crate) struct Session {
    store: Box<dyn EventStore>,
    runtime: Option<Arc<Runtime>>,
}

/// What a store says of itself, where it does.
#[derive(Default)]
pub(crate) struct StoreFigures {
    /// Groups of appends written since it was opened.
    pub(crate) groups: Option<u64>,
    /// Bytes of all segments.
    pub(crate) bytes_on_disk: u64,
}

impl Target<'_> {
    /// A way there.
    pub(crate) fn session(self) -> Result<Session, Failure> {
        match self {
            Self::Log(log) => Ok(Session { store: Box::new(log.clone()), runtime: None }),
            Self::Server(address) => Session::connect(address, &runtime()?),
        }
    }

    /// Ways there for so many workers, by the thread that they are to share: each its own to a
    /// log, `threads` for all to a server.
    pub(crate) fn sessions(self, workers: u64, threads: u64) -> Result<Vec<Vec<Session>>, Failure> {
        let Self::Server(address) = self else {
            return (0..workers).map(|_| Ok(vec![self.session()?])).collect();
        };
        let threads = threads.min(workers);
        let share = |thread: u64| (workers + thread) / threads;
        (0..threads)
            .map(|thread| {
                let runtime = runtime()?;
                (0..share(thread)).map(|_| Session::connect(address, &runtime)).collect()
            })
            .collect()
    }

    /// What the store says of itself now.
    pub(crate) fn figures(self) -> Result<StoreFigures, Failure> {
        match self {
            Self::Log(log) => {
                let status = status_of(log)?;
                let groups = Some(status.counts.groups);
                Ok(StoreFigures { groups, bytes_on_disk: status.bytes_on_disk })
            }
            Self::Server(address) => {
                let status = Server::connect(address, RemoteOptions::default())?.status()?;
                Ok(StoreFigures {
                    groups: status["counts"]["groups"].as_u64(),
                    bytes_on_disk: status["bytes_on_disk"].as_u64().unwrap_or(0),
                })
            }
        }
    }
}

fn runtime() -> Result<Arc<Runtime>, Failure> {
    let runtime = Builder::new_current_thread().enable_all().build();
    let failed = |error| Failure::Unreachable(format!("cannot wait for a connection: {error}"));
    runtime.map(Arc::new).map_err(failed)
}

impl Session {
    fn connect(address: &str, runtime: &Arc<Runtime>) -> Result<Self, Failure> {
        let remote = connect_on(runtime, address, RemoteOptions::default())?;
        Ok(Self { store: Box::new(remote), runtime: Some(Arc::clone(runtime)) })
    }

    /// The store.
    pub(crate) fn store(&self) -> &dyn EventStore {
        &*self.store
    }

    /// Waits for a future.
    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        match &self.runtime {
            Some(runtime) => runtime.block_on(future),
            None => block_on(future),
        }
    }

    /// Waits for a future until [`now`] reaches `deadline`; `None` is late. Without a runtime it
    /// is the thread that waits, as there it serves nobody else.
    pub(crate) async fn until<F: Future>(
        &self,
        future: Pin<&mut F>,
        deadline: Duration,
    ) -> Option<F::Output> {
        if self.runtime.is_none() {
            return wait::until(future, deadline);
        }
        // The runtime's own timer counts whole milliseconds.
        let left = Delay::new(deadline.saturating_sub(now()));
        match select(future, left).await {
            Either::Left((output, _)) => Some(output),
            Either::Right(_) => None,
        }
    }

    /// Waits until [`now`] reaches `deadline`; what is under way goes on.
    pub(crate) async fn pause_until(&self, deadline: Duration) {
        self.until(std::pin::pin!(std::future::pending::<()>()), deadline).await;
    }
}
