//! What a rebuild puts in place of what: all that the projection is made of, and nothing else.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::sync::Arc;

use quipu_replicator::{Projection, SqlProjection};
use support::{Bench, Silent, mirror, wait};

/// A projection that counts the events of each thing into the table `counts`, and makes more.
fn counts(tables: &str, statement: &str) -> Vec<Arc<dyn Projection>> {
    let file = format!(
        "[[projection]]\nname = \"counts\"\ntables = '''{tables}'''\nstatement = '''{statement}'''"
    );
    let all = SqlProjection::read(&file).unwrap();
    all.into_iter().map(|projection| Arc::new(projection) as Arc<dyn Projection>).collect()
}

const TABLES: &str = "CREATE TABLE counts (aggregate_id TEXT PRIMARY KEY, events BIGINT);";
const STATEMENT: &str = "INSERT INTO counts AS c SELECT aggregate_id, count(*) FROM events \
    GROUP BY 1 ON CONFLICT (aggregate_id) DO UPDATE SET events = c.events + excluded.events";
const SUM: &str = "SELECT sum(events) FROM counts";

fn plain() -> Vec<Arc<dyn Projection>> {
    counts(TABLES, STATEMENT)
}

/// As after its definition has gained this.
fn with(more: &str) -> Vec<Arc<dyn Projection>> {
    counts(&format!("{TABLES} {more};"), STATEMENT)
}

fn rebuild(bench: &Bench, projections: Vec<Arc<dyn Projection>>) -> Result<u64, String> {
    let name = projections[0].name().to_owned();
    let replicator = bench.replicator(projections);
    let rebuilt = wait(async { replicator.rebuild(&name, Arc::new(Silent)).await });
    rebuilt.map(|through| through.0).map_err(|error| error.to_string())
}

#[track_caller]
fn assert_nothing_is_left(bench: &Bench) {
    let left = "SELECT (SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'quipu%') + \
                (SELECT count(*) FROM event_subscriptions WHERE subscriber_name LIKE '%(%') + \
                (SELECT count(*) FROM quipu_replicator_migrations WHERE projection LIKE '%(%')";
    assert_eq!(bench.value(left), "0");
}

#[test]
fn a_table_that_somebody_else_made_is_not_put_out_of_its_place() {
    let Some(bench) = Bench::new() else { return };
    bench.append_plain(10);
    bench.query("CREATE TABLE event_store (mine int); INSERT INTO event_store VALUES (1)");
    let refused = rebuild(&bench, mirror()).unwrap_err();
    assert!(refused.contains("event_store") && refused.contains("no replicator"), "{refused}");
    assert_eq!(bench.query("SELECT mine FROM event_store"), [["1"]]);
    assert_nothing_is_left(&bench);
    bench.query("DROP TABLE event_store");
    assert_eq!(rebuild(&bench, mirror()), Ok(10));
    bench.verify(mirror());
}

#[test]
fn a_name_that_a_changed_definition_gains_is_left_to_whoever_has_it() {
    let Some(bench) = Bench::new() else { return };
    bench.append_plain(10);
    bench.catch_up(plain());
    for (theirs, gained) in [
        ("CREATE TABLE theirs (mine int)", "CREATE TABLE theirs (id int)"),
        ("CREATE VIEW theirs AS SELECT 1 AS mine", "CREATE TABLE theirs (id int)"),
        ("CREATE TYPE theirs AS ENUM ('mine')", "CREATE TYPE theirs AS ENUM ('a')"),
        (
            "CREATE TABLE t (mine int); CREATE INDEX theirs ON t (mine)",
            "CREATE VIEW theirs AS SELECT 1",
        ),
    ] {
        bench.query(theirs);
        let refused = rebuild(&bench, with(gained)).unwrap_err();
        assert!(refused.contains("theirs") && refused.contains("no replicator"), "{refused}");
        assert_eq!(bench.value(SUM), "10", "{theirs}");
        bench.verify(plain());
        let kind = theirs.split(' ').nth(1).unwrap();
        let theirs = if theirs.contains("INDEX") { "t" } else { "theirs" };
        bench.query(&format!("DROP {kind} {theirs}"));
    }
    assert_eq!(rebuild(&bench, with("CREATE TABLE theirs (id int)")), Ok(10));
}

#[test]
fn what_a_definition_no_longer_makes_stays_a_replicators() {
    let Some(bench) = Bench::new() else { return };
    bench.append_plain(10);
    bench.catch_up(with("CREATE TABLE more (id int)"));
    for _ in 0..2 {
        assert_eq!(rebuild(&bench, plain()), Ok(10));
        assert_eq!(rebuild(&bench, with("CREATE TABLE more (id int, name TEXT)")), Ok(10));
    }
    assert_eq!(bench.value("SELECT count(*) FROM more WHERE name IS NULL"), "0");
}

#[test]
fn tables_of_a_program_that_noted_no_names_are_known_by_their_definition() {
    let Some(bench) = Bench::new() else { return };
    bench.append_plain(10);
    let all = || [mirror(), plain()].concat();
    bench.catch_up(all());
    let before = "DELETE FROM quipu_replicator_migrations \
                      WHERE projection = 'replicator' AND version > 1; \
                  ALTER TABLE quipu_replicator_migrations DROP COLUMN made; \
                  CREATE TABLE theirs (mine int)";
    bench.query(before);
    let refused = rebuild(&bench, with("CREATE TABLE theirs (id int)")).unwrap_err();
    assert!(refused.contains("theirs"), "{refused}");
    assert_eq!(rebuild(&bench, with("CREATE TABLE more (id int)")), Ok(10));
    assert_eq!(rebuild(&bench, mirror()), Ok(10));
    bench.catch_up(mirror());
}

/// One of each that a rebuild moves, and uses of them.
const RICH: &str = "
    CREATE TYPE size AS ENUM ('small', 'large');
    CREATE DOMAIN amount AS BIGINT CHECK (VALUE > 0);
    CREATE TYPE pair AS (size size, amount amount);
    CREATE SEQUENCE numbers;
    CREATE TABLE counts (
        aggregate_id TEXT PRIMARY KEY, events amount, size size DEFAULT 'small', pair pair,
        number BIGINT DEFAULT nextval('numbers'), serial BIGSERIAL,
        own BIGINT GENERATED ALWAYS AS IDENTITY
    );
    CREATE TABLE parts (size size) PARTITION BY LIST (size);
    CREATE TABLE parts_small PARTITION OF parts FOR VALUES IN ('small');
    CREATE VIEW small AS SELECT * FROM counts WHERE size = 'small';
    CREATE MATERIALIZED VIEW sizes AS SELECT DISTINCT size FROM small;
";

#[test]
fn types_and_sequences_take_their_place_with_the_tables() {
    let Some(bench) = Bench::new() else { return };
    bench.append_plain(10);
    bench.catch_up(counts(RICH, STATEMENT));
    let columns = "SELECT string_agg(format('%s %s %s', attname, format_type(atttypid, atttypmod),
            pg_get_expr(adbin, adrelid)), ', ' ORDER BY attnum)
        FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
        WHERE attrelid = 'counts'::regclass AND attnum > 0 AND NOT attisdropped";
    let before = bench.query(columns);
    bench.query("CREATE ROLE clerk; GRANT USAGE ON SEQUENCE numbers TO clerk");
    for _ in 0..2 {
        assert_eq!(rebuild(&bench, counts(RICH, STATEMENT)), Ok(10));
        assert_eq!(bench.query(columns), before);
        assert_eq!(bench.value("SELECT count(*) FROM small"), "10");
        assert_nothing_is_left(&bench);
    }
    assert_eq!(bench.value("SELECT has_sequence_privilege('clerk', 'numbers', 'USAGE')"), "t");
    bench.query("DROP OWNED BY clerk; DROP ROLE clerk");
    bench.append_plain(10);
    bench.catch_up(counts(RICH, STATEMENT));
    assert_eq!(bench.value(SUM), "20");
}

#[test]
fn a_type_that_others_use_stands_in_the_way_and_is_named() {
    let Some(bench) = Bench::new() else { return };
    bench.append_plain(10);
    bench.catch_up(counts(RICH, STATEMENT));
    bench.query("CREATE TABLE theirs (size size); INSERT INTO theirs VALUES ('large')");
    let refused = rebuild(&bench, counts(RICH, STATEMENT)).unwrap_err();
    assert!(refused.contains("theirs"), "{refused}");
    assert_eq!(bench.query("SELECT size FROM theirs"), [["large"]]);
    assert_eq!(bench.value("SELECT sum(events) FROM small"), "10");
}

#[test]
fn what_cannot_be_moved_is_said_before_anything_is_filled() {
    let Some(bench) = Bench::new() else { return };
    bench.append_plain(10);
    bench.catch_up(plain());
    let function = "CREATE FUNCTION one() RETURNS BIGINT LANGUAGE sql AS 'SELECT 1::bigint'; \
                    ALTER TABLE counts ADD COLUMN one BIGINT DEFAULT one()";
    for (gained, named) in [
        (function, "function quipu_rebuild_counts.one()"),
        ("CREATE TYPE span AS RANGE (subtype = int)", "span"),
    ] {
        let refused = rebuild(&bench, with(gained)).unwrap_err();
        assert!(refused.contains(named) && refused.contains("moves tables"), "{refused}");
        assert_nothing_is_left(&bench);
        assert_eq!(bench.value(SUM), "10");
        bench.verify(plain());
    }
}
