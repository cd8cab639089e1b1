//! The platform's catalogue: its events, the values they are made of, and its aggregates.
//!
//! `docs/events.md` shows every event with an example. In reading order: the values
//! ([`PhoneNumberHash`], [`Money`], [`Nanoseconds`]), the events ([`catalogue`]).

pub mod catalogue;
mod currency;
pub mod events;
mod example;
pub mod field_type;
mod money;
mod nanoseconds;
mod page;
mod phone_number;
mod phone_number_hash;

pub use catalogue::PlatformEvent;
pub use currency::{Currency, NotACurrency};
pub use money::{Money, MoneyError};
pub use nanoseconds::{Nanoseconds, TooLong};
pub use page::events_page;
pub use phone_number::{NotAPhoneNumber, PhoneNumber};
pub use phone_number_hash::{
    KeyTooShort, NotAPhoneNumberHash, PhoneKey, PhoneKeys, PhoneNumberHash,
};
