//! Drives the clients of a rival: all on one thread of an async runtime, or a thread each.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::executor::block_on;
use futures::future::try_join_all;
use tokio::time::{sleep, timeout};

use crate::clock;
use crate::events::{Append, Events};
use crate::figures::Tally;
use crate::workload::{LIVE_PER_S, Shape};

/// How long a live subscriber may take for what has been appended.
const DELIVERED_WITHIN: Duration = Duration::from_secs(10);

/// Appends, one after another.
pub(crate) trait Client {
    /// Answers when the append is on stable storage.
    fn append(&mut self, append: &Append) -> impl Future<Output = Result<()>>;
}

/// Follows what is appended.
pub(crate) trait Listener {
    /// When the next events were made, in microseconds since 1970.
    fn next(&mut self) -> impl Future<Output = Result<Vec<i64>>>;
}

/// Keeps all clients busy for a while, on this thread.
pub(crate) async fn appending<C: Client>(
    clients: &mut [C],
    shape: Shape,
    duration: Duration,
) -> Result<Tally> {
    let events: Vec<Events> = clients.iter().map(|_| Events::new(shape.clients)).collect();
    measured(async {
        let clients = clients.iter_mut().zip(events);
        try_join_all(clients.map(|(it, events)| busy(it, events, shape.batch, duration))).await
    })
    .await
}

/// The same with a thread for each client.
pub(crate) fn appending_on_threads<C: Client + Send>(
    clients: &mut [C],
    shape: Shape,
    duration: Duration,
) -> Result<Tally> {
    let events: Vec<Events> = clients.iter().map(|_| Events::new(shape.clients)).collect();
    block_on(measured(async {
        std::thread::scope(|scope| {
            let clients = clients.iter_mut().zip(events);
            let threads: Vec<_> = clients
                .map(|(it, events)| {
                    scope.spawn(move || block_on(busy(it, events, shape.batch, duration)))
                })
                .collect();
            let ended = threads.into_iter().map(std::thread::ScopedJoinHandle::join);
            ended.map(|it| it.expect("a client does not panic")).collect()
        })
    }))
}

async fn measured(clients: impl Future<Output = Result<Vec<Tally>>>) -> Result<Tally> {
    let started = clock::now();
    let tallies = clients.await?;
    let mut all = Tally::nothing();
    all.seconds = started.elapsed().as_secs_f64();
    for tally in &tallies {
        all.add(tally);
    }
    Ok(all)
}

async fn busy<C: Client>(
    client: &mut C,
    mut events: Events,
    batch: usize,
    duration: Duration,
) -> Result<Tally> {
    let mut tally = Tally::nothing();
    let stop_at = clock::now() + duration;
    while clock::now() < stop_at {
        let append = events.append(batch);
        let started = clock::now();
        client.append(&append).await?;
        tally.record(batch as u64, started.elapsed());
    }
    Ok(tally)
}

/// Appends at a steady, low rate, and hears how soon a subscriber gets each event.
pub(crate) async fn live<C: Client, L: Listener>(
    client: &mut C,
    listener: &mut L,
    duration: Duration,
) -> Result<Tally> {
    let appends = duration.as_secs() * LIVE_PER_S;
    let started = clock::now();
    let appending = async {
        let mut events = Events::new(1);
        for number in 0..appends {
            let due = started + Duration::from_secs(1).mul_f64(as_f64(number) / as_f64(LIVE_PER_S));
            sleep(due.saturating_duration_since(clock::now())).await;
            client.append(&events.append(1)).await?;
        }
        Ok(())
    };
    let listening = async {
        let mut tally = Tally::nothing();
        while tally.events < appends {
            for created_us in listener.next().await? {
                let late_us = (clock::unix_us() - created_us).max(0);
                tally.record(1, Duration::from_micros(late_us.unsigned_abs()));
            }
        }
        ensure!(tally.events == appends, "{} events for {appends} appends", tally.events);
        Ok(tally)
    };
    let both = futures::future::try_join(appending, listening);
    let within = duration + DELIVERED_WITHIN;
    let ((), mut tally) = timeout(within, both).await.context("events were not delivered")??;
    tally.seconds = started.elapsed().as_secs_f64();
    Ok(tally)
}

#[expect(clippy::cast_precision_loss, reason = "a schedule need not be exact to the nanosecond")]
fn as_f64(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
    use uuid::Uuid;

    use super::*;

    /// A store that knows nothing but versions, and tells a listener.
    struct Memory(HashMap<Uuid, u64>, UnboundedSender<i64>);

    impl Client for Memory {
        async fn append(&mut self, append: &Append) -> Result<()> {
            let version = self.0.entry(append.aggregate_id).or_default();
            ensure!(*version == append.expected_version, "a conflict");
            for event in &append.events {
                *version += 1;
                ensure!(*version == event.version, "versions have a gap");
                self.1.send(event.created_us).ok();
            }
            tokio::task::yield_now().await;
            Ok(())
        }
    }

    impl Listener for UnboundedReceiver<i64> {
        async fn next(&mut self) -> Result<Vec<i64>> {
            Ok(self.recv().await.into_iter().collect())
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn all_clients_append_what_follows_their_last() {
        let (told, _listener) = unbounded_channel();
        let mut clients = [Memory(HashMap::new(), told.clone()), Memory(HashMap::new(), told)];
        let shape = Shape { clients: 2, batch: 3 };
        let tally = appending(&mut clients, shape, Duration::from_millis(20)).await.unwrap();
        let stored: u64 = clients.iter().flat_map(|client| client.0.values()).sum();
        assert_eq!((tally.events, tally.events % 3), (stored, 0));
        assert!(clients.iter().all(|client| !client.0.is_empty()));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_listener_hears_every_event_once() {
        let (told, mut listener) = unbounded_channel();
        let mut client = Memory(HashMap::new(), told);
        let tally = live(&mut client, &mut listener, Duration::from_secs(1)).await.unwrap();
        assert_eq!(tally.events, LIVE_PER_S);
    }
}
