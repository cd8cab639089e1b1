//! A log over TCP: what stands between a socket and the engine.
//!
//! Modules in reading order. What can be set: [`options`]. Opening ports and ending in order:
//! [`server`], `listener`. What all connections share: [`service`], `budget`, `pace`, `meter`,
//! `herald`. One connection: `connection`, its two tasks `reader` and `writer`, what they share
//! (`session`, `answers`, `outbox`, `chunk`), and its streams (`stream`, `paging`, `unsent`,
//! `reading`, `following`). For operators: [`status`], `metrics`, `http`, `http_port`.
#![forbid(unsafe_code)]

mod answers;
mod bell;
mod budget;
mod chunk;
mod connection;
mod following;
mod herald;
mod http;
mod http_port;
mod inlet;
mod listener;
mod meter;
mod metrics;
pub mod options;
mod outbox;
mod pace;
mod paging;
mod reader;
mod readers;
mod reading;
mod scheduling;
pub mod server;
pub mod service;
mod session;
pub mod status;
mod stream;
#[cfg(test)]
mod testing;
mod unsent;
mod writer;

pub use listener::{ListenError, Ports};
pub use options::ServerOptions;
pub use server::{Server, StopHandle, Stopped};
pub use service::{Load, Service};
