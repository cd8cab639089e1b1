//! Ports: opened only where they may be, and accepting through whatever the system refuses.
#![expect(clippy::disallowed_types, reason = "this module is where sockets come from")]

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio_util::task::TaskTracker;

use crate::meter::Meter;
use crate::service::Service;

/// After the system has refused a connection (no file descriptors left, say) it is asked again.
const PAUSE_AFTER_REFUSAL: Duration = Duration::from_millis(100);

/// Why a port could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Others could reach it.
    #[error(
        "{address} can be reached from other machines, and there is neither encryption nor access \
         control yet: listen on a loopback address such as 127.0.0.1, or allow it (--allow-remote)"
    )]
    Remote {
        /// The address asked for.
        address: String,
    },
    /// The system refused.
    #[error("cannot listen on {address}: {error}")]
    Refused {
        /// The address asked for.
        address: String,
        /// What the system said.
        error: io::Error,
    },
}

/// A server's open ports, not yet served.
pub struct Ports {
    pub(crate) tcp: TcpListener,
    pub(crate) http: Option<TcpListener>,
    pub(crate) address: SocketAddr,
    pub(crate) http_address: Option<SocketAddr>,
}

impl Ports {
    /// Opens the port of the log, and one for health and metrics if asked to. Port 0 takes any
    /// that is free.
    ///
    /// # Errors
    /// Why one cannot be opened; addresses beyond this machine must be allowed.
    pub async fn open(
        listen: &str,
        http: Option<&str>,
        allow_remote: bool,
    ) -> Result<Self, ListenError> {
        let (tcp, address) = bind(listen, allow_remote).await?;
        let (http, http_address) = match http {
            Some(http) => {
                let (listener, address) = bind(http, allow_remote).await?;
                (Some(listener), Some(address))
            }
            None => (None, None),
        };
        Ok(Self { tcp, http, address, http_address })
    }
}

async fn bind(address: &str, allow_remote: bool) -> Result<(TcpListener, SocketAddr), ListenError> {
    let refused = |error| ListenError::Refused { address: address.to_owned(), error };
    let found: Vec<SocketAddr> = lookup_host(address).await.map_err(refused)?.collect();
    if !allow_remote && !found.iter().all(|it| it.ip().is_loopback()) {
        return Err(ListenError::Remote { address: address.to_owned() });
    }
    let listener = TcpListener::bind(&found[..]).await.map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    Ok((listener, bound))
}

/// Accepts connections until the server stops.
pub(crate) async fn accept(listener: TcpListener, service: Arc<Service>, tasks: TaskTracker) {
    loop {
        let (socket, peer) = tokio::select! {
            accepted = next_connection(&listener, &service.meter) => accepted,
            () = service.stop.cancelled() => return,
        };
        tasks.spawn(serve(socket, peer, Arc::clone(&service)));
    }
}

/// The next connection, through whatever the system refuses until then.
pub(crate) async fn next_connection(
    listener: &TcpListener,
    meter: &Meter,
) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                Meter::add(&meter.accept_failures, 1);
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(PAUSE_AFTER_REFUSAL).await;
            }
        }
    }
}

async fn serve(socket: TcpStream, peer: SocketAddr, service: Arc<Service>) {
    if let Err(error) = prepare(&socket, peer) {
        tracing::debug!(%peer, %error, "gone before it was served");
        return;
    }
    let (reader, writer) = socket.into_split();
    let kill = service.kill.clone();
    tokio::select! {
        () = service.serve(reader, writer, peer.to_string()) => {}
        () = kill.cancelled() => tracing::warn!(%peer, "cut off: it did not end in time"),
    }
}

/// Inside one machine nothing is congested, but to pace what is sent (BBR, where the system is set
/// to it) costs a subscriber that catches up a sixth of its rate and more: docs/performance.md.
fn prepare(socket: &TcpStream, peer: SocketAddr) -> io::Result<()> {
    if peer.ip().to_canonical().is_loopback() {
        // Every Linux has it. Where it may not be chosen the system's own does, too.
        sockopt::set_tcp_congestion(socket, "reno").ok();
    }
    socket.set_nodelay(true)
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    [ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted].contains(&error.kind())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_is_sent_inside_this_machine_is_not_paced() {
        let (listener, address) = bind("127.0.0.1:0", false).await.unwrap();
        let socket = TcpStream::connect(address).await.unwrap();
        let (_accepted, near) = listener.accept().await.unwrap();
        let systems = sockopt::tcp_congestion(&socket).unwrap();
        prepare(&socket, "[2001:db8::1]:7440".parse().unwrap()).unwrap();
        assert_eq!(sockopt::tcp_congestion(&socket).unwrap(), systems);
        let mapped = SocketAddr::new("::ffff:127.0.0.1".parse().unwrap(), near.port());
        prepare(&socket, mapped).unwrap();
        assert_eq!(sockopt::tcp_congestion(&socket).unwrap(), "reno");
        assert!(socket.nodelay().unwrap());
    }
}
