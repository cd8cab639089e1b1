//! Finding things: newest versions and known ids, in sorted runs that the indexer makes, and each
//! segment's own index.

pub mod builder;
pub mod facts;
pub mod generation;
pub mod indexer;
pub mod keys;
pub mod known;
pub mod live;
pub mod memtable;
pub mod merge;
pub mod rebuild;
pub mod run;
pub mod run_maker;
mod run_tail;
pub mod run_writer;
pub mod sealed;
pub mod sealed_index;
pub mod table_reader;
pub mod tiers;
