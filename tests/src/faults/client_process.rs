//! A client in a process of its own, that is killed: its journal tells what it did.
#![expect(clippy::disallowed_types, reason = "it reads the journal of such a process")]

use std::fs::{File, OpenOptions};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use fastrand::Rng;
use quipu_client::Position;
use tokio::sync::watch;

use super::client::{Client, connect, remote_options};
use super::crowd::FIRST_PROCESS;
use super::follower::Follower;
use super::phase::Phase;
use super::recorder::Recorder;
use super::workload::{Earlier, Workload};
use crate::history::calls::Item;
use crate::history::journal::{Entry, History};

/// What such a process is told.
#[derive(clap::Args, Clone, Debug)]
pub struct ProcessArgs {
    /// The server.
    #[arg(long)]
    pub address: String,
    /// Folder for its journals.
    #[arg(long)]
    pub journals: PathBuf,
    /// Its number; it also subscribes, as the next one.
    #[arg(long)]
    pub number: u32,
    /// The last position that its predecessor had heard.
    #[arg(long)]
    pub after: u64,
    #[arg(long)]
    pub seed: u64,
}

/// Works until it is killed.
pub fn run(args: &ProcessArgs) -> Result<()> {
    let journal = |number: u32| {
        let path = args.journals.join(number.to_string());
        OpenOptions::new().create_new(true).append(true).open(path)
    };
    let (_working, phase) = watch::channel(Phase::Work);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let store = connect(&args.address, remote_options(1)).await?;
        let follower = Follower {
            store: store.clone(),
            recorder: Recorder::in_file(args.number + 1, journal(args.number + 1)?),
            rng: Rng::with_seed(args.seed),
            of: None,
            after: Some(Position(args.after)),
        };
        let client = Client {
            store,
            workload: Workload::new(args.seed, args.number, Earlier::default(), 200),
            recorder: Recorder::in_file(args.number, journal(args.number)?),
            in_flight: 4,
            pause: None,
        };
        tokio::try_join!(client.run(phase.clone()), follower.run(phase))?;
        Ok(())
    })
}

/// Such a process, and those that took its place when it was killed.
pub struct ClientProcess {
    child: Child,
    address: String,
    journals: PathBuf,
    number: u32,
    seed: u64,
}

impl ClientProcess {
    pub fn start(address: &str, journals: &Path, seed: u64) -> Result<Self> {
        let (address, journals) = (address.to_owned(), journals.to_owned());
        let child = spawn(&address, &journals, FIRST_PROCESS, 0, seed)?;
        Ok(Self { child, address, journals, number: FIRST_PROCESS, seed })
    }

    /// Kills it, and starts the next: it goes on where this one was.
    pub fn kill_and_start_again(&mut self) -> Result<()> {
        self.kill()?;
        let after = last_heard(&journal(&self.journals, self.number + 1)?);
        self.number += 2;
        let Self { address, journals, number, seed, .. } = self;
        self.child = spawn(address, journals, *number, after, *seed + u64::from(*number))?;
        Ok(())
    }

    /// What all of them did.
    pub fn end(mut self) -> Result<Vec<Entry>> {
        self.kill()?;
        let mut all = Vec::new();
        for number in FIRST_PROCESS..=self.number + 1 {
            all.extend(journal(&self.journals, number)?);
        }
        Ok(all)
    }

    fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for ClientProcess {
    fn drop(&mut self) {
        self.kill().ok();
    }
}

fn spawn(address: &str, journals: &Path, number: u32, after: u64, seed: u64) -> Result<Child> {
    let program = std::env::current_exe()?;
    Command::new(program)
        .args(["client", "--address", address, "--journals"])
        .arg(journals)
        .args(["--number", &number.to_string(), "--after", &after.to_string()])
        .args(["--seed", &seed.to_string()])
        .stdin(Stdio::null())
        .spawn()
        .context("cannot start a client")
}

/// The lines of a journal; it may have been killed before it began one.
fn journal(journals: &Path, number: u32) -> Result<Vec<Entry>> {
    match File::open(journals.join(number.to_string())) {
        Ok(file) => Ok(History::entries(BufReader::new(file)).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

fn last_heard(journal: &[Entry]) -> u64 {
    let heard = journal.iter().rev().find_map(|entry| match entry {
        Entry::Heard(_, heard) => heard.last().map(|heard| heard.item),
        Entry::Following(following) => following.after.map(Item::Mark),
        _ => None,
    });
    heard.map_or(0, |item| match item {
        Item::Event(seen) => seen.position.0,
        Item::Mark(position) => position.0,
    })
}
