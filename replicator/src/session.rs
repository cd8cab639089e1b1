//! One connection to Postgres, and the statements that were prepared on it.

use std::collections::HashMap;
use std::pin::{Pin, pin};

use bytes::Bytes;
use futures::{SinkExt, TryStreamExt};
use tokio::sync::Mutex;
use tokio::task::AbortHandle;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, RowStream, Statement};

use crate::sql_error::SqlError;

/// Parameters of a statement.
pub type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];

/// The rows of a query as they come.
pub(crate) type Rows = Pin<Box<RowStream>>;

/// One connection. A transaction that is open when it is dropped is rolled back.
pub struct Session {
    client: Client,
    /// The schema of the replicator's own tables, as SQL spells it.
    own_schema: String,
    connection: AbortHandle,
    prepared: Mutex<HashMap<String, Statement>>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Session {
    pub(crate) fn new(client: Client, own_schema: String, connection: AbortHandle) -> Self {
        Self { client, own_schema, connection, prepared: Mutex::default() }
    }

    /// SQL that names the replicator's own tables, as `:own.event_subscriptions`: they are found
    /// also where `search_path` leads elsewhere.
    pub(crate) fn own(&self, sql: &str) -> String {
        sql.replace(":own", &self.own_schema)
    }

    /// Runs a statement, prepared the first time; how many rows it touched.
    ///
    /// # Errors
    /// What Postgres said, of `doing`.
    pub async fn execute(
        &self,
        doing: &str,
        sql: &str,
        parameters: Parameters<'_>,
    ) -> Result<u64, SqlError> {
        let statement = self.prepare(doing, sql).await?;
        let done = self.client.execute(&statement, parameters).await;
        done.map_err(|error| SqlError::new(doing, error))
    }

    /// Runs a query, prepared the first time.
    ///
    /// # Errors
    /// What Postgres said, of `doing`.
    pub async fn query(
        &self,
        doing: &str,
        sql: &str,
        parameters: Parameters<'_>,
    ) -> Result<Vec<Row>, SqlError> {
        let statement = self.prepare(doing, sql).await?;
        let rows = self.client.query(&statement, parameters).await;
        rows.map_err(|error| SqlError::new(doing, error))
    }

    /// The rows of a query as they come.
    pub(crate) async fn stream(&self, doing: &str, sql: &str) -> Result<Rows, SqlError> {
        let none = std::iter::empty::<&(dyn ToSql + Sync)>();
        let rows = self.client.query_raw(sql, none).await.map(Box::pin);
        rows.map_err(|error| SqlError::new(doing, error))
    }

    /// Runs statements that take no parameters, one after the other.
    ///
    /// # Errors
    /// What Postgres said, of `doing`.
    pub async fn run(&self, doing: &str, sql: &str) -> Result<(), SqlError> {
        self.client.batch_execute(sql).await.map_err(|error| SqlError::new(doing, error))
    }

    /// Sends rows to a `COPY … FROM STDIN (FORMAT binary)`.
    ///
    /// # Errors
    /// What Postgres said, of `doing`.
    pub async fn copy(&self, doing: &str, sql: &str, rows: Vec<Bytes>) -> Result<(), SqlError> {
        let failed = |error| SqlError::new(doing, error);
        let statement = self.prepare(doing, sql).await?;
        let mut sink = pin!(self.client.copy_in(&statement).await.map_err(failed)?);
        for chunk in rows {
            if let Err(error) = sink.feed(chunk).await {
                // Why it takes no more, it says at the end.
                return Err(failed(sink.finish().await.err().unwrap_or(error)));
            }
        }
        sink.finish().await.map(drop).map_err(failed)
    }

    /// The statement, prepared on this connection.
    ///
    /// # Errors
    /// What Postgres said, of `doing`.
    pub async fn prepare(&self, doing: &str, sql: &str) -> Result<Statement, SqlError> {
        let mut prepared = self.prepared.lock().await;
        if let Some(statement) = prepared.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).await;
        let statement = statement.map_err(|error| SqlError::new(doing, error))?;
        prepared.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

/// The next row of a stream.
pub(crate) async fn next_row(doing: &str, rows: &mut Rows) -> Result<Option<Row>, SqlError> {
    rows.try_next().await.map_err(|error| SqlError::new(doing, error))
}
