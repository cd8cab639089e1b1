//! A log behind a server: one connection, shared by all clones, that mends itself.
//!
//! Modules in reading order: where and how to connect ([`address`], [`options`], [`error`]), what
//! waits and what is in flight ([`appends`], [`calls`], [`parts`], [`terms`],
//! [`shared`]), the connection ([`link`],
//! [`handshake`], [`session`]), and what a host holds ([`store`], [`feed`], [`reading`],
//! [`following`]).

mod address;
mod appends;
mod calls;
mod clock;
mod error;
mod feed;
mod following;
mod handshake;
mod link;
mod options;
mod parts;
mod reading;
mod session;
mod shared;
mod store;
mod terms;

pub use error::ConnectError;
pub use options::RemoteOptions;
pub use store::Remote;
