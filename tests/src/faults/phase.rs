//! What everybody is to do now.

use quipu_client::Position;

/// What clients and subscribers are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Work,
    /// Clients wait for their answers and end.
    Stop,
    /// Subscribers end when they have everything up to here.
    Drain(Position),
}
