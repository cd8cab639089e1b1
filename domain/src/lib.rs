//! The platform's catalogue: its events, the values they are made of, and its aggregates.
//!
//! `docs/events.md` shows every event with an example; `docs/domain-events.md` says how a host
//! works with them. In reading order: the values ([`PhoneNumberHash`], [`Money`], [`Nanoseconds`]),
//! the events ([`catalogue`]), the aggregates ([`Consent`], [`Call`], [`Account`]).

/// The examples of the guide are compiled and run with the documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../../docs/domain-events.md")]
struct Guide;

mod account;
mod call;
pub mod catalogue;
mod consent;
mod currency;
pub mod events;
mod example;
pub mod field_type;
mod money;
mod nanoseconds;
mod page;
mod pairs;
mod phone_number;
mod phone_number_hash;

pub use account::{Account, AccountRefusal, AccountStatus};
pub use call::{Call, CallRefusal, CallStage};
pub use catalogue::PlatformEvent;
pub use consent::{Consent, ConsentRefusal};
pub use currency::{Currency, NotACurrency};
pub use money::{Money, MoneyError};
pub use nanoseconds::{Nanoseconds, TooLong};
pub use page::events_page;
pub use phone_number::{NotAPhoneNumber, PhoneNumber};
pub use phone_number_hash::{
    KeyTooShort, NotAPhoneNumberHash, PhoneKey, PhoneKeys, PhoneNumberHash,
};
