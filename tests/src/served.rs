//! A log behind a server on a loopback port, in this process.

#![expect(clippy::unwrap_used, reason = "test support: a failure is a panic with its reason")]

use std::path::Path;
use std::sync::Arc;

use quipu_client::{Embedded, Options, Remote, RemoteOptions};
use quipu_server::{Ports, Server, ServerOptions};
use tokio::runtime::Runtime;

use crate::patience::PATIENCE;

/// A server on a runtime of its own. Dropping it ends every connection at once; only its log is
/// closed in order, so that the next server in this process can open it.
pub struct Served {
    log: Embedded,
    server: Option<Server>,
    runtime: Option<Runtime>,
    port: u16,
}

impl Served {
    /// Serves the log in this folder on any free port.
    pub fn open(folder: &Path, options: Options, server: ServerOptions) -> Self {
        Self::open_at(0, folder, options, server)
    }

    /// Serves the log in this folder on this port.
    pub fn open_at(port: u16, folder: &Path, options: Options, server: ServerOptions) -> Self {
        let log = Embedded::open(folder, options).unwrap();
        let runtime = Runtime::new().unwrap();
        let server = runtime.block_on(async {
            let ports = Ports::open(&format!("127.0.0.1:{port}"), None, false).await.unwrap();
            Server::start(Arc::clone(log.log()), ports, server)
        });
        let port = server.address().port();
        Self { log, server: Some(server), runtime: Some(runtime), port }
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
        let address = self.address();
        let connect = Remote::connect_with(&address, options);
        self.runtime.as_ref().unwrap().block_on(connect).unwrap()
    }

    /// Stops it in order.
    pub fn stop(mut self) {
        let server = self.server.take().unwrap();
        let stops = async { tokio::time::timeout(PATIENCE, server.stop()).await };
        self.runtime.as_ref().unwrap().block_on(stops).unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.runtime.take());
        drop(self.server.take());
        self.log.close();
    }
}
