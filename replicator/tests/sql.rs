//! Read models in SQL, from a TOML file.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::disallowed_types, reason = "tests read files")]

mod support;

use std::io::Read;
use std::sync::Arc;

use flate2::read::GzDecoder;
use quipu_client::json::parse_line;
use quipu_replicator::{
    EventStoreMirror, OnFailure, Projection, ReplicateError, SqlProjection, UnfitJson,
};
use quipu_tests::shared_data;
use support::{Bench, Silent, Witness, wait};

const COUNTS: &str = r#"
    [[projection]]
    name = "counts"
    event_types = ["Counted"]
    tables = """
        CREATE TABLE counts (aggregate_id TEXT PRIMARY KEY, events BIGINT, last BIGINT);
        CREATE INDEX counts_events ON counts (events);
    """
    statement = """
        INSERT INTO counts AS c
        SELECT aggregate_id, count(*), max((data ->> 'number')::bigint) FROM events GROUP BY 1
        ON CONFLICT (aggregate_id) DO UPDATE
            SET events = c.events + excluded.events, last = greatest(c.last, excluded.last)
    """
"#;

fn read(file: &str) -> Vec<Arc<dyn Projection>> {
    let all = SqlProjection::read(file).unwrap();
    all.into_iter().map(|projection| Arc::new(projection) as Arc<dyn Projection>).collect()
}

fn refusal(bench: &Bench, file: &str) -> String {
    let replicator = bench.replicator(read(file));
    wait(async { replicator.catch_up().await }).unwrap_err().to_string()
}

#[test]
fn a_read_model_needs_no_rust() {
    let Some(bench) = Bench::new() else { return };
    bench.append_plain(1_234);
    bench.append(vec![bench.event("thing 1", "Ignored", "{}")]);
    bench.catch_up(read(COUNTS));
    bench.append_plain(10);
    bench.catch_up(read(COUNTS));
    let counts = "SELECT sum(events), count(*) FROM counts";
    assert_eq!(bench.query(counts), [["1244", "10"]]);
    let event_type = "SELECT event_type FROM event_subscriptions WHERE subscriber_name = 'counts'";
    assert_eq!(bench.value(event_type), "Counted");
    bench.verify(read(COUNTS));
}

#[test]
fn a_replicator_ends_whose_tables_were_rebuilt_by_another_definition() {
    let Some(bench) = Bench::new() else { return };
    let last = bench.append_plain(100);
    let changed = COUNTS.replace("count(*)", "2 * count(*)");
    let error = wait(async {
        let witness = Witness::new();
        let replicator = bench.replicator(read(COUNTS)).observed_by(Arc::clone(&witness) as _);
        let running = tokio::spawn(async move { replicator.run(std::future::pending()).await });
        witness.reached(last).await;
        let rebuilder = bench.replicator(read(&changed));
        rebuilder.rebuild("counts", Arc::new(Silent)).await.unwrap();
        bench.append_plain(10);
        running.await.unwrap().unwrap_err()
    });
    assert!(matches!(error, ReplicateError::Redefined { .. }), "{error}");
    bench.catch_up(read(&changed));
    assert_eq!(bench.value("SELECT sum(events) FROM counts"), "220");
    bench.verify(read(&changed));
}

#[test]
fn what_does_not_prepare_is_refused_and_leaves_nothing_behind() {
    let Some(bench) = Bench::new() else { return };
    bench.append_plain(10);
    let cases = [
        ("count(*)", "count_all(*)", "count_all"),
        ("data ->>", "datum ->>", "datum"),
        ("FROM events", "FROM events WHERE position > $1", "parameters"),
        ("GROUP BY 1", "GROUP BY 1; DELETE FROM counts", "counts"),
        ("CREATE INDEX", "CREATE INDEXES", "INDEXES"),
    ];
    for (from, to, expected) in cases {
        let file = COUNTS.replacen(from, to, 1);
        assert_ne!(file, COUNTS);
        let refused = refusal(&bench, &file);
        assert!(refused.contains("counts") && refused.contains(expected), "{to}: {refused}");
        assert_eq!(bench.query("SELECT to_regclass('counts') IS NULL"), [["t"]], "{to}");
    }
    bench.catch_up(read(COUNTS));
}

#[test]
fn a_definition_that_has_changed_asks_for_a_rebuild() {
    let Some(bench) = Bench::new() else { return };
    bench.append_plain(100);
    bench.catch_up(read(COUNTS));
    let changed = COUNTS.replace("count(*)", "2 * count(*)");
    let refused = refusal(&bench, &changed);
    assert!(refused.contains("quipu replicate rebuild counts"), "{refused}");
    let replicator = bench.replicator(read(&changed));
    let rebuilt = wait(async { replicator.rebuild("counts", Arc::new(Silent)).await });
    assert_eq!(rebuilt.unwrap().0, 100);
    assert_eq!(bench.value("SELECT sum(events) FROM counts"), "200");
    bench.append_plain(10);
    bench.catch_up(read(&changed));
    bench.verify(read(&changed));
}

#[test]
fn an_event_that_the_statement_cannot_take_stops_it_or_is_parked() {
    let Some(bench) = Bench::new() else { return };
    bench.append_plain(100);
    let bad = bench.append(vec![bench.event("thing 1", "Counted", r#"{"number":"many"}"#)]);
    bench.append_plain(100);
    let failed = wait(async { bench.replicator(read(COUNTS)).catch_up().await }).unwrap().failed;
    assert!(failed[0].1.contains(&format!("position {bad}")), "{failed:?}");
    assert_eq!(bench.value("SELECT sum(events) FROM counts"), "100");
    let parking = COUNTS.replace("name =", "on_failure = \"park\"\nname =");
    bench.catch_up(read(&parking));
    assert_eq!(bench.value("SELECT sum(events) FROM counts"), "200");
    assert_eq!(bench.query("SELECT sequence_number FROM event_parked"), [[bad.to_string()]]);
    bench.verify(read(&parking));
}

/// A payment is of an earlier one, or is put in before what it is of: checked at the commit.
const PAYMENTS: &str = r#"
    [[projection]]
    name = "payments"
    tables = """
        CREATE TABLE paid (position BIGINT PRIMARY KEY);
        CREATE TABLE payments (of BIGINT REFERENCES paid DEFERRABLE INITIALLY DEFERRED);
        CREATE FUNCTION pay() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO payments SELECT coalesce((data ->> 'of')::bigint, position) FROM events;
            INSERT INTO paid SELECT position FROM events;
        END $$;
    """
    statement = "SELECT pay()"
"#;

#[test]
fn an_event_that_breaks_a_deferred_constraint_stops_its_projection_or_is_parked() {
    let Some(bench) = Bench::new() else { return };
    bench.append_plain(10);
    let bad = bench.append(vec![bench.event("thing 1", "Counted", r#"{"of":999}"#)]);
    bench.append_plain(10);
    let both = |payments: &str| {
        let mut projections = read(payments);
        projections.extend(support::mirror());
        projections
    };
    let failed = wait(async { bench.replicator(both(PAYMENTS)).catch_up().await }).unwrap().failed;
    let [(name, problem)] = &failed[..] else { panic!("{failed:?}") };
    assert_eq!(name, "payments");
    assert!(problem.contains(&format!("position {bad}")) && problem.contains("23503"), "{problem}");
    assert_eq!(bench.value("SELECT count(*) FROM payments"), "10");
    assert_eq!(bench.value("SELECT count(*) FROM event_store"), "21", "the others go on");
    bench.catch_up(both(&PAYMENTS.replace("name =", "on_failure = \"park\"\nname =")));
    assert_eq!(bench.value("SELECT count(*) FROM payments"), "20");
    assert_eq!(bench.query("SELECT sequence_number FROM event_parked"), [[bad.to_string()]]);
}

#[test]
fn a_statement_that_always_fails_stops_its_projection_and_no_other() {
    let Some(bench) = Bench::new() else { return };
    bench.append_plain(10);
    let file = r#"
        [[projection]]
        name = "numbered"
        tables = "CREATE TABLE numbered (number BIGSERIAL)"
        statement = "INSERT INTO numbered SELECT currval('numbered_number_seq') FROM events"
    "#;
    let mut projections = read(file);
    projections.extend(support::mirror());
    let failed = wait(async { bench.replicator(projections).catch_up().await }).unwrap().failed;
    let [(name, problem)] = &failed[..] else { panic!("{failed:?}") };
    assert!(name == "numbered" && problem.contains("55000"), "{name}: {problem}");
    assert_eq!(bench.value("SELECT count(*) FROM event_store"), "10");
}

#[test]
fn a_statement_may_take_longer_than_the_role_gives_others() {
    let Some(bench) = Bench::new() else { return };
    let database = bench.address.rsplit('/').next().unwrap();
    bench.query(&format!("ALTER DATABASE \"{database}\" SET statement_timeout TO '300ms'"));
    bench.append_plain(10);
    let slow = COUNTS.replace("FROM events GROUP", "FROM events, pg_sleep(0.5) GROUP");
    assert_ne!(slow, COUNTS);
    bench.catch_up(read(&slow));
    assert_eq!(bench.value("SELECT sum(events) FROM counts"), "10");
}

const LOANS: &str = r#"
    [[projection]]
    name = "loans"
    aggregate_types = ["LoanApplication"]
    tables = """
        CREATE TABLE loans (
            application TEXT PRIMARY KEY,
            state TEXT,
            requested NUMERIC,
            submitted_at TIMESTAMPTZ,
            decided_at TIMESTAMPTZ
        );
        CREATE VIEW loans_by_state AS SELECT state, count(*) AS applications FROM loans GROUP BY 1;
        CREATE VIEW loans_by_month AS
            SELECT date_trunc('month', submitted_at) AS month, sum(requested) AS requested
              FROM loans GROUP BY 1;
    """
    statement = """
        INSERT INTO loans AS l
        SELECT aggregate_id,
               (array_agg(event_type ORDER BY position DESC)
                    FILTER (WHERE event_type LIKE 'A\\_%'))[1],
               max((data ->> 'AMOUNT_REQ')::numeric)
                    FILTER (WHERE event_type LIKE 'A\\_SUBMITTED%'),
               min(created_at) FILTER (WHERE event_type LIKE 'A\\_SUBMITTED%'),
               min(created_at) FILTER (
                    WHERE event_type ~ '^A_(APPROVED|DECLINED|CANCELLED)')
          FROM events
         GROUP BY aggregate_id
        ON CONFLICT (application) DO UPDATE SET
            state = coalesce(excluded.state, l.state),
            requested = coalesce(l.requested, excluded.requested),
            submitted_at = least(l.submitted_at, excluded.submitted_at),
            decided_at = least(l.decided_at, excluded.decided_at)
    """
"#;

/// The same from the mirror, with plain SQL.
const FROM_MIRROR: &str = "
    SELECT aggregate_id AS application,
           (SELECT event_type FROM event_store s
             WHERE s.aggregate_type = 'LoanApplication' AND s.aggregate_id = e.aggregate_id
               AND left(s.event_type, 2) = 'A_' ORDER BY version DESC LIMIT 1) AS state,
           max((event_data ->> 'AMOUNT_REQ')::numeric)
               FILTER (WHERE event_type ^@ 'A_SUBMITTED') AS requested,
           min(created_at) FILTER (WHERE event_type ^@ 'A_SUBMITTED') AS submitted_at,
           min(created_at) FILTER (WHERE event_type ^@ 'A_APPROVED' OR event_type ^@ 'A_DECLINED'
               OR event_type ^@ 'A_CANCELLED') AS decided_at
      FROM event_store e WHERE aggregate_type = 'LoanApplication' GROUP BY aggregate_id";

#[test]
fn loan_applications_are_what_plain_sql_over_the_mirror_says() {
    let Some(path) = shared_data::file("bpic2012.ndjson.gz") else { return };
    let Some(bench) = Bench::new() else { return };
    let mut text = String::new();
    GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    let events: Vec<_> =
        text.lines().map(|line| parse_line(line.as_bytes()).unwrap().event).collect();
    for events in events.chunks(1_000) {
        bench.append(events.to_vec());
    }
    let mut projections = read(LOANS);
    projections.push(Arc::new(EventStoreMirror::new(UnfitJson::Fail, OnFailure::Stop)));
    bench.catch_up(projections);
    assert_eq!(bench.query("SELECT count(*) FROM event_store"), [["262200"]]);
    assert_eq!(bench.query("SELECT count(*) FROM loans"), [["13087"]]);
    let differences = format!(
        "WITH plain AS ({FROM_MIRROR}) SELECT count(*) FROM \
         ((TABLE loans EXCEPT TABLE plain) UNION ALL (TABLE plain EXCEPT TABLE loans)) d"
    );
    assert_eq!(bench.value(&differences), "0");
    let by_state = bench.query("SELECT * FROM loans_by_state ORDER BY 1");
    assert!(by_state.len() > 3, "{by_state:?}");
    let decided = "SELECT count(*) > 9000, min(decided_at - submitted_at) >= INTERVAL '0' \
                   FROM loans WHERE decided_at IS NOT NULL";
    assert_eq!(bench.query(decided), [["t", "t"]]);
    let months = "SELECT count(*), sum(requested) = (SELECT sum(requested) FROM loans) \
                  FROM loans_by_month";
    assert_eq!(bench.query(months)[0][1], "t");
}
