//! `quipu replicate` as an operator uses it, and through the kill of everything it depends on.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::disallowed_methods, reason = "a kill comes at a random moment")]

mod support;

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use quipu_client::{
    AggregateKey, Append, EventStore, EventType, NewEvent, Remote, RemoteOptions, encode_event,
};
use quipu_domain::catalogue::{
    CallAttempted, CallCompleted, CallStarted, ConsentGranted, DNCCheckPerformed, PaymentReceived,
};
use quipu_tests::postgres::Cluster;
use quipu_tests::running::Running;
use rustix::process::Signal;
use support::{Place, Serving, line, quipu, run, serve, serve_on, signal};

#[test]
fn tables_are_filled_checked_and_filled_anew() {
    let Some(cluster) = Cluster::shared() else { return };
    let (place, url) = (Place::new(), cluster.database());
    let lines: String = (1..=50_u64).map(|n| line(u128::from(n), "a", n, r#"{"n":1}"#)).collect();
    let file = place.file("events.ndjson", lines);
    run(&format!("import {file} --log {}", place.log)).code(0);
    let here = format!("--log {} --postgres {url}", place.log);
    run(&format!("replicate {here} --catch-up")).code(0);
    assert_eq!(cluster.value(&url, "SELECT count(*) FROM event_store"), "50");
    let status = run(&format!("replicate status {here} --json")).code(0).json();
    assert_eq!(status.len(), 5, "{status:?}");
    assert!(status.iter().all(|it| it["position"] == 50 && it["lag_events"] == 0), "{status:?}");
    run(&format!("replicate status {here}")).code(0).says("event_store").says("50");
    run(&format!("replicate verify {here}")).code(0).says("as the log gives it up to 50");
    cluster.query(&url, "UPDATE event_store SET event_type = 'Hung' WHERE sequence_number = 7");
    let verify = format!("replicate verify event_store {here}");
    run(&verify).code(1).says("NOT as the log").says("Hung").complains("event_store");
    let difference = &run(&format!("{verify} --json")).code(1).json()[0]["difference"];
    assert_eq!(difference["table"], "event_store");
    run(&format!("replicate rebuild event_store {here}")).code(0).says("up to position 50");
    run(&verify).code(0);
}

#[test]
fn what_makes_no_sense_is_said_with_its_exit_code() {
    let Some(cluster) = Cluster::shared() else { return };
    let (place, url) = (Place::new(), cluster.database());
    let file = place.file("events.ndjson", line(1, "a", 1, r#"{"a":"\u0000"}"#));
    run(&format!("import {file} --log {}", place.log)).code(0);
    let here = format!("--log {} --postgres {url}", place.log);
    run("replicate").code(2);
    run(&format!("replicate {here} --projection nonsense")).code(2).complains("event_store");
    run(&format!("replicate --log {} --postgres nonsense", place.log)).code(2);
    let absent = format!("replicate --log {} --postgres postgres://x@127.0.0.1:1/x", place.log);
    run(&absent).code(3).complains("connect");
    let broken = place.file("broken.toml", "[[projection]]\nname = \"a\"\nsparkle = 1\n");
    run(&format!("replicate {here} --sql {broken}")).code(2).complains("sparkle");
    let fail = format!("replicate {here} --catch-up --unfit-json fail");
    run(&fail).code(1).complains("position 1").complains("event_store");
    run(&format!("replicate status {here}")).code(1).says("failed").says("u0000");
    run(&format!("{fail} --park event_store")).code(0).complains("parked");
    run(&format!("replicate status {here}")).code(0);
    run(&format!("replicate {here} --catch-up")).code(0);
    assert_eq!(cluster.value(&url, "SELECT count(*) FROM event_parked"), "1");
}

#[test]
fn the_bench_says_everything_that_is_to_be_known_of_its_speed_and_memory() {
    let Some(cluster) = Cluster::shared() else { return };
    let url = cluster.database();
    let bench = |options: &str| {
        run(&format!("bench replicate --postgres {url} {options} --json")).code(0).json()
    };
    let figures = bench("--events 2000 --runs 2");
    let whats: Vec<_> = figures.iter().filter_map(|it| it["what"].as_str()).collect();
    assert_eq!(whats, ["projections", "mirror", "copy", "insert"]);
    assert!(figures[..4].iter().all(|it| it["events"] == 2_000));
    assert!(figures[..4].iter().all(|it| it["events_per_s"].as_f64().unwrap() > 0.0));
    assert!(figures[4]["mirror_of_copy"].as_f64().unwrap() > 0.0);
    let lag = &bench("--rate 500 --seconds 1 --runs 3")[0];
    assert_eq!((&lag["runs"], &lag["offered_per_s"]), (&3.into(), &500.into()));
    assert!(lag["lag_us"]["p50"].as_u64().unwrap() <= lag["lag_us"]["p99"].as_u64().unwrap());
    let process = &bench("--process --events 2000 --runs 1")[0];
    assert_eq!(process["events"], 2_000);
    assert!(process["peak_rss_bytes"].as_u64().unwrap() > 1 << 20, "{process}");
    let left = "SELECT count(*) FROM pg_namespace WHERE nspname = 'quipu_bench'";
    assert_eq!(cluster.value(&url, left), "0", "nothing is left behind");
}

/// Starts a command line of which nobody hears.
fn silent(line: &str) -> Running {
    let mut quipu = quipu();
    Running::start(quipu.args(line.split(' ')).stdout(Stdio::null()).stderr(Stdio::null()))
}

/// Starts it while somebody holds a table, and sends it signals once it waits; its exit code.
fn interrupted(cluster: &Cluster, url: &str, line: &str, signals: usize) -> Option<i32> {
    let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND database = \
                   (SELECT oid FROM pg_database WHERE datname = current_database())";
    let mut child = silent(line);
    let is_waiting = (0..3_000).any(|_| {
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        cluster.value(url, waiting) != "0"
    });
    assert!(is_waiting, "it waits for a lock");
    let mut code = None;
    for number in 1..=signals {
        assert_eq!(code, None, "the signals before were enough");
        signal(&child, Signal::INT);
        // The last one ends it, however slow the machine is.
        let looks = if number == signals { 600 } else { 40 };
        code = (0..looks).find_map(|_| {
            std::thread::sleep(Duration::from_millis(50));
            child.try_wait().unwrap().map(|status| status.code().unwrap_or(-1))
        });
    }
    child.kill().ok();
    child.wait().unwrap();
    // Postgres does not look after a client while it waits for a lock.
    let left = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity \
                WHERE datname = current_database() AND pid <> pg_backend_pid()";
    cluster.query(url, left);
    code
}

#[test]
fn a_signal_ends_it_also_while_it_waits_for_postgres() {
    let Some(cluster) = Cluster::start(&["max_prepared_transactions=1"]) else { return };
    let (place, url) = (Place::new(), cluster.database());
    let here = format!("--log {} --postgres {url}", place.log);
    let append = format!("append --log {} Call 42 --event-type Rang", place.log);
    run(&append).code(0);
    run(&format!("replicate {here} --catch-up")).code(0);
    run(&append).code(0);
    cluster.query(&url, "BEGIN; LOCK event_store; PREPARE TRANSACTION 'held'");
    let catch_up = format!("replicate {here} --catch-up");
    assert_eq!(interrupted(&cluster, &url, &catch_up, 1), Some(-1), "as any other command");
    let follow = format!("replicate {here}");
    assert_eq!(interrupted(&cluster, &url, &follow, 2), Some(3), "the second signal");
    assert_eq!(
        interrupted(&cluster, &url, &follow, 1),
        Some(0),
        "what Postgres does not do in time"
    );
    cluster.query(&url, "ROLLBACK PREPARED 'held'");
    run(&catch_up).code(0);
    assert_eq!(cluster.value(&url, "SELECT count(*) FROM event_store"), "2");
}

/// How many kills: more of them from the environment.
fn kills() -> u64 {
    std::env::var("REPLICATOR_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(30)
}

/// Everything that may be killed, and is where a test fails; the folder goes last.
struct Victims {
    replicator: Running,
    server: Option<Serving>,
    listen: String,
    cluster: Cluster,
    url: String,
    place: Place,
}

fn replicate(listen: &str, url: &str) -> Running {
    silent(&format!("replicate --server {listen} --postgres {url}"))
}

impl Victims {
    fn kill_any(&mut self) -> &'static str {
        let victim = match fastrand::u8(..3) {
            0 => {
                self.replicator.kill().unwrap();
                "replicator"
            }
            1 => {
                self.server.take().unwrap().kill();
                self.server = Some(serve_on(&self.place.log, &self.listen));
                "server"
            }
            _ => {
                self.cluster.kill();
                self.cluster.restart();
                "Postgres"
            }
        };
        if victim == "replicator" {
            self.replicator.wait().unwrap();
        }
        // One that was started while something was away has ended by itself.
        if victim == "replicator" || self.replicator.try_wait().unwrap().is_some() {
            self.replicator = replicate(&self.listen, &self.url);
        }
        victim
    }
}

/// One call of a number, from its checks to its end, and what else there is about it.
fn events(store: &Remote, number: u64) -> Vec<NewEvent> {
    fn event<E: EventType>(store: &Remote, id: &str, event: &E) -> NewEvent {
        let encoded = encode_event(event).unwrap();
        let key = AggregateKey::new(E::AGGREGATE_TYPE, id);
        store.new_event(key, encoded.event_type, encoded.payload)
    }
    let (call, account) = (format!("call {number}"), format!("account {}", number % 9));
    let payment = PaymentReceived::example();
    vec![
        event(store, "consent", &ConsentGranted::example()),
        event(store, "checks", &DNCCheckPerformed::example()),
        event(store, &call, &CallAttempted::example()),
        event(store, &call, &CallStarted::example()),
        event(store, &call, &CallCompleted::example()),
        event(store, &account, &payment),
    ]
}

/// Tells the writer to end when it is dropped.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn whatever_is_killed_the_tables_are_what_the_log_gives() {
    let Some(cluster) = Cluster::start(&[]) else { return };
    let (place, url) = (Place::new(), cluster.database());
    let server = serve(&place.log);
    let listen = server.listen.clone();
    let replicator = replicate(&listen, &url);
    let mut victims = Victims { place, cluster, url, server: Some(server), listen, replicator };
    let (done, stored) = (AtomicBool::new(false), AtomicU64::new(0));
    let address = victims.listen.clone();
    std::thread::scope(|scope| {
        // Also where a kill fails: the writer would go on for ever, and the failure be a hang.
        let ends = Ends(&done);
        let writer = scope.spawn(|| {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                let mut options = RemoteOptions::default();
                options.timeout = Duration::from_mins(1);
                let store = Remote::connect_with(&address, options).await.unwrap();
                for number in 0.. {
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                    let append = Append::any(events(&store, number));
                    let outcome = store.append(append).await.unwrap();
                    stored.store(outcome.last_position().0, Ordering::Relaxed);
                }
            });
        });
        for round in 0..kills() {
            std::thread::sleep(Duration::from_millis(fastrand::u64(..250)));
            let victim = victims.kill_any();
            let stored = stored.load(Ordering::Relaxed);
            println!("{round}: killed {victim} at {stored} events");
            assert!(!writer.is_finished(), "the writer goes on");
        }
        drop(ends);
    });
    victims.replicator.kill().unwrap();
    victims.replicator.wait().unwrap();
    let there = format!("--server {} --postgres {}", victims.listen, victims.url);
    run(&format!("replicate {there} --catch-up")).code(0);
    let answer = run(&format!("replicate verify {there}")).code(0);
    let stored = stored.into_inner();
    assert!(stored > 100, "{stored} events were stored");
    let rows = victims.cluster.value(&victims.url, "SELECT count(*) FROM event_store");
    assert_eq!(rows, stored.to_string(), "{}", answer.out);
    let calls = "SELECT sum(calls) = (SELECT count(*) FROM event_store \
                 WHERE event_type = 'CallCompleted') FROM call_statistics";
    assert_eq!(victims.cluster.value(&victims.url, calls), "t");
}
