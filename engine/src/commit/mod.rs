//! The way of an append to stable storage, in the order it is walked: prepared in the caller's
//! task, queued in the inbox, admitted and grouped by the sequencer, written by a committer
//! thread, published up to the watermark, answered.

pub mod committer;
pub mod head;
pub mod inbox;
pub mod listeners;
pub mod outcome;
pub mod placed;
pub mod pool;
pub mod prepared;
pub mod preparer;
pub mod sequencer;
pub mod watermark;
