//! From an address to a server that has said Welcome.
#![expect(clippy::disallowed_types, reason = "this module is where the client's sockets come from")]

use bytes::{Buf, BytesMut};
use quipu_protocol::{
    Fault, FrameError, Framer, Hello, MAGIC, Message, Progress, Response, Welcome,
};
use quipu_types::{ReadError, Uuid};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::address::Address;
use super::error::ConnectError;
use super::options::RemoteOptions;

/// A connection whose handshake is done.
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) framer: Framer,
    /// What was received behind Welcome.
    pub(super) buffer: BytesMut,
    pub(super) welcome: Welcome,
}

/// Connects, and lets only `log_id` answer if it is given.
pub(super) async fn connect(
    address: &Address,
    options: &RemoteOptions,
    log_id: Option<Uuid>,
) -> Result<Connection, ConnectError> {
    let unreachable =
        |problem: String| ConnectError::Unreachable { address: address.to_string(), problem };
    let reached = timeout(options.connect_timeout, async {
        let stream = TcpStream::connect((address.host.as_str(), address.port)).await?;
        stream.set_nodelay(true)?;
        greet(stream, &options.name, log_id).await
    });
    let patience = options.connect_timeout;
    let late = |_| unreachable(format!("nothing came within {patience:?}"));
    let connection = reached.await.map_err(late)?.map_err(|problem| match problem {
        Problem::Other(problem) => unreachable(problem),
        Problem::Fault(fault) => refused(address, fault),
    })?;
    let actual = connection.welcome.log_id;
    match log_id {
        Some(expected) if expected != actual => {
            Err(ConnectError::OtherLog { address: address.to_string(), expected, actual })
        }
        _ => Ok(connection),
    }
}

enum Problem {
    Other(String),
    Fault(Fault),
}

impl From<std::io::Error> for Problem {
    fn from(error: std::io::Error) -> Self {
        Self::Other(error.to_string())
    }
}

impl From<FrameError> for Problem {
    fn from(error: FrameError) -> Self {
        Self::Other(error.to_string())
    }
}

fn refused(address: &Address, fault: Fault) -> ConnectError {
    let address = address.to_string();
    match fault {
        Fault::Read(ReadError::OtherLog { given, actual }) => {
            ConnectError::OtherLog { address, expected: given, actual }
        }
        Fault::Protocol { .. } | Fault::RecordFormats { .. } | Fault::Credentials => {
            ConnectError::Incompatible { address, problem: fault.to_string() }
        }
        // Too many connections, a server that stops: it may take this client later.
        fault => ConnectError::Unreachable { address, problem: fault.to_string() },
    }
}

async fn greet(
    mut stream: TcpStream,
    name: &str,
    log_id: Option<Uuid>,
) -> Result<Connection, Problem> {
    let mut hello = BytesMut::from(&MAGIC[..]);
    Hello::new(name, log_id).encode(0, &mut hello);
    stream.write_all_buf(&mut hello).await?;
    let (mut framer, mut buffer) = (Framer::new(), BytesMut::new());
    let frame = loop {
        match framer.advance(&mut buffer)? {
            Progress::Frame(frame) => break frame,
            Progress::Need(_) if stream.read_buf(&mut buffer).await? > 0 => {}
            Progress::Need(_) => {
                return Err(Problem::Other("closed before the handshake was done".to_owned()));
            }
        }
    };
    match Response::decode(&frame) {
        Ok(Response::Welcome(welcome)) => {
            framer.set_bytes_max(welcome.message_bytes_max as usize);
            Ok(Connection { stream, framer, buffer: aligned(buffer), welcome })
        }
        Ok(Response::Error(fault)) => Err(Problem::Fault(fault)),
        Ok(_) => Err(Problem::Other("it began with another message than Welcome".to_owned())),
        Err(error) => Err(Problem::Other(format!("its first message: {error}"))),
    }
}

/// A fresh buffer: it begins at a multiple of 8, as records want it.
fn aligned(mut rest: BytesMut) -> BytesMut {
    let mut buffer = BytesMut::with_capacity(rest.remaining());
    buffer.extend_from_slice(&rest);
    rest.clear();
    buffer
}
