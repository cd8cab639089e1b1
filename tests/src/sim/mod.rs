//! Deterministic simulation of the real engine: one seed is one run.
//!
//! [`disk`] is a disk that loses, tears and scrambles what was in flight at a crash, and fails when
//! it is told to; [`time`] a clock and randomness from the seed; [`workload`] what clients submit;
//! [`model`] what the log must hold; [`reader`] who looks at it; [`world`] all of that together.
//! [`life`] runs one opening of the log until it crashes or closes; [`run`] is several lives of one
//! log; [`sweep`] lets every single operation of a run fail once; [`defect`] lists the rules that
//! can be broken on purpose, to see that it is noticed.

pub mod defect;
pub mod disk;
pub mod figures;
pub mod life;
pub mod model;
pub mod reader;
pub mod run;
pub mod sweep;
pub mod time;
pub mod workload;
pub mod world;
