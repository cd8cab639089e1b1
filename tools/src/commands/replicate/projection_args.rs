//! `--projection NAME…`, `--sql FILE…`: which read models.

use std::path::PathBuf;
use std::sync::Arc;

use clap::ValueEnum;
use quipu_replicator::{
    AccountBalances, CallStatistics, Compliance, EVENT_STORE, EventSnapshots, EventStoreMirror,
    OnFailure, Projection, SqlProjection, UnfitJson,
};

use crate::failure::Failure;
use crate::files;

/// Which read models there are, and what they do with what they cannot apply.
#[derive(clap::Args, Clone)]
pub(crate) struct ProjectionArgs {
    /// File of projections in SQL (TOML); may be given several times.
    #[arg(long, value_name = "FILE")]
    sql: Vec<PathBuf>,
    /// Projection that keeps an event it cannot apply in `event_parked` and goes on, rather than
    /// stop; may be given several times.
    #[arg(long, value_name = "NAME")]
    park: Vec<String>,
    /// What `event_store` does with JSON that Postgres cannot hold.
    #[arg(long, value_enum, default_value_t = Unfit::Bytes)]
    unfit_json: Unfit,
}

/// What to do with JSON that Postgres cannot hold.
#[derive(Clone, Copy, ValueEnum)]
enum Unfit {
    /// Store its bytes.
    Bytes,
    /// It cannot be applied.
    Fail,
}

impl ProjectionArgs {
    /// All that there are, or those with these names.
    pub(crate) fn open(&self, names: &[String]) -> Result<Vec<Arc<dyn Projection>>, Failure> {
        let all = self.all()?;
        let known: Vec<&str> = all.iter().map(|projection| projection.name()).collect();
        for name in names.iter().chain(&self.park) {
            if !known.contains(&name.as_str()) {
                let known = known.join(", ");
                let text = format!("there is no projection {name:?}; there is {known}");
                return Err(Failure::Usage(text));
            }
        }
        let is_wanted = |name: &str| names.is_empty() || names.iter().any(|it| it == name);
        Ok(all.into_iter().filter(|projection| is_wanted(projection.name())).collect())
    }

    fn all(&self) -> Result<Vec<Arc<dyn Projection>>, Failure> {
        let on_failure = |name: &str| {
            let parks = self.park.iter().any(|parks| parks == name);
            if parks { OnFailure::Park } else { OnFailure::Stop }
        };
        let unfit_json = match self.unfit_json {
            Unfit::Bytes => UnfitJson::Bytes,
            Unfit::Fail => UnfitJson::Fail,
        };
        let mut all: Vec<Arc<dyn Projection>> = vec![
            Arc::new(EventStoreMirror::new(unfit_json, on_failure(EVENT_STORE))),
            Arc::new(EventSnapshots::new(on_failure("event_snapshots"))),
            Arc::new(Compliance::new(on_failure("compliance"))),
            Arc::new(CallStatistics::new(on_failure("call_statistics"))),
            Arc::new(AccountBalances::new(on_failure("account_balances"))),
        ];
        for file in &self.sql {
            let text = files::read_whole(file)?;
            let shown = file.display();
            let refuse = |problem: String| Failure::Usage(format!("{shown}: {problem}"));
            let text = String::from_utf8(text).map_err(|error| refuse(error.to_string()))?;
            let defined = SqlProjection::read(&text).map_err(|error| refuse(error.to_string()))?;
            for projection in defined {
                if all.iter().any(|it| it.name() == projection.name()) {
                    return Err(refuse(format!("{} is there twice", projection.name())));
                }
                let parks = self.park.iter().any(|parks| parks == projection.name());
                all.push(Arc::new(if parks { projection.parking() } else { projection }));
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_projection_in_sql_can_be_told_to_park_as_any_other() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("models.toml");
        let toml = "[[projection]]\nname = \"days\"\ntables = \"\"\nstatement = \"SELECT 1\"\n";
        quipu_tests::tamper::write(&file, toml);
        let on_failure = |park: &[&str]| {
            let park = park.iter().map(|&name| name.to_owned()).collect();
            let (sql, unfit_json) = (vec![file.clone()], Unfit::Bytes);
            let chosen = ProjectionArgs { sql, park, unfit_json }.open(&["days".to_owned()]);
            chosen.unwrap()[0].on_failure()
        };
        assert_eq!(on_failure(&[]), OnFailure::Stop);
        assert_eq!(on_failure(&["days"]), OnFailure::Park);
    }
}
