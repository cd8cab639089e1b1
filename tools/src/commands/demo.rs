//! `quipu demo`: shows in a few seconds what Quipu is, on a log that is removed afterwards.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use futures::executor::block_on;
use quipu_client::{
    AggregateKey, Append, Embedded, EventStore, ExpectedVersion, Filter, NewEvent, ReadRequest,
    StartAfter, SubscribeRequest, SubscriptionItem, Version,
};
use serde_json::json;

use super::bench::append::{Plan, measure};
use super::bench::events::Ids;
use super::verify::check;
use crate::failure::Failure;
use crate::log_args::{LogArgs, status_of};
use crate::output::{Output, terminal_columns};
use crate::record_printer::RecordPrinter;
use crate::session::Target;
use crate::temporary_log::TemporaryLog;
use crate::units;
use crate::wait::{now, pause_until, since, until};

/// Long enough to read a step, short enough for the whole tour.
const STEP_PAUSE: Duration = Duration::from_millis(600);
const FOLLOW_PATIENCE: Duration = Duration::from_secs(10);

/// Where the tour takes place.
#[derive(clap::Args)]
#[command(after_help = "Example:\n  quipu demo --in .        on the disk of this folder")]
pub(crate) struct Args {
    /// Where the temporary log goes. Default: the system's folder for temporary files.
    #[arg(long = "in", value_name = "DIR")]
    parent: Option<PathBuf>,
}

/// Gives the tour.
pub(crate) fn run(args: &Args, out: &mut Output) -> Result<(), Failure> {
    let parent = args.parent.clone().unwrap_or_else(std::env::temp_dir);
    let folder = TemporaryLog::create(&parent, "quipu-demo-")?;
    let place = LogArgs::at(folder.path().to_owned());
    let mut tour = Tour { out, log: place.open()?, step: 0 };
    tour.welcome(folder.path())?;
    let first = tour.append()?;
    tour.conflict()?;
    tour.retry(first)?;
    tour.read()?;
    tour.follow()?;
    tour.measure_disk()?;
    let Tour { out, log, step } = tour;
    log.close();
    let mut tour = Tour { out, log: place.open()?, step };
    tour.reopen()?;
    tour.verify(&place)?;
    tour.log.close();
    folder.close()?;
    farewell(out)
}

fn farewell(out: &mut Output) -> Result<(), Failure> {
    if out.is_json() {
        return Ok(());
    }
    out.line("\nThat was Quipu; the temporary log is gone. A log of your own:\n")?;
    out.line("  quipu append --log ./log Call 42 --event-type Created --data '{\"from\":\"me\"}'")?;
    out.line("  quipu read   --log ./log Call 42")?;
    out.line("  quipu --help")
}

struct Tour<'a> {
    out: &'a mut Output,
    log: Embedded,
    step: u64,
}

impl Tour<'_> {
    fn welcome(&mut self, folder: &Path) -> Result<(), Failure> {
        if self.out.is_json() {
            return Ok(());
        }
        self.out.line("Quipu keeps events: what happened, in one order, for good.")?;
        let storage = status_of(&self.log)?.storage;
        self.out.line(format_args!("This log is in {} ({storage}).", folder.display()))
    }

    fn append(&mut self) -> Result<NewEvent, Failure> {
        self.title("Append", "Answered once the event is on stable storage, never before.")?;
        let event = self.event("Created", r#"{"from":"+41 44 668 18 00","to":"support"}"#);
        let started = now();
        let append = Append::one(event.clone(), ExpectedVersion::NoStream);
        let outcome = block_on(self.log.append(append))?;
        let took = units::duration(since(started));
        let position = outcome.last_position();
        self.say(&format!("Call/42 Created is at position {position}, durable in {took}"))?;
        Ok(event)
    }

    fn conflict(&mut self) -> Result<(), Failure> {
        self.title("Two writers", "Both have seen version 1, so only one of them can be right.")?;
        let expected = ExpectedVersion::Exact(Version(1));
        let answered = self.event("Answered", r#"{"by":"Ana"}"#);
        let outcome = block_on(self.log.append(Append::one(answered, expected)))?;
        self.say(&format!("Ana answers:  stored at position {}", outcome.last_position()))?;
        let late = self.event("Answered", r#"{"by":"Ben"}"#);
        match block_on(self.log.append(Append::one(late, expected))) {
            Ok(_) => Err(Failure::No("the log took a stale write".to_owned())),
            Err(conflict) => self.say(&format!("Ben answers:  {conflict}")),
        }
    }

    fn retry(&mut self, first: NewEvent) -> Result<(), Failure> {
        self.title("Retry", "The answer got lost? Send the event again: its id makes that safe.")?;
        let append = Append::one(first, ExpectedVersion::NoStream);
        let outcome = block_on(self.log.append(append))?;
        if !outcome.duplicate {
            return Err(Failure::No("the log stored an event twice".to_owned()));
        }
        let position = outcome.last_position();
        self.say(&format!("already stored at position {position}: nothing was new"))
    }

    fn read(&mut self) -> Result<(), Failure> {
        self.title("Read", "One aggregate's history, in order.")?;
        let filter = Filter::aggregate(AggregateKey::new("Call", "42"));
        let request = ReadRequest { filter, ..ReadRequest::default() };
        let records = block_on(self.log.read(request).next_batch())?;
        RecordPrinter::new().print(self.out, &records)
    }

    fn follow(&mut self) -> Result<(), Failure> {
        self.title("Follow", "A subscriber sees each event as soon as it is durable.")?;
        let request = SubscribeRequest { after: StartAfter::End, ..SubscribeRequest::default() };
        let mut subscription = self.log.subscribe(request)?;
        let ended = self.event("Ended", r#"{"seconds":73}"#);
        block_on(self.log.append(Append::any(vec![ended])))?;
        let acknowledged = now();
        loop {
            let next = pin!(subscription.next_batch());
            let Some(items) = until(next, acknowledged + FOLLOW_PATIENCE) else {
                return Err(Failure::No("the subscriber did not see the event".to_owned()));
            };
            let took = units::duration(since(acknowledged));
            for item in items? {
                if let SubscriptionItem::Event(record) = item {
                    let (position, event) = (record.position(), record.event_type().to_owned());
                    let text = format!("saw Call/42 {event} at position {position}");
                    return self.say(&format!("{text}, {took} after it was acknowledged"));
                }
            }
        }
    }

    fn measure_disk(&mut self) -> Result<(), Failure> {
        self.title("How fast", "1 KB events, each acknowledged only once it is durable.")?;
        let one = Plan {
            threads: 1,
            writers: 1,
            in_flight: 1,
            batch: 1,
            event_bytes: 1_024,
            aggregates: 100,
            ids: Ids::V7,
            unlinked: false,
            spread: false,
            events: None,
            seconds: 1,
            rate: None,
        };
        let many = Plan { in_flight: 8, batch: 100, seconds: 2, ..one.clone() };
        let alone = measure(&one, Target::Log(&self.log))?;
        if let Some(latency) = alone.latency_us {
            let [half, most] = [latency.p50, latency.p99].map(micros);
            self.say(&format!(
                "one at a time: half are durable within {half}, 99 % within {most}"
            ))?;
        }
        let together = measure(&many, Target::Log(&self.log))?;
        let rate = units::count(together.events / many.seconds);
        self.say(&format!("100 at a time, 8 such appends in flight: {rate} events a second"))
    }

    fn reopen(&mut self) -> Result<(), Failure> {
        self.title("Close and open", "Everything that was acknowledged is there.")?;
        let status = status_of(&self.log)?;
        let last = units::count(status.last_position.0);
        let bytes = units::bytes(status.bytes_on_disk);
        self.say(&format!("{last} events in {}, {bytes}", segments(status.segments.len())))
    }

    fn verify(&mut self, place: &LogArgs) -> Result<(), Failure> {
        self.title("Verify", "Every byte is covered by a checksum.")?;
        let started = now();
        let report = check(place, true)?;
        let took = units::duration(since(started));
        if let Some(damage) = report.damage.first() {
            return Err(Failure::No(damage.to_string()));
        }
        let events = units::plural(report.events, "event");
        self.say(&format!("{events} checked in {took}, no damage"))
    }

    fn event(&self, event_type: &str, data: &str) -> NewEvent {
        self.log.new_event(AggregateKey::new("Call", "42"), event_type, data)
    }

    fn title(&mut self, title: &str, meaning: &str) -> Result<(), Failure> {
        self.step += 1;
        let step = self.step;
        if self.out.is_json() {
            return self.out.object(&json!({ "step": step, "title": title, "meaning": meaning }));
        }
        self.out.line(format_args!("\n{step}. {title}. {meaning}"))?;
        self.out.flush()?;
        if terminal_columns().is_some() {
            pause_until(now() + STEP_PAUSE);
        }
        Ok(())
    }

    fn say(&mut self, text: &str) -> Result<(), Failure> {
        if self.out.is_json() {
            return self.out.object(&json!({ "step": self.step, "result": text }));
        }
        self.out.line(format_args!("   {text}"))?;
        self.out.flush()
    }
}

fn micros(micros: u64) -> String {
    units::duration(Duration::from_micros(micros))
}

fn segments(count: usize) -> String {
    units::plural(count as u64, "segment")
}
