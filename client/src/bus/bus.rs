//! The event bus, as a host holds it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_executor::Task;
use futures::FutureExt;
use futures::future::{select, select_all};
use futures_timer::Delay;
use parking_lot::Mutex;
use quipu_types::{Append, AppendError, AppendOutcome, Checkpoint, NewEvent, Position, ReadError};

use super::calls::{Calls, Code};
use super::control;
use super::delivery::{Delivery, HandlerError};
use super::driver::Driver;
use super::error::BusError;
use super::handler::{Begin, Handler, check_name};
use super::lease::{Claim, Taken, take};
use super::metrics::HandlerMetrics;
use super::notes::HandlerNotes;
use super::options::BusOptions;
use super::places::{Place, Places};
use super::shared::{BusShared, HandlerShared, end_of};
use super::source::Source;
use super::stop::Stop;
use super::workers::Workers;
use crate::stamps::{Stamps, SystemStamps};
use crate::store::EventStore;

/// Handlers of one bus: their places are one record.
const HANDLERS_MAX: usize = 1_000;
/// How often places are saved, at most.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// Durable handlers of what is in the log.
///
/// ```
/// # use std::sync::Arc;
/// # use quipu_client::*;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # futures::executor::block_on(async {
/// # let folder = tempfile::tempdir()?;
/// # let (heard, hears) = std::sync::mpsc::channel();
/// let log = Arc::new(Embedded::open(folder.path(), Options::default())?);
/// let bus = EventBus::open(log.clone(), BusOptions::default()).await?;
/// bus.subscribe(Handler::new("invoices").of_type("CallCompleted"), move |delivery| {
///     // At least once, in order: what it does must bear a repetition.
///     heard.send(delivery.record().aggregate_id().to_owned()).map_err(HandlerError::because)
/// })
/// .await?;
/// let call = AggregateKey::new("Call", "42");
/// let ended = log.new_event(call, "CallCompleted", r#"{"seconds":61}"#);
/// bus.publish(vec![ended]).await?; // durable when it answers; nobody waits for a handler
/// assert_eq!(hears.recv()?, "42");
/// bus.stop().await?;
/// # Ok(())
/// # })
/// # }
/// ```
///
/// **Once and again.** Each handler has a place in the log, saved at most once a second. It starts
/// where it stopped and hears of every event at least once: what came between its last saved place
/// and a kill comes again.
///
/// **Failing handlers.** An attempt that fails, panics or takes too long is made again after the
/// pauses of [`Backoff`](super::Backoff); then the event is parked: noted in the log with its
/// error, to be listed, handled again or dropped ([`HandlerNotes`]). Until then its lane waits: the
/// whole handler with `subscribe`, its aggregate with `subscribe_async`. Other handlers and
/// publishers never wait.
///
/// **Threads.** Each handler has a thread of its own for its code, so that it may block; one that
/// is stuck is replaced, 16 at most at once. Futures of `subscribe_async` run on threads of the
/// handler, outside of any runtime of the host: a handler that needs one spawns onto its handle.
///
/// **One at a time.** A bus runs in one process at a time; [`BusOptions::if_held`] says what
/// happens to a second one.
///
/// Dropping it gives back what is in hand without saving places; [`Self::stop`] ends it in order.
pub struct EventBus {
    shared: Arc<BusShared>,
    tasks: Mutex<Vec<Task<()>>>,
    saver: Mutex<Option<Task<()>>>,
    workers: Workers,
    /// The last position when the bus was opened, and the handlers whose places were past it. What
    /// this run saves later cannot be.
    end: Position,
    past_end: Vec<String>,
    _claim: Option<Claim>,
}

impl EventBus {
    /// Opens the bus of this name on a log.
    ///
    /// # Errors
    /// That it runs already, that its places belong to another log, or that the log refuses.
    pub async fn open(store: Arc<dyn EventStore>, options: BusOptions) -> Result<Self, BusError> {
        check_name("bus", &options.name)?;
        let run = SystemStamps.next().event_id;
        let workers = Workers::start(&format!("quipu-{}", options.name), options.threads)?;
        let end = end_of(&*store).await?;
        let Taken { places, since, claim } = take(&store, &options, run).await?;
        let shared = Arc::new(BusShared {
            store,
            name: options.name,
            run,
            places,
            handlers: Mutex::default(),
            stop: Stop::default(),
            lost: Stop::default(),
            problem: Mutex::default(),
        });
        let end = end.max(shared.end().await?);
        let handlers = shared.places.last().await.handlers.into_iter();
        let past_end = handlers.filter(|(_, place)| place.position > end).map(|(name, _)| name);
        let past_end = past_end.collect();
        let listening = listen(Arc::clone(&shared), since);
        let (tasks, saver) = (workers.spawn(listening), workers.spawn(save(Arc::clone(&shared))));
        let (tasks, saver) = (Mutex::new(vec![tasks]), Mutex::new(Some(saver)));
        Ok(Self { shared, tasks, saver, workers, end, past_end, _claim: claim })
    }

    /// Appends events. When it answers they are durable and visible; handlers come to them by
    /// themselves. The same as [`EventStore::append`] without expectations.
    ///
    /// # Errors
    /// As [`EventStore::append`].
    pub async fn publish(&self, events: Vec<NewEvent>) -> Result<AppendOutcome, AppendError> {
        self.shared.store.append(Append::any(events)).await
    }

    /// Subscribes a handler that is given one event after the other, in the order of the log.
    ///
    /// # Errors
    /// That the name is taken, or belongs to a handler of other events; that its place is past the
    /// end of the log; that the log refuses.
    pub async fn subscribe(
        &self,
        handler: Handler,
        code: impl Fn(&Delivery) -> Result<(), HandlerError> + Send + Sync + 'static,
    ) -> Result<(), BusError> {
        let handler = Handler { threads: 1, ..handler };
        self.start(handler, Code::Sync(Arc::new(code))).await
    }

    /// Subscribes a handler that is given several events at once, but one after the other of each
    /// aggregate.
    ///
    /// # Errors
    /// As [`Self::subscribe`].
    pub async fn subscribe_async<F>(
        &self,
        handler: Handler,
        code: impl Fn(Delivery) -> F + Send + Sync + 'static,
    ) -> Result<(), BusError>
    where
        F: Future<Output = Result<(), HandlerError>> + Send + 'static,
    {
        let code = Arc::new(move |delivery| code(delivery).boxed());
        self.start(handler, Code::Async(code)).await
    }

    /// The notes of a handler: what is parked, and what is to become of it.
    ///
    /// # Errors
    /// That there is no such handler, or the log cannot be read.
    pub async fn notes(&self, handler: &str) -> Result<HandlerNotes, BusError> {
        HandlerNotes::of(Arc::clone(&self.shared.store), &*self.shared.name, handler).await
    }

    /// What each handler did, and how far it is.
    ///
    /// # Errors
    /// That the end of the log cannot be read.
    pub async fn metrics(&self) -> Result<BTreeMap<String, HandlerMetrics>, ReadError> {
        let end = self.shared.end().await?;
        let handlers = self.shared.handlers.lock();
        Ok(handlers.iter().map(|(name, it)| (name.clone(), it.metrics(end))).collect())
    }

    /// Why places could not be saved, if they could not be the last time.
    pub fn problem(&self) -> Option<String> {
        self.shared.problem.lock().clone()
    }

    /// Ends the bus in order: what handlers are at is finished, within their time-outs; what waits
    /// is given back; places are saved, and the bus is free for others.
    ///
    /// # Errors
    /// That the places could not be saved: what was handled since the last time comes again.
    pub async fn stop(self) -> Result<(), BusError> {
        for handler in self.shared.handlers.lock().values() {
            handler.stop.set();
        }
        self.shared.stop.set();
        let tasks = std::mem::take(&mut *self.tasks.lock());
        let saver = self.saver.lock().take();
        for task in tasks.into_iter().chain(saver) {
            task.await;
        }
        if self.shared.lost.is_set() {
            return Err(BusError::Lost { bus: self.shared.name.clone() });
        }
        let now: Vec<(String, Place)> = {
            let handlers = self.shared.handlers.lock();
            handlers.iter().map(|(name, it)| (name.clone(), it.place())).collect()
        };
        let closed = |mut places: Places| {
            places.is_closed = true;
            places.handlers.extend(now);
            places
        };
        self.shared.places.save(closed).await.map(drop)
    }

    async fn start(&self, settings: Handler, code: Code) -> Result<(), BusError> {
        check_name("handler", &settings.name)?;
        let position = self.place_of(&settings).await?;
        let store = &self.shared.store;
        let workers = Workers::start(&format!("quipu-{}", settings.name), settings.threads)?;
        let handler = Arc::new(HandlerShared::new(settings, position));
        self.register(&handler).await?;
        let calls = Calls {
            code,
            workers: Arc::new(workers),
            timeout: handler.settings.timeout,
            meter: Arc::clone(&handler.meter),
            stop: Arc::clone(&handler.stop),
        };
        let place = Checkpoint { log_id: store.log_id(), position };
        let filter = handler.settings.subject.filter();
        let source = Source::new(Arc::clone(store), filter, place);
        let driver = Driver::new(Arc::clone(&self.shared), handler, calls, source, position);
        self.tasks.lock().push(self.workers.spawn(driver.run()));
        Ok(())
    }

    /// Where the handler begins.
    async fn place_of(&self, settings: &Handler) -> Result<Position, BusError> {
        let (handler, given) = (settings.name.clone(), settings.subject.clone());
        match self.shared.places.last().await.handlers.get(&handler) {
            Some(place) if place.subject != given => {
                Err(BusError::OtherSubject { handler, saved: place.subject.clone(), given })
            }
            Some(place) if self.past_end.contains(&handler) => {
                Err(BusError::PastEnd { handler, given: place.position, end: self.end })
            }
            Some(place) => Ok(place.position),
            None if settings.begin == Begin::End => Ok(self.shared.end().await?),
            None => Ok(Position::START),
        }
    }

    /// Makes the handler known.
    async fn register(&self, handler: &Arc<HandlerShared>) -> Result<(), BusError> {
        let name = handler.name().to_owned();
        {
            let mut handlers = self.shared.handlers.lock();
            if self.shared.lost.is_set() {
                return Err(BusError::Lost { bus: self.shared.name.clone() });
            }
            if handlers.contains_key(&name) {
                return Err(BusError::NameTaken { handler: name });
            }
            if handlers.len() >= HANDLERS_MAX {
                return Err(BusError::TooManyHandlers { limit: HANDLERS_MAX });
            }
            handlers.insert(name.clone(), Arc::clone(handler));
        }
        let mut taken = TakenName { bus: &self.shared, name: Some(name) };
        self.begin(handler).await?;
        taken.name = None;
        Ok(())
    }

    /// Reads the handler's notes, of which it hears by now; and saves its place, so that it is
    /// known from here on whatever happens.
    async fn begin(&self, handler: &HandlerShared) -> Result<(), BusError> {
        let BusShared { store, name: bus, places, .. } = &*self.shared;
        handler.remember(&**store, bus).await?;
        let (name, place) = (handler.name(), handler.place());
        if places.last().await.handlers.get(name) == Some(&place) {
            return Ok(());
        }
        let saved = places.save(|mut places| {
            places.handlers.insert(name.to_owned(), place);
            places
        });
        saved.await.map(drop)
    }
}

impl Drop for EventBus {
    fn drop(&mut self) {
        self.shared.stop.set();
        for handler in self.shared.handlers.lock().values() {
            handler.stop.set();
        }
        // Cancelled, so that nothing holds the log any longer.
        drop(std::mem::take(&mut *self.tasks.lock()));
        drop(self.saver.lock().take());
        self.workers.join();
    }
}

/// A name that is free again unless its handler begins, whoever gives up before that.
struct TakenName<'bus> {
    bus: &'bus BusShared,
    name: Option<String>,
}

impl Drop for TakenName<'_> {
    fn drop(&mut self) {
        self.name.take().map(|name| self.bus.handlers.lock().remove(&name));
    }
}

async fn listen(bus: Arc<BusShared>, after: Position) {
    let listening = control::listen(Arc::clone(&bus), after).boxed();
    select_all([listening, bus.stop.wait().boxed()]).await;
}

/// Saves places from time to time.
async fn save(bus: Arc<BusShared>) {
    while !bus.stop.is_set() && !bus.lost.is_set() {
        select(Delay::new(SAVE_EVERY), bus.stop.wait().boxed()).await;
        if !bus.stop.is_set() {
            bus.save_places().await;
        }
    }
}
