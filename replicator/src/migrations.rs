//! Tables: made once, brought from version to version, and never taken for somebody else's.

use tokio_postgres::error::SqlState;

use crate::error::ReplicateError;
use crate::objects::objects_of;
use crate::postgres::quoted;
use crate::projection::Projection;
use crate::session::{Parameters, Session};
use crate::sql_error::SqlError;

/// How the table that says what was made is known to be a replicator's.
const MARK: &str = "Quipu replicator: which tables it has made";
/// What the replicator itself needs.
const OWN: &str = "replicator";
const OWN_MIGRATIONS: [&str; 2] =
    [include_str!("sql/replicator_1.sql"), include_str!("sql/replicator_2.sql")];
/// What `events` is, for the statements that read it.
pub(crate) const EVENTS_RELATION: &str = include_str!("sql/events_relation.sql");

const LOCK: &str = "SELECT pg_advisory_xact_lock(hashtextextended('quipu-migrations:' || $1, 0))";
const FIND_MARK: &str = "SELECT c.oid IS NOT NULL, \
    coalesce(obj_description(c.oid, 'pg_class'), '') \
    FROM (SELECT to_regclass($1::text)) AS r(oid) LEFT JOIN pg_class c ON c.oid = r.oid";
const MAKE_TABLE: &str = "CREATE TABLE :own.quipu_replicator_migrations (
    projection VARCHAR(255) NOT NULL,
    version INTEGER NOT NULL,
    definition TEXT,
    made TEXT[],
    applied_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (projection, version)
)";
const FIND: &str = "SELECT coalesce(max(version), 0), \
    (array_agg(definition ORDER BY version DESC))[1] \
    FROM :own.quipu_replicator_migrations WHERE projection = $1";
const ADD: &str = "INSERT INTO :own.quipu_replicator_migrations \
        (projection, version, definition, made) \
    VALUES ($1, $2, $3, $4)";
const NOT_MADE: &str = include_str!("sql/not_made.sql");

/// Where the tables of a projection are: in the schema that is served, or in one beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The schema that is served; checkpoints are there.
    pub(crate) schema: String,
    /// Where a rebuild or a check fills tables of its own.
    pub(crate) shadow: Option<String>,
}

impl Place {
    /// Where tables are made and looked for. Those that serve are out of sight of a shadow, for
    /// nothing that is meant for it may reach them.
    pub(crate) fn of_tables(&self) -> &str {
        self.shadow.as_ref().unwrap_or(&self.schema)
    }
}

/// Makes the schema and what the replicator itself needs.
pub(crate) async fn make_ready(session: &Session, schema: &str) -> Result<(), ReplicateError> {
    in_transaction(session, async {
        wait_for_others(session, schema).await?;
        make_schema(session, schema).await?;
        let table = format!("{}.quipu_replicator_migrations", quoted(schema));
        let found = session.query("look for tables", FIND_MARK, &[&table]).await?;
        match found.first().map(|row| (row.get::<_, bool>(0), row.get::<_, String>(1))) {
            Some((true, mark)) if mark == MARK => {}
            Some((true, _)) => return Err(foreign(OWN, schema, &format!("{table} is there"))),
            _ => {
                session.run("make the table of migrations", &session.own(MAKE_TABLE)).await?;
                let mark = format!("COMMENT ON TABLE {table} IS '{MARK}'");
                session.run("mark the table of migrations", &mark).await?;
            }
        }
        let place = Place { schema: schema.to_owned(), shadow: None };
        migrate_one(session, &place, OWN, &OWN_MIGRATIONS, None).await
    })
    .await
}

/// Makes a projection's tables, or brings them to its version; all of it, or nothing.
///
/// `label` is the name under which they are remembered.
pub(crate) async fn migrate(
    session: &Session,
    place: &Place,
    projection: &dyn Projection,
    label: &str,
) -> Result<(), ReplicateError> {
    if projection.reads_events() {
        session.run("make the relation `events`", EVENTS_RELATION).await?;
    }
    in_transaction(session, bring_up_to_date(session, place, projection, label)).await
}

/// As [`migrate`], inside a transaction that is open; the relation `events` is there already.
pub(crate) async fn bring_up_to_date(
    session: &Session,
    place: &Place,
    projection: &dyn Projection,
    label: &str,
) -> Result<(), ReplicateError> {
    wait_for_others(session, &place.schema).await?;
    make_schema(session, place.of_tables()).await?;
    let path = format!("SET LOCAL search_path TO {}", quoted(place.of_tables()));
    session.run("set the search path", &path).await?;
    let (migrations, definition) = (projection.migrations(), projection.definition());
    migrate_one(session, place, label, &migrations, definition).await?;
    check_statements(session, projection).await
}

/// Until nobody else makes or moves tables; they wait until this transaction has ended.
pub(crate) async fn wait_for_others(session: &Session, schema: &str) -> Result<(), SqlError> {
    session.execute("wait for other replicators", LOCK, &[&schema]).await.map(drop)
}

/// Those of the names under which no replicator made anything for a projection.
pub(crate) async fn not_made(
    session: &Session,
    label: &str,
    names: Vec<String>,
) -> Result<Vec<String>, SqlError> {
    let sql = session.own(NOT_MADE);
    let rows = session.query("look up what was made", &sql, &[&label, &names]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Forgets what was made under this name.
pub(crate) async fn forget(session: &Session, label: &str) -> Result<(), SqlError> {
    const FORGET: &str = "DELETE FROM :own.quipu_replicator_migrations WHERE projection = $1";
    session.execute("forget what was made", &session.own(FORGET), &[&label]).await.map(drop)
}

/// Checks that the tables of a projection are still those that it makes: somebody may have rebuilt
/// them by another definition.
pub(crate) async fn check(
    session: &Session,
    projection: &dyn Projection,
) -> Result<(), ReplicateError> {
    let (migrations, definition) = (projection.migrations(), projection.definition());
    made(session, projection.name(), &migrations, definition).await.map(drop)
}

/// How many of the migrations were made.
async fn made(
    session: &Session,
    label: &str,
    migrations: &[&str],
    definition: Option<&str>,
) -> Result<i32, ReplicateError> {
    let found = session.query("look for tables", &session.own(FIND), &[&label]).await?;
    let (given, known) = (found.first().map_or(0, |row| row.get::<_, i32>(0)), migrations.len());
    let known = i32::try_from(known).unwrap_or(i32::MAX);
    if given > known {
        return Err(ReplicateError::NewerTables { projection: label.to_owned(), given, known });
    }
    let before = found.first().and_then(|row| row.get::<_, Option<String>>(1));
    if given > 0 && before.as_deref() != definition {
        return Err(ReplicateError::Redefined { projection: label.to_owned() });
    }
    Ok(given)
}

async fn migrate_one(
    session: &Session,
    place: &Place,
    label: &str,
    migrations: &[&str],
    definition: Option<&str>,
) -> Result<(), ReplicateError> {
    let given = made(session, label, migrations, definition).await?;
    let schema = place.of_tables();
    for (version, migration) in (1..).zip(migrations).skip(usize::try_from(given).unwrap_or(0)) {
        let doing = format!("make the tables of {label}");
        let before = objects_of(session, schema).await?;
        session.run(&doing, migration).await.map_err(|error| {
            if error.is(&SqlState::DUPLICATE_TABLE) || error.is(&SqlState::DUPLICATE_OBJECT) {
                return foreign(label, schema, &error.to_string());
            }
            error.into()
        })?;
        let mut made = objects_of(session, schema).await?;
        made.retain(|new| before.iter().all(|old| old.oid != new.oid));
        let made: Vec<String> = made.into_iter().map(|object| object.name).collect();
        let noted: Parameters<'_> = &[&label, &version, &definition, &made];
        session.execute("note what was made", &session.own(ADD), noted).await?;
    }
    Ok(())
}

async fn check_statements(
    session: &Session,
    projection: &dyn Projection,
) -> Result<(), ReplicateError> {
    for sql in projection.statements() {
        let problem = match session.prepare("prepare the statement", sql).await {
            Ok(statement) if statement.params().is_empty() => continue,
            Ok(_) => "its statement has parameters: it reads `events` and takes nothing".to_owned(),
            Err(error) => error.to_string(),
        };
        let projection = projection.name().to_owned();
        return Err(ReplicateError::Definition { projection, problem });
    }
    Ok(())
}

async fn make_schema(session: &Session, schema: &str) -> Result<(), SqlError> {
    const FIND_SCHEMA: &str = "SELECT 1 WHERE to_regnamespace($1::text) IS NULL";
    let schema = quoted(schema);
    let missing = session.query("look for the schema", FIND_SCHEMA, &[&schema]).await?;
    if missing.is_empty() {
        return Ok(());
    }
    session.run("make the schema", &format!("CREATE SCHEMA {schema}")).await
}

pub(crate) fn foreign(projection: &str, schema: &str, problem: &str) -> ReplicateError {
    ReplicateError::ForeignTable {
        projection: projection.to_owned(),
        schema: schema.to_owned(),
        problem: problem.to_owned(),
    }
}

/// Does it in one transaction, and takes it back where it fails.
pub(crate) async fn in_transaction<T>(
    session: &Session,
    work: impl Future<Output = Result<T, ReplicateError>>,
) -> Result<T, ReplicateError> {
    session.run("begin", "BEGIN").await?;
    match work.await {
        Ok(done) => {
            session.run("commit", "COMMIT").await?;
            Ok(done)
        }
        Err(error) => {
            // Where the connection is lost, Postgres takes it back by itself.
            session.run("roll back", "ROLLBACK").await.ok();
            Err(error)
        }
    }
}
