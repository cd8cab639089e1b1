//! `--postgres URL`: where the read models are.

use std::path::PathBuf;

use quipu_replicator::Postgres;

use crate::failure::Failure;
use crate::files;

/// Where the read models are.
#[derive(clap::Args, Clone)]
pub(crate) struct PostgresArgs {
    /// Address: `postgres://USER@HOST:PORT/DATABASE?sslmode=require`; port and mode may be left out
    // Not needed where a command has commands of its own.
    #[arg(long, value_name = "URL", required = true)]
    postgres: Option<String>,
    /// Schema of the tables; it is made where it is missing.
    #[arg(long, value_name = "NAME", default_value = "public")]
    schema: String,
    /// File of the certificates (PEM) to trust; default: those the system trusts.
    #[arg(long, value_name = "FILE")]
    postgres_ca: Option<PathBuf>,
}

impl PostgresArgs {
    /// It, not connected to yet.
    pub(crate) fn open(&self) -> Result<Postgres, Failure> {
        let ca = self.postgres_ca.as_deref().map(files::read_whole).transpose()?;
        let missing = || Failure::Usage("give --postgres".to_owned());
        let address = self.postgres.as_ref().ok_or_else(missing)?;
        let postgres = Postgres::new(address, &self.schema, ca.as_deref())?;
        Ok(match std::env::var("PGPASSWORD") {
            Ok(password) => postgres.with_password(&password),
            Err(_) => postgres,
        })
    }
}
