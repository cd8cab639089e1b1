//! Finding things: newest versions and known ids (in memory), and each segment's own index.

pub mod builder;
pub mod facts;
pub mod ids;
pub mod indexer;
pub mod keys;
pub mod live;
pub mod rebuild;
pub mod versions;
