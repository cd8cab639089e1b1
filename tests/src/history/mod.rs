//! What clients of one log did and were told, and whether one log can have told them so.
//!
//! Modules in reading order: when something happened ([`stamp`]), the events ([`stored`]), what a
//! client asks and is told ([`calls`]), all of it, also in a file ([`journal`]); which rule is
//! broken ([`violation`]), and the check ([`checker`]): the log as the witness of the order
//! (`witness`), how long it can have been at which moment (`timeline`), and the rules of `appends`,
//! `reads` and `followings`.

mod appends;
pub mod calls;
pub mod checker;
#[cfg(test)]
mod example;
mod followings;
pub mod journal;
mod reads;
pub mod stamp;
pub mod stored;
mod timeline;
pub mod violation;
mod witness;
