//! One connection from its first byte to its last: handshake, two tasks, farewell.

use std::sync::Arc;

use bytes::BytesMut;
use quipu_protocol::handshake::{NAME_BYTES_MAX, RECORD_FORMATS};
use quipu_protocol::{Fault, Frame, FrameError, Hello, Kind, MAGIC, Message, Request, Welcome};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::inlet::{Inlet, InletError, Patience};
use crate::meter::Meter;
use crate::options::ServerOptions;
use crate::outbox::Farewell;
use crate::reader::Reader;
use crate::service::Service;
use crate::session::Session;
use crate::writer::Writer;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    #[error(transparent)]
    Inlet(#[from] InletError),
    #[error("refused: {0}")]
    Refused(Fault),
    #[error("no handshake after {0:?}")]
    NoHandshake(std::time::Duration),
    #[error("cannot write: {0}")]
    CannotWrite(std::io::Error),
    #[error("the server is stopping")]
    Stopping,
}

impl Ended {
    /// The last message, if the client gets one.
    fn farewell(&self) -> Farewell {
        Farewell(match self {
            Self::Inlet(InletError::Frame(FrameError::Foreign { .. })) => None,
            Self::Inlet(InletError::Frame(error)) => Some((*error).into()),
            Self::Refused(fault) => Some(fault.clone()),
            Self::Stopping => Some(Fault::Stopping),
            _ => None,
        })
    }

    /// Whether the client may still be reading.
    fn lingers(&self) -> bool {
        let gone = matches!(
            self,
            Self::CannotWrite(_)
                | Self::Inlet(InletError::Io(_) | InletError::Silent(_) | InletError::ClosedInside)
        );
        !gone
    }
}

/// Serves a connection.
pub(crate) async fn serve<R, W>(service: Arc<Service>, reader: R, mut writer: W, peer: &str)
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let session = Arc::new(Session::new(&service));
    let mut inlet = new_inlet(&service, reader);
    let greeted = tokio::select! {
        greeted = handshake(&session, &mut inlet) => greeted,
        () = session.stop.cancelled() => Err(Ended::Stopping),
    };
    let client = match greeted {
        Ok(hello) => hello.client,
        Err(ended) => {
            tracing::info!(peer, %ended, "no handshake");
            // To whom has not greeted nothing is said (§2).
            if matches!(ended, Ended::Stopping) {
                return;
            }
            let farewell = ended.farewell();
            return say_last(&service, &mut inlet, &mut writer, farewell).await;
        }
    };
    tracing::debug!(peer, client, "connected");
    inlet.set_bytes_max(session.message_bytes_max());
    let welcome = encode_first(0, &welcome(&session));
    let ended = converse(&session, &mut inlet, writer, welcome).await;
    Meter::add(&service.meter.bytes_in, usize::try_from(inlet.take_received()).unwrap_or(0));
    tracing::info!(peer, client, %ended, "disconnected");
}

/// Tells a connection that is too many, and closes it.
pub(crate) async fn refuse<R, W>(service: Arc<Service>, reader: R, mut writer: W, peer: &str)
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let limit = service.options.connections_max;
    tracing::info!(peer, limit, "too many connections: refused");
    let session = Session::new(&service);
    let mut inlet = new_inlet(&service, reader);
    let fault = Fault::over("connections", limit, limit + 1);
    let greeted = timeout(service.options.linger, inlet.next(&session.appends)).await;
    if let Ok(Ok(_)) = greeted {
        say_last(&service, &mut inlet, &mut writer, Farewell(Some(fault))).await;
    }
}

fn new_inlet<R: AsyncRead + Unpin>(service: &Service, reader: R) -> Inlet<R> {
    let options = &service.options;
    let &ServerOptions { dead_after, progress_within, progress_bytes, .. } = options;
    Inlet::new(reader, Patience { dead_after, progress_within, progress_bytes })
}

async fn handshake<R: AsyncRead + Unpin>(
    session: &Session,
    inlet: &mut Inlet<R>,
) -> Result<Hello, Ended> {
    let within = session.service.options.handshake_within;
    let first = timeout(within, inlet.next(&session.appends)).await;
    let taken = first.map_err(|_| Ended::NoHandshake(within))??;
    let hello = hello(&taken.frame).map_err(Ended::Refused)?;
    hello.negotiate(session.service.log.shared().log_id).map_err(Ended::Refused)?;
    Ok(hello)
}

fn hello(frame: &Frame) -> Result<Hello, Fault> {
    if frame.kind != Kind::Hello as u8 {
        let reason = format!("a message of kind {:#04x} where Hello belongs", frame.kind);
        return Err(Fault::Malformed { offset: 0, reason });
    }
    match Request::decode(frame) {
        Ok(Request::Hello(hello)) => Ok(hello),
        Ok(_) => Err(Fault::RequestId { id: frame.request_id }),
        Err(error) => Err(error.into()),
    }
}

fn welcome(session: &Session) -> Welcome {
    let (log, options) = (session.service.log.shared(), &session.service.options);
    let small = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let millis = |time: std::time::Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
    let mut server = format!("quipu {}", env!("CARGO_PKG_VERSION"));
    server.truncate(NAME_BYTES_MAX);
    Welcome {
        protocol: quipu_protocol::handshake::PROTOCOL.max,
        record_format: RECORD_FORMATS.max,
        log_id: log.log_id,
        event_bytes_max: small(log.options.limits.event_bytes_max),
        append_bytes_max: small(log.options.limits.append_bytes_max),
        append_events_max: small(log.options.limits.append_events_max),
        message_bytes_max: small(session.message_bytes_max()),
        window_events: options.window_events,
        window_bytes: options.window_bytes,
        streams_max: small(options.streams_max),
        heartbeat_ms: millis(options.heartbeat),
        dead_after_ms: millis(options.dead_after),
        server,
    }
}

/// The magic and the first message.
fn encode_first(request_id: u64, message: &impl Message) -> BytesMut {
    let mut first = BytesMut::from(&MAGIC[..]);
    message.encode(request_id, &mut first);
    first
}

/// Ends a connection that never came to be.
async fn say_last<R, W>(service: &Service, inlet: &mut Inlet<R>, writer: &mut W, farewell: Farewell)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let Farewell(Some(fault)) = farewell else { return };
    let last = encode_first(0, &fault);
    let say = async {
        writer.write_all(&last).await?;
        writer.shutdown().await
    };
    if let Ok(Ok(())) = timeout(service.options.linger, say).await {
        inlet.forget(service.options.linger).await;
    }
}

/// Runs both tasks until one ends, then lets the other finish.
async fn converse<R, W>(
    session: &Arc<Session>,
    inlet: &mut Inlet<R>,
    writer: W,
    first: BytesMut,
) -> Ended
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let writer = Writer::new(Arc::clone(session), writer, first);
    let mut writing = AbortOnDrop(tokio::spawn(writer.run()));
    let mut reader = Reader::new(session, inlet);
    let mut ended = tokio::select! {
        ended = reader.run() => ended,
        error = &mut writing.0 => return cannot_write(error),
    };
    reader.end_streams().await;
    if !ended.lingers() {
        // Nobody is there: what is half written would hold its room until it is given up.
        writing.0.abort();
        (&mut writing.0).await.ok();
        return ended;
    }
    session.outbox.finish(ended.farewell());
    match (&mut writing.0).await {
        Ok(Ok(())) => inlet.forget(session.service.options.linger).await,
        failed => ended = cannot_write(failed),
    }
    ended
}

fn cannot_write(result: Result<std::io::Result<()>, tokio::task::JoinError>) -> Ended {
    Ended::CannotWrite(match result {
        Ok(Ok(())) => std::io::Error::other("the writing side has ended"),
        Ok(Err(error)) => error,
        Err(error) => std::io::Error::other(error),
    })
}

/// A task that does not outlive who waits for it.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
