//! Real faults under a real server: its process is killed, its file system loses power or space,
//! its network fails; clients record what they see, and the history is checked.
//!
//! Modules in reading order: what a client does ([`workload`]), records ([`recorder`]) and hears
//! ([`client`], [`follower`]), until it is told to stop ([`phase`]), all of them ([`crowd`]), one
//! that is killed ([`client_process`]); the server ([`server`]) and its disk ([`loop_disk`]); all
//! of it together ([`site`]), and what it came to ([`tally`]). Then the faults: [`kills`],
//! [`power_cuts`], [`full_disks`], and [`network`], which has a [`wire`], a [`namespace`] and
//! `hostile` peers; and all of them in turn, for hours: [`soak`].

pub mod client;
pub mod client_process;
pub mod crowd;
pub mod follower;
pub mod full_disks;
mod hostile;
pub mod kills;
pub mod loop_disk;
pub mod namespace;
pub mod network;
pub mod phase;
mod power;
pub mod power_cuts;
pub mod recorder;
pub mod server;
pub mod site;
pub mod soak;
pub mod tally;
pub mod wire;
pub mod workload;
