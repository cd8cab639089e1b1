//! `PostgreSQL` with the classic `event_store` table, in a private cluster.

use std::path::PathBuf;
use std::pin::pin;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use futures::{StreamExt, stream};
use rustix::process::Signal;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_postgres::binary_copy::{BinaryCopyInWriter, BinaryCopyOutStream};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, NoTls, Statement};

use super::{Environment, Maker, Meter, Running, one_thread};
use crate::clock;
use crate::driver::{Client, Listener, appending, live};
use crate::events::{AGGREGATE_TYPE, Append, EVENT_TYPE, Event};
use crate::figures::{Figures, Tally};
use crate::folder::{Folder, newest_bin, read};
use crate::process::{Server, free_port, output_of, tied};
use crate::systems::jsonb::Jsonb;
use crate::workload::Workload;

/// No checkpoint falls into a run, nothing is kept for replicas, commits gather where many wait.
const OPTIONS: [&str; 12] = [
    "fsync=on",
    "synchronous_commit=on",
    "full_page_writes=on",
    "shared_buffers=2GB",
    "max_wal_size=16GB",
    "min_wal_size=4GB",
    "wal_buffers=64MB",
    "checkpoint_timeout=30min",
    "wal_level=minimal",
    "max_wal_senders=0",
    "jit=off",
    "max_connections=100",
];

const TABLE: &str = "
    CREATE TABLE event_store (
        sequence_number BIGSERIAL PRIMARY KEY,
        id UUID NOT NULL UNIQUE,
        aggregate_id VARCHAR(255) NOT NULL,
        aggregate_type VARCHAR(100) NOT NULL,
        event_type VARCHAR(100) NOT NULL,
        event_data JSONB NOT NULL,
        metadata JSONB NOT NULL,
        version INTEGER NOT NULL,
        created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
        UNIQUE (aggregate_id, version)
    );
    CREATE INDEX ON event_store (event_type, created_at);
    CREATE INDEX ON event_store (created_at);";

const COLUMNS: &str =
    "id, aggregate_id, aggregate_type, event_type, event_data, metadata, version, created_at";
const TYPES: [Type; 8] = [
    Type::UUID,
    Type::VARCHAR,
    Type::VARCHAR,
    Type::VARCHAR,
    Type::JSONB,
    Type::JSONB,
    Type::INT4,
    Type::TIMESTAMPTZ,
];
const PAGE: i64 = 1_000;

/// How an append of several events is written, and all are read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Bulk {
    Unnest,
    Copy,
}

/// How it is set up.
pub(super) fn settings(bulk: Bulk) -> String {
    match bulk {
        Bulk::Unnest => format!(
            "`{}`; `event_store` with UNIQUE(aggregate_id, version) and four more indexes; \
             prepared statements, an append of 100 is one INSERT from `unnest`; reading in pages \
             of 1,000; live by LISTEN/NOTIFY; a connection a client",
            OPTIONS.join(", ")
        ),
        Bulk::Copy => "the same, but by binary COPY, in and out".to_owned(),
    }
}

/// Where the programs are.
pub(super) fn bin() -> Result<PathBuf> {
    newest_bin("/usr/lib/postgresql").context("PostgreSQL is not installed")
}

/// The last line of the file that names the server's process says how far it is.
fn ready(pid_file: &str) -> Result<()> {
    let status = pid_file.lines().nth(7).unwrap_or_default().trim();
    ensure!(status == "ready", "it says {status:?}");
    Ok(())
}

/// The server, and how to connect to it.
pub(super) struct Postgres {
    runtime: Runtime,
    config: tokio_postgres::Config,
    bulk: Bulk,
    // Stopped before its folder goes.
    server: Server,
    folder: Folder,
}

struct Connection {
    client: tokio_postgres::Client,
    insert: Statement,
    insert_many: Statement,
    copy: Option<Statement>,
}

/// Inserts and says so in one transaction.
struct Notifier {
    client: tokio_postgres::Client,
    insert: Statement,
}

struct Follower {
    client: tokio_postgres::Client,
    select: Statement,
    after: i64,
    notified: UnboundedReceiver<()>,
}

impl Postgres {
    pub(super) fn start(environment: &Environment, folder: Folder, bulk: Bulk) -> Result<Self> {
        let user = rustix::process::geteuid().is_root().then_some("postgres");
        user.map_or(Ok(()), |user| folder.give_to(user))?;
        let (bin, data) = (bin()?, folder.path().join("data"));
        let mut initdb = tied(&bin.join("initdb"), user);
        initdb.args(["--auth", "trust", "--username", "postgres", "--no-locale"]);
        output_of(initdb.args(["--encoding", "UTF8", "--pgdata"]).arg(&data))?;
        let port = free_port()?;
        let mut command = tied(&bin.join("postgres"), user);
        command.arg("-D").arg(&data).args(["-p", &port.to_string()]);
        let sockets = format!("unix_socket_directories={}", folder.path().display());
        let local = ["listen_addresses=127.0.0.1", &sockets, "log_min_messages=fatal"];
        command.args(local.iter().chain(&OPTIONS).flat_map(|option| ["-c", option]));
        command.args(environment.arguments(Maker::Postgres)).stdout(Stdio::null());
        let mut server = Server::start(&mut command, "postgres", Signal::QUIT)?;
        let runtime = one_thread()?;
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(port).user("postgres").dbname("postgres");
        server.until_ready(|| ready(&read(&data.join("postmaster.pid"))?))?;
        runtime.block_on(async {
            let client = connect(&config).await?;
            client.batch_execute(TABLE).await.context("cannot make the table")
        })?;
        Ok(Self { runtime, config, bulk, server, folder })
    }

    async fn client(&self) -> Result<Connection> {
        let client = connect(&self.config).await?;
        let insert = client.prepare_typed(&insert_one(), &TYPES).await?;
        let insert_many = client.prepare(&insert_many()).await?;
        let copy = format!("COPY event_store ({COLUMNS}) FROM STDIN BINARY");
        let copy = match self.bulk {
            Bulk::Copy => Some(client.prepare(&copy).await?),
            Bulk::Unnest => None,
        };
        Ok(Connection { client, insert, insert_many, copy })
    }

    async fn scan_pages(&self, duration: Duration) -> Result<Tally> {
        let client = connect(&self.config).await?;
        let select = client.prepare(&select_after(PAGE)).await?;
        let started = clock::now();
        let (mut tally, mut after) = (Tally::nothing(), 0_i64);
        while started.elapsed() < duration {
            let rows = client.query(&select, &[&after]).await?;
            let Some(last) = rows.last() else { break };
            (tally.events, after) = (tally.events + rows.len() as u64, last.try_get(0)?);
        }
        tally.seconds = started.elapsed().as_secs_f64();
        Ok(tally)
    }

    async fn scan_copy(&self, duration: Duration) -> Result<Tally> {
        let client = connect(&self.config).await?;
        let copy = format!(
            "COPY (SELECT sequence_number, {COLUMNS} FROM event_store ORDER BY sequence_number) \
             TO STDOUT BINARY"
        );
        let started = clock::now();
        let mut tally = Tally::nothing();
        let types = [&[Type::INT8][..], &TYPES].concat();
        let rows = BinaryCopyOutStream::new(client.copy_out(&copy).await?, &types);
        let mut rows = pin!(rows);
        while let Some(row) = rows.next().await {
            row?;
            tally.events += 1;
            if tally.events.is_multiple_of(1_000) && started.elapsed() > duration {
                break;
            }
        }
        tally.seconds = started.elapsed().as_secs_f64();
        Ok(tally)
    }

    async fn live(&self, duration: Duration) -> Result<Tally> {
        let client = connect(&self.config).await?;
        let notify = format!(
            "WITH stored AS ({} RETURNING sequence_number) \
             SELECT pg_notify('stored', sequence_number::text) FROM stored",
            insert_one()
        );
        let insert = client.prepare_typed(&notify, &TYPES).await?;
        let mut listener = Follower::start(&self.config).await?;
        live(&mut Notifier { client, insert }, &mut listener, duration).await
    }

    async fn work(&self, workload: Workload, duration: Duration) -> Result<Option<Tally>> {
        Ok(Some(match (workload, self.bulk) {
            (Workload::CatchUp, Bulk::Unnest) => self.scan_pages(duration).await?,
            (Workload::CatchUp, Bulk::Copy) => self.scan_copy(duration).await?,
            (Workload::Live, Bulk::Unnest) => self.live(duration).await?,
            (_, Bulk::Unnest) | (Workload::Batches, Bulk::Copy) => {
                let Some(shape) = workload.shape() else { return Ok(None) };
                let clients = (0..shape.clients).map(|_| self.client());
                appending(&mut try_join_all(clients).await?, shape, duration).await?
            }
            (_, Bulk::Copy) => return Ok(None),
        }))
    }
}

impl Running for Postgres {
    fn measure(&mut self, workload: Workload, duration: Duration) -> Result<Option<Figures>> {
        let meter = Meter::start(&self.server, &self.folder);
        let tally = self.runtime.block_on(self.work(workload, duration))?;
        Ok(tally.map(|tally| meter.figures(workload, &tally, &self.server, &self.folder)))
    }
}

impl Client for Connection {
    async fn append(&mut self, append: &Append) -> Result<()> {
        let stored = match (&append.events[..], &self.copy) {
            ([event], _) => insert(&self.client, &self.insert, append, event).await?,
            (_, Some(copy)) => copy_in(&self.client, copy, append).await?,
            (events, None) => {
                let ids: Vec<_> = events.iter().map(|event| event.id).collect();
                let payloads: Vec<_> = events.iter().map(|event| Jsonb(&event.payload)).collect();
                let metadata: Vec<_> = events.iter().map(Event::metadata).collect();
                let metadata: Vec<_> = metadata.iter().map(|text| Jsonb(text)).collect();
                let versions = events.iter().map(version).collect::<Result<Vec<_>>>()?;
                let times: Vec<_> = events.iter().map(created_at).collect();
                let aggregate = append.aggregate_id.to_string();
                let values: [&(dyn ToSql + Sync); 8] = [
                    &aggregate,
                    &AGGREGATE_TYPE,
                    &EVENT_TYPE,
                    &ids,
                    &payloads,
                    &metadata,
                    &versions,
                    &times,
                ];
                self.client.execute(&self.insert_many, &values).await?
            }
        };
        ensure!(stored == append.events.len() as u64, "{stored} rows for an append");
        Ok(())
    }
}

impl Client for Notifier {
    async fn append(&mut self, append: &Append) -> Result<()> {
        let event = append.events.first().context("an append has events")?;
        insert(&self.client, &self.insert, append, event).await?;
        Ok(())
    }
}

impl Follower {
    async fn start(config: &tokio_postgres::Config) -> Result<Self> {
        let (client, mut connection) = config.connect(NoTls).await?;
        let (tell, notified) = unbounded_channel();
        tokio::spawn(async move {
            let mut messages = pin!(stream::poll_fn(|context| connection.poll_message(context)));
            while let Some(Ok(message)) = messages.next().await {
                if matches!(message, AsyncMessage::Notification(_)) && tell.send(()).is_err() {
                    break;
                }
            }
        });
        client.batch_execute("LISTEN stored").await?;
        let last = "SELECT coalesce(max(sequence_number), 0) FROM event_store";
        let after = client.query_one(last, &[]).await?.try_get(0)?;
        let select = client.prepare(&select_after(PAGE)).await?;
        Ok(Self { client, select, after, notified })
    }
}

impl Listener for Follower {
    async fn next(&mut self) -> Result<Vec<i64>> {
        self.notified.recv().await.context("the connection that listens is gone")?;
        let rows = self.client.query(&self.select, &[&self.after]).await?;
        let mut times = Vec::with_capacity(rows.len());
        for row in rows {
            self.after = row.try_get(0)?;
            let created: SystemTime = row.try_get("created_at")?;
            let since = created.duration_since(SystemTime::UNIX_EPOCH)?;
            times.push(i64::try_from(since.as_micros())?);
        }
        Ok(times)
    }
}

async fn connect(config: &tokio_postgres::Config) -> Result<tokio_postgres::Client> {
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

fn insert_one() -> String {
    format!("INSERT INTO event_store ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)")
}

/// The events of an append are of one aggregate.
fn insert_many() -> String {
    format!(
        "INSERT INTO event_store ({COLUMNS}) SELECT id, $1, $2, $3, data, metadata, version, \
         created FROM unnest($4::uuid[], $5::jsonb[], $6::jsonb[], $7::int[], $8::timestamptz[]) \
         AS events (id, data, metadata, version, created)"
    )
}

fn select_after(limit: i64) -> String {
    format!(
        "SELECT sequence_number, {COLUMNS} FROM event_store WHERE sequence_number > $1 \
         ORDER BY sequence_number LIMIT {limit}"
    )
}

async fn insert(
    client: &tokio_postgres::Client,
    statement: &Statement,
    append: &Append,
    event: &Event,
) -> Result<u64> {
    let (aggregate, metadata) = (append.aggregate_id.to_string(), event.metadata());
    let (version, created_at) = (version(event)?, created_at(event));
    let values: [&(dyn ToSql + Sync); 8] = [
        &event.id,
        &aggregate,
        &AGGREGATE_TYPE,
        &EVENT_TYPE,
        &Jsonb(&event.payload),
        &Jsonb(&metadata),
        &version,
        &created_at,
    ];
    Ok(client.execute(statement, &values).await?)
}

async fn copy_in(
    client: &tokio_postgres::Client,
    copy: &Statement,
    append: &Append,
) -> Result<u64> {
    let aggregate = append.aggregate_id.to_string();
    let mut writer = pin!(BinaryCopyInWriter::new(client.copy_in(copy).await?, &TYPES));
    for event in &append.events {
        let (metadata, version, created_at) =
            (event.metadata(), version(event)?, created_at(event));
        let row: [&(dyn ToSql + Sync); 8] = [
            &event.id,
            &aggregate,
            &AGGREGATE_TYPE,
            &EVENT_TYPE,
            &Jsonb(&event.payload),
            &Jsonb(&metadata),
            &version,
            &created_at,
        ];
        writer.as_mut().write(&row).await?;
    }
    Ok(writer.finish().await?)
}

fn version(event: &Event) -> Result<i32> {
    Ok(i32::try_from(event.version)?)
}

fn created_at(event: &Event) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(event.created_us.unsigned_abs())
}
