//! Values that stand in the examples of the catalogue.

use quipu_client::{Timestamp, Uuid};

use crate::currency::Currency;
use crate::money::Money;
use crate::phone_number_hash::PhoneNumberHash;

/// The hash of +1 212 555 0100 under 32 bytes of 0x0b.
const HASH: &str = "5a56d95efb17f45aef4a668f0f8b7402d748300af08de72035b4e7f51dd707fc";
/// The hash of +1 212 555 0101 under the same.
const OTHER_HASH: &str = "c0bf7bf138e9411f6c4776d06e2be3c1188cbecba8c891bf8580ba1a9fd1f359";

pub(crate) fn hash() -> PhoneNumberHash {
    HASH.parse().expect("a hash")
}

pub(crate) fn other_hash() -> PhoneNumberHash {
    OTHER_HASH.parse().expect("a hash")
}

pub(crate) fn id(number: u128) -> Uuid {
    Uuid::from_u128(0x0192_9f6e_8a5f_7000_8000_0000_0000_0000 + number)
}

pub(crate) fn time() -> Timestamp {
    Timestamp::from_micros(1_767_323_045_678_000)
}

pub(crate) fn dollars(cents: i64) -> Money {
    Money::new(cents, currency())
}

pub(crate) fn currency() -> Currency {
    "USD".parse().expect("a currency")
}

pub(crate) fn object(json: &str) -> serde_json::Map<String, serde_json::Value> {
    serde_json::from_str(json).expect("a JSON object")
}
