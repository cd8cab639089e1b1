//! Reading what is durable: pages by position or aggregate, and subscriptions on top of them.

pub mod cursor;
mod holders;
pub mod subscription;
