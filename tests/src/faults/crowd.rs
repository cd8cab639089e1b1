//! The clients of one server, all that they did, and their end.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use fastrand::Rng;
use quipu_client::Position;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::client::{Client, connect, remote_options};
use super::follower::Follower;
use super::phase::Phase;
use super::recorder::{Recorded, Recorder};
use super::workload::{Earlier, Workload};

/// How long the last answers, and the last deliveries, may take once nothing is wrong any more.
const PATIENCE: Duration = Duration::from_mins(1);
/// Numbers of clients: 1 and more those in this process, then subscribers; whoever looks whether it
/// serves.
const FIRST_FOLLOWER: u32 = 101;
pub const PROBE: u32 = 0;
/// Clients in processes of their own.
pub const FIRST_PROCESS: u32 = 1_001;

/// How much load there is.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub clients: u32,
    pub followers: u32,
    /// Operations of each client at once.
    pub in_flight: usize,
    /// Between two operations of a client.
    pub pause: Option<Duration>,
    /// Bytes that an event carries at most, but for a few.
    pub event_bytes: usize,
}

impl Default for Load {
    fn default() -> Self {
        Self { clients: 8, followers: 6, in_flight: 8, pause: None, event_bytes: 300 }
    }
}

/// Clients and subscribers, at work.
pub struct Crowd {
    phase: watch::Sender<Phase>,
    clients: Vec<JoinHandle<Result<Recorded>>>,
    followers: Vec<JoinHandle<Result<Recorded>>>,
}

impl Crowd {
    /// Connects them to a server that is ready.
    pub fn begin(runtime: &Runtime, address: &str, load: Load, seed: u64) -> Self {
        let (phase, orders) = watch::channel(Phase::Work);
        let earlier = Earlier::default();
        let clients = (1..=load.clients).map(|number| {
            let (address, orders) = (address.to_owned(), orders.clone());
            let workload = Workload::new(seed, number, Arc::clone(&earlier), load.event_bytes);
            runtime.spawn(async move {
                let store = connect(&address, remote_options(number)).await?;
                let (in_flight, pause) = (load.in_flight, load.pause);
                let recorder = Recorder::new(number);
                Client { store, workload, recorder, in_flight, pause }.run(orders).await
            })
        });
        let clients = clients.collect();
        let followers = (FIRST_FOLLOWER..FIRST_FOLLOWER + load.followers).map(|number| {
            let (address, orders) = (address.to_owned(), orders.clone());
            let mut rng = Rng::with_seed(seed ^ (u64::from(number) << 32));
            runtime.spawn(async move {
                let store = connect(&address, remote_options(0)).await?;
                let of = (number % 3 == 1).then(|| rng.u32(..8));
                let after = (number % 3 != 2).then_some(Position::START);
                let recorder = Recorder::new(number);
                Follower { store, recorder, rng, of, after }.run(orders).await
            })
        });
        let followers = followers.collect();
        Self { phase, clients, followers }
    }

    /// The clients end; returns when all have their answers.
    pub fn stop(&mut self, runtime: &Runtime) -> Result<Recorded> {
        self.phase.send_replace(Phase::Stop);
        let clients = std::mem::take(&mut self.clients);
        runtime.block_on(join(clients)).context("a client is stuck")
    }

    /// The subscribers end, when they have everything.
    pub fn drain(self, runtime: &Runtime, end: Position) -> Result<Recorded> {
        self.phase.send_replace(Phase::Drain(end));
        let all = runtime.block_on(join(self.followers));
        all.with_context(|| format!("a subscriber is stuck before {end}"))
    }
}

async fn join(tasks: Vec<JoinHandle<Result<Recorded>>>) -> Result<Recorded> {
    let mut all = Recorded::default();
    for task in tasks {
        let abort = task.abort_handle();
        let Ok(recorded) = timeout(PATIENCE, task).await else {
            abort.abort();
            bail!("nothing came in {PATIENCE:?}");
        };
        all.add(recorded??);
    }
    Ok(all)
}
