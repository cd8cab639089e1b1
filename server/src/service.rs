//! What all connections of one server share, and how a connection comes in: over any pair of byte
//! streams, sockets or not.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quipu_engine::EventLog;
use quipu_protocol::message_bytes_max;
use quipu_protocol::stream::RECORDS_HEAD_BYTES;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use crate::bell::Bell;
use crate::budget::Budget;
use crate::connection;
use crate::herald::Herald;
use crate::meter::Meter;
use crate::options::ServerOptions;
use crate::readers::Readers;

/// So many connections that are too many are told so at once; more are just closed.
const REFUSALS_MAX: usize = 64;

const HEARTBEAT_MIN: Duration = Duration::from_millis(10);
const LINGER_MAX: Duration = Duration::from_hours(1);

/// A log, served.
pub struct Service {
    pub(crate) log: Arc<EventLog>,
    pub(crate) options: ServerOptions,
    pub(crate) meter: Arc<Meter>,
    pub(crate) bell: Bell,
    pub(crate) herald: Herald,
    pub(crate) appends: Arc<Budget>,
    pub(crate) output: Arc<Budget>,
    pub(crate) readers: Readers,
    pub(crate) stop: CancellationToken,
    /// Stopping has taken too long: what is left is cut off.
    pub(crate) kill: CancellationToken,
}

/// What a server holds at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Connections open.
    pub connections: usize,
    /// Reads and subscriptions open.
    pub streams: usize,
    /// Subscriptions among them.
    pub subscribers: usize,
    /// Bytes of appends that are not answered.
    pub append_bytes: usize,
    /// Bytes of records that are not written.
    pub output_bytes: usize,
    /// Streams for which the disk is read, or is to be.
    pub reading: usize,
}

impl Service {
    /// Serves a log, on the runtime that this is called on.
    #[must_use]
    pub fn new(log: Arc<EventLog>, mut options: ServerOptions) -> Arc<Self> {
        // A page is one message, and no message is longer than the log's limits make it.
        let message_bytes = message_bytes_max(&log.shared().options.limits);
        options.page_bytes = options.page_bytes.clamp(1, message_bytes - RECORDS_HEAD_BYTES);
        options.heartbeat = options.heartbeat.max(HEARTBEAT_MIN);
        options.linger = options.linger.min(LINGER_MAX);
        let meter = Arc::<Meter>::default();
        Arc::new(Self {
            bell: Bell::of(Arc::clone(&log)),
            herald: Herald::of(Arc::clone(&log), Arc::clone(&meter)),
            appends: Arc::new(Budget::new(options.append_bytes)),
            output: Arc::new(Budget::new(options.output_bytes)),
            readers: Readers::start(),
            meter,
            stop: CancellationToken::new(),
            kill: CancellationToken::new(),
            log,
            options,
        })
    }

    /// One connection, from its first byte to its last.
    pub async fn serve<R, W>(self: Arc<Self>, reader: R, writer: W, peer: String)
    where
        R: AsyncRead + Unpin + Send,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let counted = self.meter.count(|meter| &meter.connections);
        if counted.before < self.options.connections_max {
            Meter::add(&self.meter.connections_total, 1);
            return connection::serve(self, reader, writer, &peer).await;
        }
        drop(counted);
        Meter::add(&self.meter.refused_total, 1);
        let counted = self.meter.count(|meter| &meter.refusals);
        if counted.before < REFUSALS_MAX {
            connection::refuse(Arc::clone(&self), reader, writer, &peer).await;
        }
    }

    /// Lets no new request in, ends the streams, answers what is admitted, says goodbye.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// What is held now.
    pub fn load(&self) -> Load {
        Load {
            connections: self.meter.connections.load(Ordering::Relaxed),
            streams: self.meter.streams.load(Ordering::Relaxed),
            subscribers: self.meter.subscribers(),
            append_bytes: self.appends.held(),
            output_bytes: self.output.held(),
            reading: self.readers.unfinished(),
        }
    }
}
