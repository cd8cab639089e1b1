//! The wire protocol: what a server and its clients say to each other, as bytes. No sockets.
//!
//! `wire-protocol.md` is the contract. Modules in reading order: the envelope
//! ([`message`], [`framer`]), what fields are made of ([`fields`]), the messages ([`handshake`],
//! [`append`], [`stream`], [`filter`], [`question`], [`fault`]), and both directions as a whole
//! ([`direction`]).
//!
//! ```
//! use bytes::BytesMut;
//! use quipu_protocol::{Framer, MAGIC, Message, Ping, Progress, Request};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut wire = BytesMut::from(&MAGIC[..]);
//! Ping.encode(7, &mut wire);
//! let mut framer = Framer::new();
//! let Progress::Frame(frame) = framer.advance(&mut wire)? else { panic!("it is whole") };
//! assert_eq!((frame.request_id, Request::decode(&frame)?), (7, Request::Ping(Ping)));
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

pub mod append;
pub mod direction;
pub mod fault;
pub mod fields;
pub mod filter;
pub mod framer;
pub mod handshake;
pub mod message;
pub mod question;
pub mod stream;

pub use append::{AppendRequest, BorrowedAppend, SystemAppend};
pub use direction::{Request, Response};
pub use fault::Fault;
pub use fields::{DecodeError, Fields};
pub use framer::{Frame, FrameError, Framer, Progress};
pub use handshake::{Hello, Versions, Welcome};
pub use message::{
    HANDSHAKE_BYTES_MAX, Header, Kind, MAGIC, MESSAGE_HEADER_BYTES, Message, message_bytes_max,
};
pub use question::{Ping, Pong, Status, StatusIs, VersionIs, VersionOf};
pub use stream::{Balance, Cancel, Credit, End, Mark, Read, Records, Subscribe};
