//! The hash that stands for a phone number in every event, and the keys it is made with.
//!
//! There are so few phone numbers that a bare hash of one is undone in minutes by trying them all.
//! So it is keyed: HMAC-SHA-256 under a key that only the host has, of the number in E.164 with its
//! `+`, as 64 lower-case hex digits. Whoever has the key can undo every hash made with it: keep it
//! in a vault, never in the log.
//!
//! **Rotation.** [`PhoneKeys`] holds the current key and the former ones. New streams are named
//! with the current key's hash; [`PhoneKeys::hashes`] gives every hash a number may be known by,
//! newest first, so that what was written before a rotation is found. A former key may be
//! destroyed when nothing is looked up by it any more: its hashes then stand for nobody. A rotation
//! does not mend a leak: what was hashed under a leaked key stays as open as the bare numbers.
//! Which key made a hash cannot be seen from it: a host puts [`PhoneKey::id`] into the event's
//! custom metadata.

use std::fmt;
use std::str::FromStr;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::Sha256;

use crate::field_type::spelled;
use crate::phone_number::PhoneNumber;

/// The shortest key: as many bytes as the hash has.
const KEY_BYTES_MIN: usize = 32;
const HASH_BYTES: usize = 32;

/// A phone number's hash under a host's key: 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PhoneNumberHash([u8; HASH_BYTES]);

spelled! { PhoneNumberHash: "phone number hash, 64 hex digits" }

impl PhoneNumberHash {
    /// The hash itself.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; HASH_BYTES] {
        &self.0
    }
}

/// Text that is no hash. It does not say which text: that may be somebody's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a phone number hash is 64 lower-case hex digits, not {given_bytes} bytes of other text")]
pub struct NotAPhoneNumberHash {
    given_bytes: usize,
}

impl FromStr for PhoneNumberHash {
    type Err = NotAPhoneNumberHash;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = NotAPhoneNumberHash { given_bytes: text.len() };
        if text.len() != 2 * HASH_BYTES {
            return Err(refuse);
        }
        let mut hash = [0; HASH_BYTES];
        for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let (high, low) = (digit(digits[0]).ok_or(refuse)?, digit(digits[1]).ok_or(refuse)?);
            *byte = high << 4 | low;
        }
        Ok(Self(hash))
    }
}

fn digit(character: u8) -> Option<u8> {
    match character {
        b'0'..=b'9' => Some(character - b'0'),
        b'a'..=b'f' => Some(character - b'a' + 10),
        _ => None,
    }
}

impl fmt::Display for PhoneNumberHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PhoneNumberHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for PhoneNumberHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PhoneNumberHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// What stands there instead may be a phone number: it is not in the error.
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Given {
            Text(String),
            Other(de::IgnoredAny),
        }
        match Given::deserialize(deserializer)? {
            Given::Text(text) => text.parse().map_err(de::Error::custom),
            Given::Other(_) => Err(de::Error::custom("a phone number hash is a text")),
        }
    }
}

/// One of the host's keys.
#[derive(Clone)]
pub struct PhoneKey {
    id: String,
    keyed: Hmac<Sha256>,
}

/// A key that is too short to keep anything secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("phone key {id:?} has {given} bytes, at least {KEY_BYTES_MIN} random ones are needed")]
pub struct KeyTooShort {
    id: String,
    given: usize,
}

impl PhoneKey {
    /// A key by its id, which is no secret, and its bytes, which are.
    ///
    /// # Errors
    /// That it is too short.
    pub fn new(id: impl Into<String>, key: &[u8]) -> Result<Self, KeyTooShort> {
        let id = id.into();
        if key.len() < KEY_BYTES_MIN {
            return Err(KeyTooShort { id, given: key.len() });
        }
        let keyed = Hmac::new_from_slice(key).expect("HMAC takes a key of any length");
        Ok(Self { id, keyed })
    }

    /// Its id, such as the name of its rotation.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// A number's hash under this key.
    #[must_use]
    pub fn hash(&self, number: &PhoneNumber) -> PhoneNumberHash {
        let mut keyed = self.keyed.clone();
        keyed.update(number.expose_e164().as_bytes());
        PhoneNumberHash(keyed.finalize().into_bytes().into())
    }
}

impl fmt::Debug for PhoneKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PhoneKey({:?}, redacted)", self.id)
    }
}

/// The host's keys: the current one, and those that older hashes were made with.
#[derive(Clone, Debug)]
pub struct PhoneKeys {
    current: PhoneKey,
    former: Vec<PhoneKey>,
}

impl PhoneKeys {
    /// One key, never rotated.
    #[must_use]
    pub fn new(current: PhoneKey) -> Self {
        Self { current, former: Vec::new() }
    }

    /// The same keys with a new current one.
    #[must_use]
    pub fn rotated(mut self, current: PhoneKey) -> Self {
        self.former.insert(0, self.current);
        Self { current, former: self.former }
    }

    /// The key that new hashes are made with.
    #[must_use]
    pub fn current(&self) -> &PhoneKey {
        &self.current
    }

    /// Every hash the number may be known by, the current key's first.
    pub fn hashes(&self, number: &PhoneNumber) -> impl Iterator<Item = PhoneNumberHash> {
        std::iter::once(&self.current).chain(&self.former).map(|key| key.hash(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number() -> PhoneNumber {
        "+1 212 555 0100".parse().unwrap()
    }

    fn key(id: &str, byte: u8) -> PhoneKey {
        PhoneKey::new(id, &[byte; 32]).unwrap()
    }

    /// `printf +12125550100 | openssl dgst -sha256 -mac HMAC -macopt hexkey:0b0b…` (32 times 0b).
    #[test]
    fn the_hash_is_what_other_programs_compute() {
        let hash = key("a", 0x0b).hash(&number()).to_string();
        assert_eq!(hash, "5a56d95efb17f45aef4a668f0f8b7402d748300af08de72035b4e7f51dd707fc");
    }

    #[test]
    fn another_key_or_number_gives_another_hash() {
        let hash = key("a", 1).hash(&number());
        assert_ne!(hash, key("a", 2).hash(&number()));
        assert_ne!(hash, key("a", 1).hash(&"+12125550101".parse().unwrap()));
    }

    #[test]
    fn only_64_lower_case_hex_digits_are_a_hash() {
        let text = key("a", 1).hash(&number()).to_string();
        assert_eq!(text.parse::<PhoneNumberHash>().unwrap().to_string(), text);
        let wrong = ["+12125550100", "", &text[1..], &text.to_uppercase(), &format!("{text}0")];
        for wrong in wrong {
            let error = wrong.parse::<PhoneNumberHash>().unwrap_err().to_string();
            assert!(error.contains("64") && !error.contains("212555"), "{error}");
        }
        assert!(format!("é{}", &text[2..]).parse::<PhoneNumberHash>().is_err());
    }

    #[test]
    fn a_short_key_is_refused_and_no_key_is_shown() {
        let error = PhoneKey::new("2026", &[1; 31]).unwrap_err().to_string();
        assert!(error.contains("2026") && error.contains("31") && error.contains("32"), "{error}");
        assert_eq!(format!("{:?}", key("2026", 1)), "PhoneKey(\"2026\", redacted)");
    }

    #[test]
    fn after_a_rotation_older_hashes_are_still_found() {
        let (old, new) = (key("2025", 1), key("2026", 2));
        let keys = PhoneKeys::new(old.clone()).rotated(new.clone()).rotated(key("2027", 3));
        let hashes: Vec<_> = keys.hashes(&number()).collect();
        assert_eq!(hashes[1..], [new.hash(&number()), old.hash(&number())]);
        assert_eq!(hashes[0], keys.current().hash(&number()));
        assert_eq!(keys.current().id(), "2027");
    }
}
