//! Opening a log: find its segments, decide what the end of the active one means, mend what a
//! crash left, and only then serve (segments-format.md §9 to §11).
//!
//! In the order it happens: [`chain`] places the segments, [`tail`] scans the active one,
//! [`decide`] says what was found (a pure function), [`judge`] what of it is damage, [`load`] and
//! [`gather`] fill the indexes, [`repair`] writes what must be written, [`open`] is all of it, and
//! [`report`] tells it to an operator.

pub mod chain;
pub mod create;
pub mod decide;
mod folder;
pub mod follow;
pub mod gather;
pub mod judge;
pub mod load;
pub mod open;
pub mod repair;
pub mod report;
pub mod tail;
