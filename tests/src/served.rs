//! A log behind a server on a loopback port, in this process.

#![expect(clippy::unwrap_used, reason = "test support: a failure is a panic with its reason")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use quipu_client::{Embedded, OpenError, Options, Remote, RemoteOptions};
use quipu_server::{Ports, Server, ServerOptions};
use tokio::runtime::Runtime;

/// A server that was killed leaves its log once the last append in it is answered.
const UNLOCKED_WITHIN: Duration = Duration::from_secs(10);

/// A server on a runtime of its own; dropping it kills both, as a crash would.
pub struct Served {
    runtime: Runtime,
    server: Option<Server>,
    port: u16,
}

impl Served {
    /// Serves the log in this folder on any free port.
    pub fn open(folder: &Path, options: Options, server: ServerOptions) -> Self {
        Self::open_at(0, folder, options, server)
    }

    /// Serves the log in this folder on this port.
    pub fn open_at(port: u16, folder: &Path, options: Options, server: ServerOptions) -> Self {
        let log = open_unlocked(folder, options);
        let runtime = Runtime::new().unwrap();
        let server = runtime.block_on(async {
            let ports = Ports::open(&format!("127.0.0.1:{port}"), None, false).await.unwrap();
            Server::start(Arc::clone(log.log()), ports, server)
        });
        let port = server.address().port();
        Self { runtime, server: Some(server), port }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn address(&self) -> String {
        format!("quipu://127.0.0.1:{}", self.port)
    }

    pub fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    /// A client whose connection runs on the server's runtime.
    pub fn connect(&self) -> Remote {
        self.connect_with(RemoteOptions::default())
    }

    pub fn connect_with(&self, options: RemoteOptions) -> Remote {
        self.runtime.block_on(Remote::connect_with(&self.address(), options)).unwrap()
    }

    /// Stops it in order.
    pub fn stop(mut self) {
        let server = self.server.take().unwrap();
        self.runtime.block_on(server.stop());
    }
}

fn open_unlocked(folder: &Path, options: Options) -> Embedded {
    const STEP: Duration = Duration::from_millis(5);
    let mut waited = Duration::ZERO;
    loop {
        match Embedded::open(folder, options.clone()) {
            Err(OpenError::Locked { .. }) if waited < UNLOCKED_WITHIN => {
                waited += STEP;
                std::thread::park_timeout(STEP);
            }
            log => return log.unwrap(),
        }
    }
}
