//! The platform's catalogue: its events, the values they are made of, and its aggregates.
//!
//! In reading order: the values ([`PhoneNumberHash`], [`Money`], [`Nanoseconds`]).

mod currency;
pub mod field_type;
mod money;
mod nanoseconds;
mod phone_number;
mod phone_number_hash;

pub use currency::{Currency, NotACurrency};
pub use money::{Money, MoneyError};
pub use nanoseconds::{Nanoseconds, TooLong};
pub use phone_number::{NotAPhoneNumber, PhoneNumber};
pub use phone_number_hash::{
    KeyTooShort, NotAPhoneNumberHash, PhoneKey, PhoneKeys, PhoneNumberHash,
};
