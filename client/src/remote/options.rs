//! Settings of a connection.

use std::time::Duration;

use quipu_types::Uuid;

/// Settings of a connection; the default is right for most.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemoteOptions {
    /// What the server's log calls this client; at most 255 bytes. Default: this library's name.
    pub name: String,
    /// The log that must answer; default: the one that answers first, from then on.
    pub log_id: Option<Uuid>,
    /// How long one try to connect may take, handshake included. Default 5 s.
    pub connect_timeout: Duration,
    /// How long an append, a read's beginning or a question may take, lost connections included.
    /// Looked at eight times in this time, and at least once a second. Default 30 s.
    pub timeout: Duration,
    /// How long a read that was sent may wait for its next records: as long as the server may have
    /// to look for one that the filter takes. Default 2 min.
    pub read_timeout: Duration,
    /// The longest pause between two tries to connect again: the first is 100 ms, each is twice
    /// the one before, and a random half of it is cut. Default 1 s.
    pub reconnect_pause_max: Duration,
    /// How often an append is tried that the server refuses for now; not counted are lost
    /// connections. Default 3.
    pub tries: u32,
    /// Appends sent and not yet answered; more wait. Default 1,024.
    pub in_flight_appends: usize,
    /// The same in bytes; one append of any size is always sent. Default 16 MiB.
    pub in_flight_bytes: usize,
    /// Records that each read and subscription receives ahead of its consumer. Default 4,000.
    pub window_events: u32,
    /// The same in bytes; one record of any size is always received. Default 8 MiB.
    pub window_bytes: u32,
}

impl Default for RemoteOptions {
    fn default() -> Self {
        Self {
            name: concat!("quipu-client ", env!("CARGO_PKG_VERSION")).to_owned(),
            log_id: None,
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(30),
            read_timeout: Duration::from_mins(2),
            reconnect_pause_max: Duration::from_secs(1),
            tries: 3,
            in_flight_appends: 1_024,
            in_flight_bytes: 16 * 1024 * 1024,
            window_events: 4_000,
            window_bytes: 8 * 1024 * 1024,
        }
    }
}
