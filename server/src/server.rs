//! A running server: both ports, and ending in order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quipu_engine::EventLog;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::http;
use crate::http_port::HttpPort;
use crate::listener::{self, Ports};
use crate::options::ServerOptions;
use crate::service::{Load, Service};

/// What cut off connections may take to end.
const CUT_OFF_WITHIN: Duration = Duration::from_secs(5);

/// A running server. Dropping it without [`Server::stop`] leaves it running in the background.
pub struct Server {
    service: Arc<Service>,
    connections: TaskTracker,
    address: SocketAddr,
    http_address: Option<SocketAddr>,
    http: Option<JoinHandle<()>>,
    http_stop: CancellationToken,
}

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Connections that did not end in time and were cut off.
    pub cut_off: usize,
}

/// Asks a server to stop, from anywhere.
#[derive(Clone)]
pub struct StopHandle(CancellationToken);

impl StopHandle {
    /// Asks it; [`Server::stopping`] resolves.
    pub fn stop(&self) {
        self.0.cancel();
    }
}

impl Server {
    /// Serves a log on open ports, on the runtime that this is called on.
    #[must_use]
    pub fn start(log: Arc<EventLog>, ports: Ports, options: ServerOptions) -> Self {
        let service = Service::new(log, options);
        let connections = TaskTracker::new();
        let http_stop = CancellationToken::new();
        let Ports { tcp, http, address, http_address } = ports;
        let tasks = connections.clone();
        connections.spawn(listener::accept(tcp, Arc::clone(&service), tasks));
        let http = http.map(|listener| {
            let (service, stop) = (Arc::clone(&service), http_stop.clone());
            let port = HttpPort::new(listener, Arc::clone(&service));
            tokio::spawn(http::serve(port, service, stop))
        });
        Self { service, connections, address, http_address, http, http_stop }
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where health and metrics are.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http_address
    }

    /// What is held now.
    pub fn load(&self) -> Load {
        self.service.load()
    }

    /// Something that can ask it to stop.
    pub fn stop_handle(&self) -> StopHandle {
        StopHandle(self.service.stop.clone())
    }

    /// Resolves when somebody has asked it to stop.
    pub async fn stopping(&self) {
        self.service.stop.cancelled().await;
    }

    /// Stops: takes no more connections and requests, answers what is admitted, says goodbye,
    /// closes the log in order.
    pub async fn stop(self) -> Stopped {
        self.service.stop();
        self.connections.close();
        let mut cut_off = 0;
        if timeout(self.service.options.stop_within, self.connections.wait()).await.is_err() {
            cut_off = self.connections.len();
            self.service.kill.cancel();
            if timeout(CUT_OFF_WITHIN, self.connections.wait()).await.is_err() {
                tracing::error!("connections did not end although they were cut off");
            }
        }
        let log = Arc::clone(&self.service.log);
        if spawn_blocking(move || log.close()).await.is_err() {
            tracing::error!("the log panicked while it was closed");
        }
        self.http_stop.cancel();
        if let Some(http) = self.http {
            // Whoever still asks for metrics is not waited for.
            timeout(CUT_OFF_WITHIN, http).await.ok();
        }
        Stopped { cut_off }
    }
}
