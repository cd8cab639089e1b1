//! Why replication does not begin, or does not go on.

use quipu_client::{Position, ReadError, Uuid};

use crate::sql_error::{Remedy, SqlError};

/// Why replication does not begin, or does not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplicateError {
    /// The address of Postgres is none, or its certificates cannot be read.
    #[error("the connection to Postgres is not described well: {problem}")]
    Settings {
        /// What is wrong.
        problem: String,
    },
    /// Postgres did not do what was asked.
    #[error("Postgres: {0}")]
    Sql(#[from] SqlError),
    /// Postgres is too old.
    #[error("Postgres {given} is too old: {needed} or newer is needed")]
    OldServer {
        /// Its version.
        given: String,
        /// The oldest that will do.
        needed: u32,
    },
    /// The database cannot hold every text.
    #[error("the database is encoded in {given}: only UTF8 holds every event")]
    Encoding {
        /// Its encoding.
        given: String,
    },
    /// A table has a name that is needed, and somebody else made it.
    #[error(
        "the schema {schema:?} already has something under a name that {projection} needs, which \
         no replicator made: {problem}. Rename it, or choose another schema"
    )]
    ForeignTable {
        /// Whose table was to be made.
        projection: String,
        /// Where.
        schema: String,
        /// What Postgres said.
        problem: String,
    },
    /// A newer program made the tables.
    #[error("the tables of {projection} are of version {given}, this program knows {known}")]
    NewerTables {
        /// Whose tables.
        projection: String,
        /// Their version.
        given: i32,
        /// The newest version that this program knows.
        known: i32,
    },
    /// A projection's definition is not the one that its tables were filled by.
    #[error(
        "the definition of {projection} has changed since its tables were made: \
         `quipu replicate rebuild {projection}` fills them anew"
    )]
    Redefined {
        /// The projection.
        projection: String,
    },
    /// A definition makes no sense.
    #[error("projection {projection}: {problem}")]
    Definition {
        /// The projection, as far as it is known.
        projection: String,
        /// What is wrong.
        problem: String,
    },
    /// There is no such projection, or none that has tables yet.
    #[error("there is no projection {projection:?}{hint}")]
    UnknownProjection {
        /// The name given.
        projection: String,
        /// What there is instead.
        hint: String,
    },
    /// The checkpoint is of another log.
    #[error(
        "{projection} was filled from log {given}, this is log {actual}: where this one is meant, \
         rebuild it"
    )]
    OtherLog {
        /// The projection.
        projection: String,
        /// The log of its checkpoint.
        given: Uuid,
        /// The log that is to be replicated.
        actual: Uuid,
    },
    /// The checkpoint lies past the end of the log.
    #[error(
        "{projection} has been filled up to position {given}, but the log ends at {end}: the log \
         was restored or cut. Rebuild it from the log as it is"
    )]
    PastEnd {
        /// The projection.
        projection: String,
        /// Its checkpoint.
        given: Position,
        /// The last position of the log.
        end: Position,
    },
    /// Another replicator works on the projection.
    #[error("{projection} is being filled by another replicator ({holder})")]
    AlreadyRunning {
        /// The projection.
        projection: String,
        /// Who it is, as Postgres knows it.
        holder: String,
    },
    /// A rebuild or a check of the projection is at work already.
    #[error(
        "{projection} is being rebuilt or verified already ({holder}): one at a time, so try again \
         once that has ended"
    )]
    AlreadyBeside {
        /// The projection.
        projection: String,
        /// Who does it, as Postgres knows it.
        holder: String,
    },
    /// The tables of a projection come with what cannot take the place of what serves.
    #[error(
        "a rebuild of {projection} moves tables, views, sequences, enums, domains and composite \
         types, and its tables come with something else: {objects}. Make that apart from them, and \
         name it with its schema"
    )]
    Unmovable {
        /// The projection.
        projection: String,
        /// What it is.
        objects: String,
    },
    /// What a rebuild or a check fills is not there any more.
    #[error(
        "the tables of {projection}, filled beside those that serve, were removed or made anew by \
         somebody else: start it again"
    )]
    ShadowGone {
        /// The projection, and what they were filled for.
        projection: String,
    },
    /// A checkpoint was moved by somebody else: nothing of the batch was applied.
    #[error("the checkpoint of {projection} was taken over by another replicator or a rebuild")]
    Fenced {
        /// One of the projections.
        projection: String,
    },
    /// Postgres takes connections, and says nothing.
    #[error("connect: Postgres has not let anybody in for {seconds} s")]
    NoAnswer {
        /// How long was waited.
        seconds: u64,
    },
    /// The log cannot be read.
    #[error("the log: {0}")]
    Log(#[from] ReadError),
    /// A projection has failed while its tables were to be filled completely.
    #[error("{projection} has failed: {problem}")]
    Failed {
        /// The projection.
        projection: String,
        /// The event and what was wrong.
        problem: String,
    },
}

impl ReplicateError {
    /// Whether trying again may help without anybody doing anything.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Sql(error) => error.remedy() == Remedy::Wait,
            Self::Fenced { .. } | Self::NoAnswer { .. } => true,
            Self::Log(error) => matches!(error, ReadError::Unavailable(_)),
            _ => false,
        }
    }
}
