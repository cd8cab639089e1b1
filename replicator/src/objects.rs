//! What a schema has under names of their own: tables, views, sequences and types.

use crate::postgres::quoted;
use crate::session::Session;
use crate::sql_error::SqlError;

const OBJECTS: &str = include_str!("sql/objects.sql");
const OTHERS: &str = include_str!("sql/other_objects.sql");

/// A table, view, sequence or type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) oid: u32,
    pub(crate) name: String,
    /// As `ALTER` and `DROP` spell it.
    pub(crate) kind: String,
}

/// What is in a schema, in the order in which it can be dropped.
pub(crate) async fn objects_of(session: &Session, schema: &str) -> Result<Vec<Object>, SqlError> {
    let rows = session.query("list what is in a schema", OBJECTS, &[&quoted(schema)]).await?;
    let objects = rows.iter();
    Ok(objects.map(|it| Object { oid: it.get(0), name: it.get(1), kind: it.get(2) }).collect())
}

/// What is in a schema beside that, such as functions.
pub(crate) async fn others_of(session: &Session, schema: &str) -> Result<Vec<String>, SqlError> {
    let rows = session.query("list what is in a schema", OTHERS, &[&quoted(schema)]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
