//! Deterministic simulation of the real engine: one seed is one run.
//!
//! [`disk`] is a disk that loses, tears and scrambles what was in flight at a crash; [`time`] a
//! clock and randomness from the seed; [`model`] says what the log must hold; [`life`] runs one
//! opening of the log until it crashes or closes; [`run`] is several lives of one log.

pub mod disk;
pub mod life;
pub mod model;
pub mod run;
pub mod time;
