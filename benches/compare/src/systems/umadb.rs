//! UmaDB: an event store for dynamic consistency boundaries, over gRPC.

use std::collections::HashMap;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::StreamExt;
use futures::future::try_join_all;
use rustix::process::Signal;
use tokio::runtime::Runtime;
use umadb_client::{AsyncUmaDbClient, UmaDbClient};
use umadb_dcb::{
    DcbAppendCondition, DcbEvent, DcbEventStoreAsync, DcbQuery, DcbQueryItem, DcbSubscriptionAsync,
};
use uuid::Uuid;

use super::{Environment, Maker, Meter, Running, one_thread, umadb_program};
use crate::clock;
use crate::driver::{Client, Listener, appending, live};
use crate::events::{AGGREGATE_TYPE, Append, EVENT_TYPE, Event};
use crate::figures::{Figures, Tally};
use crate::folder::Folder;
use crate::process::{Server, free_port, tied};
use crate::workload::Workload;

const CREATED_KEY: &str = "created_us";

/// The server, and where it listens.
pub(super) struct UmaDb {
    runtime: Runtime,
    url: String,
    // Stopped before its folder goes.
    server: Server,
    folder: Folder,
}

struct Connection {
    client: AsyncUmaDbClient,
    /// The position of the last event of each aggregate.
    last_positions: HashMap<Uuid, u64>,
}

struct Follower(Box<dyn DcbSubscriptionAsync + Send>);

impl UmaDb {
    pub(super) fn start(environment: &Environment, folder: Folder) -> Result<Self> {
        let address = format!("127.0.0.1:{}", free_port()?);
        let mut command = tied(umadb_program(environment)?, None);
        command.args(["--listen", &address, "--db-path"]).arg(folder.path());
        command.args(environment.arguments(Maker::Umadb));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut server = Server::start(&mut command, "umadb", Signal::TERM)?;
        let (runtime, url) = (one_thread()?, format!("http://{address}"));
        server.until_ready(|| runtime.block_on(connect(&url)))?;
        Ok(Self { runtime, url, server, folder })
    }

    async fn client(&self) -> Result<Connection> {
        let client = connect(&self.url).await?;
        Ok(Connection { client, last_positions: HashMap::new() })
    }

    async fn scan(&self, duration: Duration) -> Result<Tally> {
        let client = connect(&self.url).await?;
        let started = clock::now();
        let mut tally = Tally::nothing();
        let mut events = client.read(None, None, false, None).await?;
        while started.elapsed() < duration {
            let batch = events.next_batch().await?;
            if batch.is_empty() {
                break;
            }
            tally.events += batch.len() as u64;
        }
        tally.seconds = started.elapsed().as_secs_f64();
        Ok(tally)
    }

    async fn live(&self, duration: Duration) -> Result<Tally> {
        let subscriber = connect(&self.url).await?;
        let head = subscriber.head().await?;
        let mut listener = Follower(subscriber.subscribe(None, head).await?);
        live(&mut self.client().await?, &mut listener, duration).await
    }
}

impl Running for UmaDb {
    fn measure(&mut self, workload: Workload, duration: Duration) -> Result<Option<Figures>> {
        let meter = Meter::start(&self.server, &self.folder);
        let tally = self.runtime.block_on(async {
            match (workload.shape(), workload) {
                (Some(shape), _) => {
                    let clients = (0..shape.clients).map(|_| self.client());
                    appending(&mut try_join_all(clients).await?, shape, duration).await
                }
                (None, Workload::CatchUp) => self.scan(duration).await,
                (None, _) => self.live(duration).await,
            }
        })?;
        Ok(Some(meter.figures(workload, &tally, &self.server, &self.folder)))
    }
}

impl Client for Connection {
    async fn append(&mut self, append: &Append) -> Result<()> {
        let tag = format!("{AGGREGATE_TYPE}/{}", append.aggregate_id);
        let of_aggregate = DcbQuery::new().item(DcbQueryItem::new().tags([&tag]));
        let after = self.last_positions.get(&append.aggregate_id).copied();
        let condition = DcbAppendCondition::new(of_aggregate).after(after);
        let events = append.events.iter().map(|event| made(event, &tag)).collect();
        let position = self.client.append(events, Some(condition), None).await?;
        self.last_positions.insert(append.aggregate_id, position);
        Ok(())
    }
}

impl Listener for Follower {
    async fn next(&mut self) -> Result<Vec<i64>> {
        let stored = self.0.next().await.context("the subscription has ended")??;
        let mut metadata = stored.event.metadata.iter();
        let created = metadata.find(|(key, _)| key == CREATED_KEY);
        let (_, created) = created.context("an event has the time it was made")?;
        Ok(vec![created.parse()?])
    }
}

async fn connect(url: &str) -> Result<AsyncUmaDbClient> {
    Ok(UmaDbClient::new(url.to_owned()).connect_async().await?)
}

fn made(event: &Event, tag: &str) -> DcbEvent {
    DcbEvent::new()
        .uuid(event.id)
        .event_type(EVENT_TYPE)
        .tags([tag])
        .data(event.payload.as_bytes())
        .metadata([
            (CREATED_KEY, event.created_us.to_string()),
            ("version", event.version.to_string()),
            ("correlation_id", event.correlation_id.clone()),
            ("causation_id", event.causation_id.clone()),
        ])
}
