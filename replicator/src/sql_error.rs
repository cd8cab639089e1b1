//! What Postgres said, and what follows from it.

use tokio_postgres::Error;
use tokio_postgres::error::{DbError, Severity, SqlState};

/// A statement that Postgres did not carry out.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing}: {}", said(.error))]
pub struct SqlError {
    /// What was being done, in words.
    pub doing: String,
    /// What Postgres, or the way to it, said.
    pub error: Error,
}

/// What a failed statement means for the one who sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Nothing is wrong with what was sent: connect and try again.
    Wait,
    /// Some row that was sent cannot be stored: without it the others can.
    LeaveOut,
    /// No row would help: somebody has to mend something.
    Mend,
}

impl SqlError {
    /// An error of what was being done.
    pub(crate) fn new(doing: impl Into<String>, error: Error) -> Self {
        Self { doing: doing.into(), error }
    }

    /// What follows.
    #[must_use]
    pub fn remedy(&self) -> Remedy {
        match self.error.as_db_error() {
            Some(said) if is_of_statement(said) => Remedy::Mend,
            Some(said) => remedy(said.code()),
            None => Remedy::Wait,
        }
    }

    /// Whether it was this state.
    pub(crate) fn is(&self, state: &SqlState) -> bool {
        self.error.code() == Some(state)
    }
}

/// Whether it will say so each time: `currval` before `nextval`, or an update of a published table
/// without a replica identity. A connection is refused in this state for as long as a database is
/// closed.
fn is_of_statement(said: &DbError) -> bool {
    *said.code() == SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE
        && said.parsed_severity() == Some(Severity::Error)
}

/// By the class of the state, its first two characters.
fn remedy(state: &SqlState) -> Remedy {
    // Of a server that is not the primary yet, or not any more.
    if *state == SqlState::READ_ONLY_SQL_TRANSACTION {
        return Remedy::Wait;
    }
    match state.code().get(..2).unwrap_or_default() {
        // Connections, transactions that lost a race, resources and disks, a server that stops.
        "08" | "40" | "53" | "55" | "57" | "58" => Remedy::Wait,
        // Data, constraints, limits, a row hit twice by one statement, RAISE in a trigger.
        "21" | "22" | "23" | "44" | "54" | "P0" => Remedy::LeaveOut,
        _ => Remedy::Mend,
    }
}

/// The error in one line: with the state by which it can be looked up, and what Postgres advises.
fn said(error: &Error) -> String {
    let Some(database) = error.as_db_error() else {
        let cause = std::error::Error::source(error).map(ToString::to_string);
        return match cause.filter(|cause| !error.to_string().contains(cause)) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        };
    };
    let mut text = format!("{} (SQLSTATE {})", database.message(), database.code().code());
    for more in [database.detail(), database.hint()].into_iter().flatten() {
        text.push_str("; ");
        text.push_str(more);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_has_its_remedy() {
        let cases = [
            (SqlState::DISK_FULL, Remedy::Wait),
            (SqlState::ADMIN_SHUTDOWN, Remedy::Wait),
            (SqlState::CANNOT_CONNECT_NOW, Remedy::Wait),
            (SqlState::T_R_DEADLOCK_DETECTED, Remedy::Wait),
            (SqlState::READ_ONLY_SQL_TRANSACTION, Remedy::Wait),
            (SqlState::UNIQUE_VIOLATION, Remedy::LeaveOut),
            (SqlState::UNTRANSLATABLE_CHARACTER, Remedy::LeaveOut),
            (SqlState::STATEMENT_TOO_COMPLEX, Remedy::LeaveOut),
            (SqlState::UNDEFINED_TABLE, Remedy::Mend),
            (SqlState::INSUFFICIENT_PRIVILEGE, Remedy::Mend),
            (SqlState::INVALID_PASSWORD, Remedy::Mend),
        ];
        for (state, expected) in cases {
            assert_eq!(remedy(&state), expected, "{}", state.code());
        }
    }
}
