//! The port of health and metrics: as many connections as it may have, each for a limited time, so
//! that none that says nothing takes the place, or the descriptor, of one that asks.
#![expect(clippy::disallowed_types, reason = "it wraps the sockets that `listener` opened")]

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};

use crate::listener::next_connection;
use crate::service::Service;

/// The open port.
pub(crate) struct HttpPort {
    listener: TcpListener,
    service: Arc<Service>,
    places: Arc<Semaphore>,
}

impl HttpPort {
    pub(crate) fn new(listener: TcpListener, service: Arc<Service>) -> Self {
        let places = Arc::new(Semaphore::new(service.options.http_connections_max));
        Self { listener, service, places }
    }
}

impl axum::serve::Listener for HttpPort {
    type Io = Brief;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Brief, SocketAddr) {
        loop {
            let (socket, peer) = next_connection(&self.listener, &self.service.meter).await;
            // One too many is closed: whoever watches health should not be kept waiting.
            if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
                let within = self.service.options.http_within;
                return (Brief::new(socket, within, place), peer);
            }
            tracing::warn!(%peer, "too many ask for health and metrics: closed");
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends in time, whatever its client does.
pub(crate) struct Brief {
    socket: TcpStream,
    over: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl Brief {
    fn new(socket: TcpStream, within: Duration, place: OwnedSemaphorePermit) -> Self {
        Self { socket, over: Box::pin(sleep(within)), _place: place }
    }

    fn in_time(&mut self, context: &mut Context<'_>) -> io::Result<Pin<&mut TcpStream>> {
        match self.over.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(Pin::new(&mut self.socket)),
        }
    }
}

impl AsyncRead for Brief {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.in_time(context)?.poll_read(context, buffer)
    }
}

impl AsyncWrite for Brief {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.in_time(context)?.poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.in_time(context)?.poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.in_time(context)?.poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
