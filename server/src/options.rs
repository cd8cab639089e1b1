//! What can be set for a server.

use std::time::Duration;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// Settings of a server; the default is right for most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerOptions {
    /// Connections at once. One more is told so and closed. Default 2,000.
    pub connections_max: usize,
    /// Reads and subscriptions open at once on one connection. Default 1,000.
    pub streams_max: usize,
    /// Bytes of appends that one connection may have admitted but not answered; over it, it is
    /// not read from. One append is always let in. Default 16 MiB.
    pub connection_append_bytes: usize,
    /// The same for all connections together. Default 128 MiB.
    pub append_bytes: usize,
    /// Bytes of records on their way to one connection's socket. Default 2 MiB.
    pub connection_output_bytes: usize,
    /// The same for all connections together. Default 128 MiB.
    pub output_bytes: usize,
    /// Bytes of records in one message. Default 256 KiB.
    pub page_bytes: usize,
    /// Credit in records that a stream should begin with. Default 4,000.
    pub window_events: u32,
    /// The same in bytes. Default 8 MiB.
    pub window_bytes: u32,
    /// How long a client may take to say Hello. Default 15 s.
    pub handshake_within: Duration,
    /// In so much time spent waiting for it, a message that has begun must arrive, or at least
    /// [`Self::progress_bytes`] of it; 16 times as much if it holds room that others wait for.
    /// The latter goes for what a client is sent, too. Default 10 s.
    pub progress_within: Duration,
    /// See [`Self::progress_within`]. Default 64 KiB.
    pub progress_bytes: usize,
    /// A side that has sent nothing for so long sends Ping. Default 5 s, at least 10 ms.
    pub heartbeat: Duration,
    /// A client that has sent nothing for so long is dead. Default 15 s.
    pub dead_after: Duration,
    /// A client whose socket takes nothing for so long is dead. Default 60 s.
    pub write_stall: Duration,
    /// How long the end of a connection waits for the client to read the last words; and how long
    /// a server that stops still reads requests, to refuse them. Default 1 s, an hour at most.
    pub linger: Duration,
    /// Connections at once to the port of health and metrics; one more is closed. Default 64.
    pub http_connections_max: usize,
    /// How long each of them may last. Default 10 s.
    pub http_within: Duration,
    /// How long stopping may take; what is not answered by then is cut off. Default 30 s.
    pub stop_within: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            connections_max: 2_000,
            streams_max: 1_000,
            connection_append_bytes: 16 * MIB,
            append_bytes: 128 * MIB,
            connection_output_bytes: 2 * MIB,
            output_bytes: 128 * MIB,
            page_bytes: 256 * KIB,
            window_events: 4_000,
            window_bytes: 8 << 20,
            handshake_within: Duration::from_secs(15),
            progress_within: Duration::from_secs(10),
            progress_bytes: 64 * KIB,
            heartbeat: Duration::from_secs(5),
            dead_after: Duration::from_secs(15),
            write_stall: Duration::from_mins(1),
            linger: Duration::from_secs(1),
            http_connections_max: 64,
            http_within: Duration::from_secs(10),
            stop_within: Duration::from_secs(30),
        }
    }
}
