//! What a read model is: which events it takes, its tables, and how a batch of events changes them.

use futures::future::BoxFuture;
use quipu_client::{EventType, Record, decode_event};

use crate::session::Session;
use crate::sql_error::SqlError;

/// A read model in Postgres.
///
/// It is told of every event once, in order: what a batch changes is written in the transaction
/// that moves its checkpoint. Tables are named without a schema, so that a rebuild can fill others.
pub trait Projection: Send + Sync {
    /// Its name: that of its checkpoint.
    fn name(&self) -> &str;

    /// Which events it takes.
    fn interest(&self) -> &Interest;

    /// What makes its tables: each brings them from one version to the next, the first from none.
    /// One that was released is never changed.
    fn migrations(&self) -> Vec<&str>;

    /// What its tables depend on beside the program's version. Where it changes, they are of no use
    /// until they are rebuilt.
    fn definition(&self) -> Option<&str> {
        None
    }

    /// Statements that are prepared before anything is replicated, to know that they can be.
    fn statements(&self) -> Vec<&str> {
        Vec::new()
    }

    /// What to do with an event that cannot be applied.
    fn on_failure(&self) -> OnFailure {
        OnFailure::Stop
    }

    /// Whether its statements read the batch as the relation `events`.
    fn reads_events(&self) -> bool {
        false
    }

    /// The fold of a new batch.
    fn fold(&self) -> Box<dyn Fold>;
}

/// What is told of a built-in projection in one line of its `impl`: its name and migrations, and
/// the fields `interest` and `on_failure`.
macro_rules! declared {
    ($name:expr, $migrations:expr) => {
        fn name(&self) -> &'static str {
            $name
        }

        fn interest(&self) -> &$crate::projection::Interest {
            &self.interest
        }

        fn migrations(&self) -> Vec<&str> {
            $migrations.to_vec()
        }

        fn on_failure(&self) -> $crate::projection::OnFailure {
            self.on_failure
        }
    };
}
pub(crate) use declared;

/// A batch, folded in memory.
pub trait Fold: Send + Sync {
    /// Takes the next event.
    ///
    /// # Errors
    /// What is wrong with it; nothing of it is kept then.
    fn take(&mut self, record: &Record) -> Result<(), String>;

    /// Writes what the batch changes, with a number of statements that does not grow with it,
    /// inside a transaction that is open. May be called again after that was rolled back.
    fn apply<'a>(&'a self, session: &'a Session) -> BoxFuture<'a, Result<(), SqlError>>;
}

/// What to do with an event that a projection cannot apply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// The projection stops in front of it, and says so; the others go on.
    #[default]
    Stop,
    /// The event is kept in `event_parked` with what was wrong, and the projection goes on.
    Park,
}

/// Which events a projection takes; an empty list takes all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// Of these aggregate types.
    pub aggregate_types: Vec<String>,
    /// Of these event types.
    pub event_types: Vec<String>,
    /// Also those of the system, whose aggregate types begin with `$`.
    pub of_system: bool,
}

impl Interest {
    /// Events of these types, of these aggregate types.
    #[must_use]
    pub fn of(aggregate_types: &[&str], event_types: &[&str]) -> Self {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self {
            aggregate_types: owned(aggregate_types),
            event_types: owned(event_types),
            of_system: false,
        }
    }

    /// Whether it takes the event.
    #[must_use]
    pub fn takes(&self, record: &Record) -> bool {
        let aggregate_type = record.aggregate_type();
        (self.of_system || !aggregate_type.starts_with('$'))
            && contains(&self.aggregate_types, aggregate_type)
            && contains(&self.event_types, record.event_type())
    }

    /// What stands in the checkpoint's column `event_type`.
    pub(crate) fn event_type(&self) -> &str {
        match self.event_types.as_slice() {
            [one] => one,
            _ => "*",
        }
    }
}

fn contains(wanted: &[String], given: &str) -> bool {
    wanted.is_empty() || wanted.iter().any(|one| one == given)
}

/// The event of this type that a record holds.
pub(crate) fn decoded<E: EventType>(record: &Record) -> Result<E, String> {
    decode_event(record).map_err(|error| error.problem.to_string())
}

/// Text that a column of so many characters holds.
///
/// # Errors
/// That it is longer, or has the one character that no text in Postgres has.
pub fn storable<'a>(field: &str, text: &'a str, characters_max: usize) -> Result<&'a str, String> {
    if text.contains('\0') {
        return Err(format!("{field} has a NUL character, which no text in Postgres holds"));
    }
    let given = text.chars().count();
    if given > characters_max {
        return Err(format!("{field} has {given} characters, its column holds {characters_max}"));
    }
    Ok(text)
}
