//! A worker's way to the store: the log that all share, or a connection of its own, which the
//! worker's thread drives itself, so that no other thread is woken on the way.

use std::pin::Pin;
use std::time::Duration;

use futures::executor::block_on;
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
    runtime: Option<Runtime>,
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
            Self::Server(address) => {
                let runtime = Builder::new_current_thread().enable_all().build();
                let runtime = runtime.map_err(|error| {
                    Failure::Unreachable(format!("cannot wait for a connection: {error}"))
                })?;
                let remote = connect_on(&runtime, address, RemoteOptions::default())?;
                Ok(Session { store: Box::new(remote), runtime: Some(runtime) })
            }
        }
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

impl Session {
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

    /// As [`wait::until`].
    pub(crate) fn until<F: Future>(
        &self,
        future: Pin<&mut F>,
        deadline: Duration,
    ) -> Option<F::Output> {
        let Some(runtime) = &self.runtime else { return wait::until(future, deadline) };
        let left = deadline.saturating_sub(now());
        runtime.block_on(async { tokio::time::timeout(left, future).await.ok() })
    }

    /// Waits until [`now`] reaches `deadline`; what is under way goes on.
    pub(crate) fn pause_until(&self, deadline: Duration) {
        self.until(std::pin::pin!(std::future::pending::<()>()), deadline);
    }
}
