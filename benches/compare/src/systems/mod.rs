//! The systems that are compared, behind one trait: each is started afresh in a folder of its own.

mod fjall;
mod jsonb;
mod postgres;
pub(crate) mod quipu;
mod redis;
#[cfg(feature = "umadb")]
mod umadb;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use crate::figures::{Figures, Tally};
use crate::folder::Folder;
use crate::process::{Server, output_of, tied};
use crate::workload::Workload;

/// Whose systems to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Maker {
    Quipu,
    Fjall,
    Redis,
    Postgres,
    Umadb,
}

/// One way to run a system: a line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum System {
    QuipuEmbedded,
    Fjall,
    QuipuServer,
    RedisStreams,
    RedisChecked,
    Postgres,
    PostgresCopy,
    UmaDb,
    /// Quipu's client and framing against a server that stores nothing: a ceiling, no rival.
    QuipuEcho,
}

/// Where programs and data are.
pub(crate) struct Environment {
    pub(crate) quipu: PathBuf,
    pub(crate) umadb: Option<PathBuf>,
    pub(crate) folder: PathBuf,
    /// More arguments for a rival's server.
    pub(crate) with: Vec<(Maker, String)>,
}

impl Environment {
    fn arguments(&self, maker: Maker) -> impl Iterator<Item = &str> {
        let own = self.with.iter().filter(move |(of, _)| *of == maker);
        own.flat_map(|(_, arguments)| arguments.split_whitespace())
    }
}

/// A system that runs.
pub(crate) trait Running {
    /// Does the work for so long; `None` where the system has no such thing.
    fn measure(&mut self, workload: Workload, duration: Duration) -> Result<Option<Figures>>;
}

impl System {
    /// All, in the order of the table.
    pub(crate) const ALL: [Self; 9] = [
        Self::QuipuEmbedded,
        Self::Fjall,
        Self::QuipuServer,
        Self::RedisStreams,
        Self::RedisChecked,
        Self::Postgres,
        Self::PostgresCopy,
        Self::UmaDb,
        Self::QuipuEcho,
    ];

    /// As tables and plots call it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::QuipuEmbedded => "Quipu, embedded",
            Self::Fjall => "fjall, embedded",
            Self::QuipuServer => "Quipu over TCP",
            Self::RedisStreams => "Redis stream, no version check",
            Self::RedisChecked => "Redis stream, version checked by a script",
            Self::Postgres => "PostgreSQL, INSERT (100: unnest)",
            Self::PostgresCopy => "PostgreSQL, COPY",
            Self::UmaDb => "UmaDB",
            Self::QuipuEcho => "Quipu's echo, stores nothing",
        }
    }

    /// Whose it is.
    pub(crate) fn maker(self) -> Maker {
        match self {
            Self::QuipuEmbedded | Self::QuipuServer | Self::QuipuEcho => Maker::Quipu,
            Self::Fjall => Maker::Fjall,
            Self::RedisStreams | Self::RedisChecked => Maker::Redis,
            Self::Postgres | Self::PostgresCopy => Maker::Postgres,
            Self::UmaDb => Maker::Umadb,
        }
    }

    /// The Quipu that it is to be compared with; none for Quipu itself.
    pub(crate) fn rivals(self) -> Option<Self> {
        match self {
            Self::QuipuEmbedded | Self::QuipuServer | Self::QuipuEcho => None,
            Self::Fjall => Some(Self::QuipuEmbedded),
            _ => Some(Self::QuipuServer),
        }
    }

    /// Starts it in an empty folder.
    pub(crate) fn start(self, environment: &Environment) -> Result<Box<dyn Running + '_>> {
        let folder = Folder::create(&environment.folder, &format!("{self:?}").to_lowercase())?;
        Ok(match self {
            Self::QuipuEmbedded => Box::new(quipu::Embedded::new(environment, folder)),
            Self::QuipuServer => Box::new(quipu::Served::start(environment, folder)?),
            Self::QuipuEcho => Box::new(quipu::Echo::new(environment)),
            Self::Fjall => Box::new(fjall::Fjall::open(folder)?),
            Self::RedisStreams => {
                Box::new(redis::Redis::start(environment, folder, redis::Check::None)?)
            }
            Self::RedisChecked => {
                Box::new(redis::Redis::start(environment, folder, redis::Check::Script)?)
            }
            Self::Postgres => {
                Box::new(postgres::Postgres::start(environment, folder, postgres::Bulk::Unnest)?)
            }
            Self::PostgresCopy => {
                Box::new(postgres::Postgres::start(environment, folder, postgres::Bulk::Copy)?)
            }
            #[cfg(feature = "umadb")]
            Self::UmaDb => Box::new(umadb::UmaDb::start(environment, folder)?),
            #[cfg(not(feature = "umadb"))]
            Self::UmaDb => anyhow::bail!("this program was built without UmaDB's client"),
        })
    }

    /// Its version, as its program says it.
    pub(crate) fn version(self, environment: &Environment) -> Result<String> {
        let said = |program: &Path| output_of(tied(program, None).arg("--version"));
        Ok(match self.maker() {
            Maker::Quipu => last_word(&said(&environment.quipu)?),
            Maker::Fjall => locked_version(include_str!("../../Cargo.lock"), "fjall")?,
            Maker::Redis => word_after(&said(Path::new("redis-server"))?, "v=")?,
            Maker::Postgres => word_after(&said(&postgres::bin()?.join("postgres"))?, ") ")?,
            Maker::Umadb => last_word(&said(umadb_program(environment)?)?),
        })
    }

    /// How it is set up and what an append is to it.
    pub(crate) fn settings(self, environment: &Environment) -> String {
        let settings = match self {
            Self::QuipuEmbedded => quipu::EMBEDDED.to_owned(),
            Self::QuipuServer => quipu::SERVED.to_owned(),
            Self::QuipuEcho => quipu::ECHO.to_owned(),
            Self::Fjall => fjall::SETTINGS.to_owned(),
            Self::RedisStreams => redis::settings(redis::Check::None),
            Self::RedisChecked => redis::settings(redis::Check::Script),
            Self::Postgres => postgres::settings(postgres::Bulk::Unnest),
            Self::PostgresCopy => postgres::settings(postgres::Bulk::Copy),
            Self::UmaDb => UMADB_SETTINGS.to_owned(),
        };
        let more: Vec<&str> = environment.arguments(self.maker()).collect();
        if more.is_empty() { settings } else { format!("{settings}; with `{}`", more.join(" ")) }
    }
}

const UMADB_SETTINGS: &str = "its defaults; the aggregate's id is a tag, and an append fails if \
    the aggregate has events after the last that its writer knows; a connection a client";

fn umadb_program(environment: &Environment) -> Result<&Path> {
    environment.umadb.as_deref().context("UmaDB's server could not be built here")
}

fn last_word(text: &str) -> String {
    text.split_whitespace().last().unwrap_or_default().to_owned()
}

fn word_after(text: &str, mark: &str) -> Result<String> {
    let (_, rest) = text.split_once(mark).with_context(|| format!("no version in {text:?}"))?;
    Ok(rest.split_whitespace().next().unwrap_or_default().to_owned())
}

fn locked_version(lock: &str, package: &str) -> Result<String> {
    let (_, rest) = lock
        .split_once(&format!("name = \"{package}\"\nversion = \""))
        .with_context(|| format!("{package} is not in Cargo.lock"))?;
    Ok(rest.split('"').next().unwrap_or_default().to_owned())
}

/// One thread drives all clients of a rival, as `quipu bench append` does with its own.
fn one_thread() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// What a server has used from here to [`Meter::figures`].
struct Meter {
    cpu_seconds_before: f64,
    disk_bytes_before: u64,
}

impl Meter {
    fn start(server: &Server, folder: &Folder) -> Self {
        Self { cpu_seconds_before: server.cpu_seconds(), disk_bytes_before: folder.used_bytes() }
    }

    fn figures(
        &self,
        workload: Workload,
        tally: &Tally,
        server: &Server,
        folder: &Folder,
    ) -> Figures {
        let grown = folder.used_bytes().saturating_sub(self.disk_bytes_before);
        Figures {
            events: tally.events,
            seconds: tally.seconds,
            latency_us: tally.percentiles(),
            cpu_seconds: server.cpu_seconds() - self.cpu_seconds_before,
            disk_bytes: workload.shape().map(|_| grown),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_programs_say() {
        let redis = "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64";
        assert_eq!(word_after(redis, "v=").unwrap(), "7.0.15");
        let postgres = "postgres (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)";
        assert_eq!(word_after(postgres, ") ").unwrap(), "15.14");
        assert_eq!(last_word("quipu 0.1.0\n"), "0.1.0");
        assert!(locked_version(include_str!("../../Cargo.lock"), "fjall").unwrap().contains('.'));
    }
}
