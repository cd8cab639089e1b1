//! Cuts a stream of bytes into messages, and refuses one before anything is kept for it.

use bytes::{Buf, Bytes, BytesMut};

use crate::fault::Fault;
use crate::fields::DecodeError;
use crate::message::{
    HANDSHAKE_BYTES_MAX, Header, Kind, MAGIC, MESSAGE_ALIGN, MESSAGE_HEADER_BYTES,
};

/// A whole message whose body has not been looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is; see [`Kind`].
    pub kind: u8,
    /// 0; a flag must be understood by its receiver.
    pub flags: u8,
    /// The request it belongs to.
    pub request_id: u64,
    /// Its fields and the zeros behind them. Shares the receive buffer.
    pub body: Bytes,
}

impl Frame {
    /// Which request fails because this message cannot be taken: its own, or 0 if the connection
    /// ends (§10).
    #[must_use]
    pub fn failed_request(&self, error: &DecodeError) -> u64 {
        let opens = Kind::from_u8(self.kind).is_some_and(Kind::opens_request);
        let survives = match error {
            DecodeError::Unknown { .. } => true,
            DecodeError::RequestId { .. } => false,
            _ => opens,
        };
        if survives { self.request_id } else { 0 }
    }
}

/// What a [`Framer`] made of the bytes so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The next message, taken out of the buffer.
    Frame(Frame),
    /// At least so many more bytes are needed, never more than the largest message.
    Need(usize),
}

/// Why a stream of bytes cannot be cut any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The other side does not speak this protocol.
    #[error("this is not Quipu's protocol but {}", protocol_of(*first))]
    Foreign {
        /// The first bytes received; zeros where there were fewer.
        first: [u8; 8],
    },
    /// A message is longer than agreed.
    #[error("a message of {given} bytes: the limit is {limit}")]
    TooLong {
        /// Bytes allowed.
        limit: usize,
        /// Bytes given.
        given: usize,
    },
    /// A length that no message has.
    #[error("a message cannot have {given} bytes: at least 16, and a multiple of 8")]
    Length {
        /// Bytes given.
        given: usize,
    },
    /// The header's zero is not.
    #[error("a message's header has {given:#06x} where zeros belong")]
    NotZero {
        /// What was given.
        given: u16,
    },
}

impl From<FrameError> for Fault {
    fn from(error: FrameError) -> Self {
        match error {
            FrameError::TooLong { limit, given } => Self::over("message", limit, given),
            _ => Self::Malformed { offset: 0, reason: error.to_string() },
        }
    }
}

fn protocol_of(first: [u8; 8]) -> String {
    let http = [&b"GET "[..], b"POST", b"PUT ", b"HEAD", b"OPTI", b"PRI ", b"HTTP"];
    match first {
        [0x16, 0x03, ..] => "TLS".to_owned(),
        _ if http.iter().any(|method| first.starts_with(method)) => "HTTP".to_owned(),
        _ if first.starts_with(b"SSH-") => "SSH".to_owned(),
        _ => format!("begins with {:?}", String::from_utf8_lossy(&first)),
    }
}

/// One direction's bytes, cut into messages.
///
/// Give it a buffer that only ever grows at its end. A buffer that begins at a multiple of 8, as
/// allocators give them, stays so, message after message; where one does not, [`Records`] copies.
///
/// [`Records`]: crate::stream::Records
#[derive(Clone, Debug)]
pub struct Framer {
    greeted: bool,
    bytes_max: usize,
}

impl Default for Framer {
    fn default() -> Self {
        Self::new()
    }
}

impl Framer {
    /// Before the first byte: expects the magic, then messages of the handshake's size.
    #[must_use]
    pub fn new() -> Self {
        Self { greeted: false, bytes_max: HANDSHAKE_BYTES_MAX }
    }

    /// Takes messages up to this size from here on: the handshake is done.
    pub fn set_bytes_max(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max.max(MESSAGE_HEADER_BYTES);
    }

    /// Takes the next message out of the buffer, or says how many bytes are missing.
    ///
    /// # Errors
    /// That the bytes are none of a message; the connection cannot go on.
    pub fn advance(&mut self, buffer: &mut BytesMut) -> Result<Progress, FrameError> {
        if !self.greeted {
            if let Some(missing) = missing_magic(buffer)? {
                return Ok(Progress::Need(missing));
            }
            buffer.advance(MAGIC.len());
            self.greeted = true;
        }
        let Some(header) = Header::decode(buffer) else {
            return Ok(Progress::Need(MESSAGE_HEADER_BYTES - buffer.len()));
        };
        let length = self.check(&header)?;
        if buffer.len() < length {
            return Ok(Progress::Need(length - buffer.len()));
        }
        let mut body = buffer.split_to(length).freeze();
        body.advance(MESSAGE_HEADER_BYTES);
        let Header { kind, flags, request_id, .. } = header;
        Ok(Progress::Frame(Frame { kind, flags, request_id, body }))
    }

    fn check(&self, header: &Header) -> Result<usize, FrameError> {
        let given = header.length as usize;
        if given > self.bytes_max {
            return Err(FrameError::TooLong { limit: self.bytes_max, given });
        }
        if given < MESSAGE_HEADER_BYTES || !given.is_multiple_of(MESSAGE_ALIGN) {
            return Err(FrameError::Length { given });
        }
        if header.zero != 0 {
            return Err(FrameError::NotZero { given: header.zero });
        }
        Ok(given)
    }
}

/// How many bytes of the magic are missing; a foreign protocol is told by its very first byte.
fn missing_magic(buffer: &[u8]) -> Result<Option<usize>, FrameError> {
    let seen = buffer.len().min(MAGIC.len());
    if buffer[..seen] != MAGIC[..seen] {
        let mut first = [0; MAGIC.len()];
        first[..seen].copy_from_slice(&buffer[..seen]);
        return Err(FrameError::Foreign { first });
    }
    Ok(Some(MAGIC.len() - seen).filter(|missing| *missing > 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Message;
    use crate::question::{Ping, Pong, StatusIs};

    fn greeted(bytes_max: usize) -> Framer {
        Framer { greeted: true, bytes_max }
    }

    fn conversation() -> BytesMut {
        let mut wire = BytesMut::from(&MAGIC[..]);
        Ping.encode(1, &mut wire);
        StatusIs("{}".to_owned()).encode(2, &mut wire);
        Pong.encode(3, &mut wire);
        wire
    }

    #[test]
    fn messages_come_out_whole_however_the_bytes_arrive() {
        let wire = conversation();
        for step in 1..wire.len() {
            let (mut framer, mut buffer, mut ids) = (Framer::new(), BytesMut::new(), Vec::new());
            for part in wire.chunks(step) {
                buffer.extend_from_slice(part);
                while let Progress::Frame(frame) = framer.advance(&mut buffer).unwrap() {
                    ids.push(frame.request_id);
                }
            }
            assert_eq!((ids, buffer.len()), (vec![1, 2, 3], 0), "{step} bytes at a time");
        }
    }

    #[test]
    fn what_is_needed_is_exactly_what_is_missing() {
        let (mut framer, mut buffer) = (Framer::new(), BytesMut::new());
        let mut wire = conversation();
        for expected in [8, 16, 16, 8, 16] {
            assert_eq!(framer.advance(&mut buffer), Ok(Progress::Need(expected)));
            buffer.extend_from_slice(&wire.split_to(expected));
            if let Ok(Progress::Frame(_)) = framer.clone().advance(&mut buffer.clone()) {
                framer.advance(&mut buffer).unwrap();
            }
        }
        assert!(wire.is_empty());
    }

    #[test]
    fn other_protocols_are_recognised() {
        let cases: [(&[u8], &str); 5] = [
            (b"GET / HTTP/1.1\r\n", "HTTP"),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01", "TLS"),
            (b"SSH-2.0-OpenSSH", "SSH"),
            (b"hello", "hello"),
            (b"QUIPUTCQ", "QUIPUTCQ"),
        ];
        for (bytes, name) in cases {
            let error = Framer::new().advance(&mut BytesMut::from(bytes)).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }

    #[test]
    fn a_length_is_refused_before_its_bytes_are_asked_for() {
        let header = |length: u32, zero: u16| {
            let header = Header { length, kind: 9, flags: 0, zero, request_id: 0 };
            BytesMut::from(&header.encode()[..])
        };
        let refuse = |length, zero| greeted(4096).advance(&mut header(length, zero)).unwrap_err();
        assert_eq!(refuse(u32::MAX, 0), FrameError::TooLong { limit: 4096, given: 4_294_967_295 });
        assert_eq!(refuse(4104, 0), FrameError::TooLong { limit: 4096, given: 4104 });
        for given in [0u32, 8, 15, 17, 4095] {
            assert_eq!(refuse(given, 0), FrameError::Length { given: given as usize });
        }
        assert_eq!(refuse(16, 3), FrameError::NotZero { given: 3 });
        assert_eq!(greeted(4096).advance(&mut header(4096, 0)), Ok(Progress::Need(4080)));
    }
}
