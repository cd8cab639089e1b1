//! Redis: one stream of all events, flushed on every write.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Value, cmd, pipe};
use rustix::process::Signal;
use tokio::runtime::Runtime;

use super::{Environment, Maker, Meter, Running, one_thread};
use crate::clock;
use crate::driver::{Client, Listener, appending, live};
use crate::events::{AGGREGATE_TYPE, Append, EVENT_TYPE, Event};
use crate::figures::{Figures, Tally};
use crate::folder::Folder;
use crate::process::{Server, free_port, tied};
use crate::workload::Workload;

const STREAM: &str = "events";
const VERSIONS: &str = "versions";
const PAGE: usize = 1_000;
/// Field names and values of one event.
const FIELDS: usize = 14;
const CREATED_FIELD: &[u8] = b"created_us";

/// The stream's options: a snapshot or a rewrite of the file would only take time from the run.
const OPTIONS: [&str; 10] = [
    "--appendonly",
    "yes",
    "--appendfsync",
    "always",
    "--auto-aof-rewrite-percentage",
    "0",
    "--stream-node-max-bytes",
    "65536",
    "--save",
    "",
];

/// Checks an aggregate's version and appends, all or nothing.
const SCRIPT: &str = r"
    local version = tonumber(redis.call('HGET', KEYS[2], ARGV[1]) or '0')
    if version ~= tonumber(ARGV[2]) then
        return redis.error_reply('CONFLICT: the version is ' .. version)
    end
    local fields = tonumber(ARGV[3])
    for at = 4, #ARGV, fields do
        redis.call('XADD', KEYS[1], '*', unpack(ARGV, at, at + fields - 1))
        version = version + 1
    end
    redis.call('HSET', KEYS[2], ARGV[1], version)
    return version";

/// Whether an append checks the version of its aggregate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    None,
    Script,
}

/// How it is set up.
pub(super) fn settings(check: Check) -> String {
    let how = match check {
        Check::None => "an append of 100 is a pipeline, so not atomic",
        Check::Script => {
            return "the same, with a hash of versions; an append is a Lua script".into();
        }
    };
    let options: Vec<String> = OPTIONS
        .chunks(2)
        .map(|option| format!("{} '{}'", option[0].trim_start_matches('-'), option[1]))
        .collect();
    format!("`{}`; one stream; {how}; a connection a client", options.join(", "))
}

/// The server, and the connections to it.
pub(super) struct Redis {
    runtime: Runtime,
    client: redis::Client,
    check: Check,
    script: String,
    // Stopped before its folder goes.
    server: Server,
    folder: Folder,
}

struct Connection {
    server: MultiplexedConnection,
    check: Check,
    script: String,
}

struct Follower {
    connection: MultiplexedConnection,
    after: String,
}

impl Redis {
    pub(super) fn start(environment: &Environment, folder: Folder, check: Check) -> Result<Self> {
        let port = free_port()?;
        let mut command = tied("redis-server".as_ref(), None);
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string()]).args(OPTIONS);
        command.args(environment.arguments(Maker::Redis));
        command.arg("--dir").arg(folder.path()).stdout(Stdio::null());
        let mut server = Server::start(&mut command, "redis-server", Signal::TERM)?;
        let client = redis::Client::open(format!("redis://127.0.0.1:{port}/"))?;
        let runtime = one_thread()?;
        let load = || {
            runtime.block_on(async {
                let mut connection = connect(&client).await?;
                Ok(cmd("SCRIPT").arg("LOAD").arg(SCRIPT).query_async(&mut connection).await?)
            })
        };
        let script: String = server.until_ready(load)?;
        Ok(Self { runtime, client, check, script, server, folder })
    }

    async fn client(&self) -> Result<Connection> {
        let (check, script) = (self.check, self.script.clone());
        Ok(Connection { server: connect(&self.client).await?, check, script })
    }

    async fn scan(&self, duration: Duration) -> Result<Tally> {
        let mut connection = connect(&self.client).await?;
        let started = clock::now();
        let (mut tally, mut start) = (Tally::nothing(), "-".to_owned());
        while started.elapsed() < duration {
            let mut page = cmd("XRANGE");
            page.arg(STREAM).arg(start).arg("+").arg("COUNT").arg(PAGE);
            let page: Value = page.query_async(&mut connection).await?;
            let Some(entries) = page.as_sequence() else { break };
            let Some(last) = entries.last() else { break };
            tally.events += entries.len() as u64;
            start = format!("({}", entry_id(last)?);
        }
        tally.seconds = started.elapsed().as_secs_f64();
        Ok(tally)
    }

    async fn live(&self, duration: Duration) -> Result<Tally> {
        let connection = connect(&self.client).await?;
        let mut listener = Follower { connection, after: "0".to_owned() };
        listener.skip().await?;
        live(&mut self.client().await?, &mut listener, duration).await
    }
}

impl Running for Redis {
    fn measure(&mut self, workload: Workload, duration: Duration) -> Result<Option<Figures>> {
        if self.check == Check::Script && workload.shape().is_none() {
            return Ok(None); // reading is the same
        }
        let meter = Meter::start(&self.server, &self.folder);
        let tally = self.runtime.block_on(async {
            match (workload.shape(), workload) {
                (Some(shape), _) => {
                    let clients = (0..shape.clients).map(|_| self.client());
                    let mut clients = futures::future::try_join_all(clients).await?;
                    appending(&mut clients, shape, duration).await
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
        let aggregate = append.aggregate_id.to_string();
        let expected = append.expected_version;
        if self.check == Check::Script {
            let mut call = cmd("EVALSHA");
            call.arg(&self.script).arg(2).arg(STREAM).arg(VERSIONS);
            call.arg(&aggregate).arg(expected).arg(FIELDS);
            append.events.iter().for_each(|event| add_fields(&mut call, &aggregate, event));
            let version: u64 = call.query_async(&mut self.server).await?;
            ensure!(version == expected + append.events.len() as u64, "it is at {version}");
            return Ok(());
        }
        let mut calls = pipe();
        for event in &append.events {
            let mut call = cmd("XADD");
            add_fields(call.arg(STREAM).arg("*"), &aggregate, event);
            calls.add_command(call);
        }
        let ids: Vec<Value> = calls.query_async(&mut self.server).await?;
        ensure!(ids.len() == append.events.len(), "{} ids for an append", ids.len());
        Ok(())
    }
}

impl Follower {
    /// To the end of what there is.
    async fn skip(&mut self) -> Result<()> {
        let mut last = cmd("XREVRANGE");
        last.arg(STREAM).arg("+").arg("-").arg("COUNT").arg(1);
        let last: Value = last.query_async(&mut self.connection).await?;
        if let Some(entry) = last.as_sequence().and_then(<[Value]>::last) {
            self.after = entry_id(entry)?;
        }
        Ok(())
    }
}

impl Listener for Follower {
    async fn next(&mut self) -> Result<Vec<i64>> {
        let mut read = cmd("XREAD");
        read.arg("BLOCK").arg(0).arg("STREAMS").arg(STREAM).arg(&self.after);
        let streams: Vec<(String, Vec<Value>)> = read.query_async(&mut self.connection).await?;
        let entries: Vec<Value> = streams.into_iter().flat_map(|(_, entries)| entries).collect();
        if let Some(last) = entries.last() {
            self.after = entry_id(last)?;
        }
        entries.iter().map(created_us).collect()
    }
}

/// A read may block for as long as nothing is appended.
async fn connect(client: &redis::Client) -> Result<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    Ok(client.get_multiplexed_async_connection_with_config(&config).await?)
}

fn add_fields(call: &mut redis::Cmd, aggregate: &str, event: &Event) {
    call.arg("id").arg(event.id.as_bytes());
    call.arg("aggregate").arg(format!("{AGGREGATE_TYPE}/{aggregate}"));
    call.arg("type").arg(EVENT_TYPE).arg("version").arg(event.version);
    call.arg(CREATED_FIELD).arg(event.created_us);
    call.arg("metadata").arg(event.metadata()).arg("data").arg(&event.payload);
}

/// An entry is its id and the list of its fields.
fn entry_id(entry: &Value) -> Result<String> {
    let id = entry.as_sequence().and_then(<[Value]>::first).context("an entry has an id")?;
    Ok(redis::from_redis_value_ref(id)?)
}

fn created_us(entry: &Value) -> Result<i64> {
    let fields = entry.as_sequence().and_then(|entry| entry.get(1)?.as_sequence());
    let mut pairs = fields.unwrap_or_default().chunks(2);
    let is_created =
        |pair: &&[Value]| matches!(&pair[0], Value::BulkString(it) if it == CREATED_FIELD);
    let pair = pairs.find(is_created).context("an entry has the time it was made")?;
    Ok(redis::from_redis_value_ref(pair.get(1).context("a field has a value")?)?)
}
