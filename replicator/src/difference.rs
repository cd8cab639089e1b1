//! Where a table differs from what it should be: the first such row, in the order of its key.

use crate::error::ReplicateError;
use crate::postgres::quoted;
use crate::session::{Session, next_row};

/// A row that is not what a fold of the log gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The table.
    pub table: String,
    /// The row that the log gives there, as JSON; `None` where the table has one too many.
    pub expected: Option<String>,
    /// The row that is there; `None` where it is missing.
    pub found: Option<String>,
}

/// The tables of a schema, in order.
pub(crate) async fn tables_of(
    session: &Session,
    schema: &str,
) -> Result<Vec<String>, ReplicateError> {
    const TABLES: &str = "SELECT relname FROM pg_class \
        WHERE relnamespace = to_regnamespace($1::text) AND relkind IN ('r', 'p') \
        AND NOT relispartition ORDER BY relname";
    let rows = session.query("list the tables", TABLES, &[&quoted(schema)]).await?;
    Ok(rows.iter().map(|row| row.get::<_, String>(0)).collect())
}

/// The first difference between a table and its like in another schema; each is read by a session
/// that sees what it should.
pub(crate) async fn first_difference(
    (served, schema): (&Session, &str),
    (filled, shadow): (&Session, &str),
    table: &str,
) -> Result<Option<Difference>, ReplicateError> {
    let key = key_of(filled, shadow, table).await?;
    let rows = |schema: &str| {
        format!(
            "SELECT to_jsonb(t)::text, to_jsonb(row({key}))::text \
             FROM {}.{} AS t ORDER BY {key}",
            quoted(schema),
            quoted(table)
        )
    };
    let reading = format!("read {table}");
    let mut streams = (
        filled.stream(&reading, &rows(shadow)).await?,
        served.stream(&reading, &rows(schema)).await?,
    );
    let (expected, found) = loop {
        let expected = next_row(&reading, &mut streams.0).await?.map(|row| KeyedRow::of(&row));
        let found = next_row(&reading, &mut streams.1).await?.map(|row| KeyedRow::of(&row));
        if expected.is_none() && found.is_none() {
            return Ok(None);
        }
        if expected != found {
            break (expected, found);
        }
    };
    // Rows that nobody takes hold up what is asked next on their connection.
    drop(streams);
    let (wanted, given) = (expected.as_ref().map(|it| &it.key), found.as_ref().map(|it| &it.key));
    let is_one_row = wanted == given;
    let is_missing = match wanted {
        Some(key_value) if !is_one_row => {
            is_missing(served, schema, table, &key, key_value).await?
        }
        _ => false,
    };
    Ok(Some(Difference {
        table: table.to_owned(),
        expected: expected.filter(|_| is_one_row || is_missing).map(|it| it.row),
        found: found.filter(|_| is_one_row || !is_missing).map(|it| it.row),
    }))
}

/// A row and its key, as JSON.
#[derive(PartialEq, Eq)]
struct KeyedRow {
    row: String,
    key: String,
}

impl KeyedRow {
    fn of(row: &tokio_postgres::Row) -> Self {
        Self { row: row.get(0), key: row.get(1) }
    }
}

/// Whether no row of the table has this key.
async fn is_missing(
    session: &Session,
    schema: &str,
    table: &str,
    key: &str,
    wanted: &String,
) -> Result<bool, ReplicateError> {
    let find = format!(
        "SELECT 1 FROM {}.{} AS t WHERE to_jsonb(row({key}))::text = $1 LIMIT 1",
        quoted(schema),
        quoted(table)
    );
    Ok(session.query("look for a row", &find, &[wanted]).await?.is_empty())
}

/// The columns of the primary key; without one, the whole row.
async fn key_of(session: &Session, schema: &str, table: &str) -> Result<String, ReplicateError> {
    const KEY: &str = "SELECT a.attname FROM pg_index i \
        CROSS JOIN LATERAL unnest(i.indkey::int[]) WITH ORDINALITY AS k(number, place) \
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number \
        WHERE i.indrelid = to_regclass($1::text) AND i.indisprimary ORDER BY k.place";
    let name = format!("{}.{}", quoted(schema), quoted(table));
    let rows = session.query("look up the key", KEY, &[&name]).await?;
    let columns: Vec<String> =
        rows.iter().map(|row| format!("t.{}", quoted(row.get::<_, &str>(0)))).collect();
    Ok(if columns.is_empty() { "to_jsonb(t)::text".to_owned() } else { columns.join(", ") })
}
