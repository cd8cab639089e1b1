//! How large a field, an event and an append may be.

/// Longest aggregate type and event type, in bytes.
pub const TYPE_BYTES_MAX: usize = 100;
/// Longest aggregate id, in bytes.
pub const AGGREGATE_ID_BYTES_MAX: usize = 255;
/// Longest correlation id and causation id, in bytes.
pub const CORRELATION_BYTES_MAX: usize = 255;
/// Longest IP address and `traceparent`, in bytes.
pub const SHORT_TEXT_BYTES_MAX: usize = 64;
/// Longest user agent, in bytes.
pub const USER_AGENT_BYTES_MAX: usize = 1_024;
/// Longest content type, in bytes.
pub const CONTENT_TYPE_BYTES_MAX: usize = 100;
/// Largest custom metadata map, in bytes of JSON.
pub const CUSTOM_BYTES_MAX: usize = 64 * 1024;

/// The largest event any configuration may allow, in bytes.
pub const EVENT_BYTES_HARD_MAX: usize = 8 * 1024 * 1024;
/// The most events an append may hold in any configuration.
pub const APPEND_EVENTS_HARD_MAX: usize = 16_384;
/// The largest append any configuration may allow, in bytes.
pub const APPEND_BYTES_HARD_MAX: usize = 16 * 1024 * 1024;

/// The configurable limits of one log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Payload and custom metadata of one event, in bytes. Default 1 MiB.
    pub event_bytes_max: usize,
    /// Events in one append. Default 2,048.
    pub append_events_max: usize,
    /// Bytes of one append as stored, headers included. Default 8 MiB.
    pub append_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            event_bytes_max: 1024 * 1024,
            append_events_max: 2_048,
            append_bytes_max: 8 * 1024 * 1024,
        }
    }
}
