//! The event bus: durable handlers of what is in the log.
//!
//! Modules in reading order: what a host says ([`handler`], [`options`], [`replay`]) and what it
//! hears ([`delivery`], [`error`], [`metrics`]); what is kept in the log ([`places`], [`lease`],
//! [`note`], [`parked`]); one handler at work ([`source`], [`lanes`], [`calls`], [`workers`],
//! [`driver`]); all of them ([`shared`], [`control`], [`bus`], and [`notes`] for those outside).
#![expect(clippy::module_inception, reason = "the bus is what the folder is named for")]

mod bus;
mod calls;
mod clock;
mod control;
mod delivery;
mod driver;
mod error;
mod handler;
mod in_hand;
mod lanes;
mod lease;
mod metrics;
mod note;
mod notes;
mod options;
mod parked;
mod places;
mod replay;
mod shared;
mod source;
mod step;
mod stop;
mod workers;

pub use bus::EventBus;
pub use delivery::{Delivery, HandlerError};
pub use error::BusError;
pub use handler::{Backoff, Begin, Handler, Subject, Unreadable};
pub use lease::LEASE_TYPE;
pub use metrics::{EventTypeCounts, HandlerMetrics, HandlerStatus};
pub use note::HANDLER_TYPE;
pub use notes::{HandlerNotes, ReplayState};
pub use options::{BusOptions, IfHeld};
pub use parked::ParkedEvent;
pub use places::{CHECKPOINT_TYPE, Place, Places, PlacesAt};
pub use replay::ReplayRequest;
