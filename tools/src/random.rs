//! Cheap random numbers for made-up events: splitmix64, not for secrets.

use quipu_client::Uuid;
use quipu_engine::clock::{Entropy, System};

/// A generator of 64-bit numbers.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// Numbers that differ from run to run.
    pub(crate) fn from_entropy() -> Self {
        let (high, low) = System.uuid().as_u64_pair();
        Self(high ^ low)
    }

    /// Numbers that follow from a seed.
    pub(crate) fn from_seed(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        let scaled = (u128::from(self.number()) * u128::from(end)) >> 64;
        u64::try_from(scaled).unwrap_or(0)
    }

    /// The next 16 bytes.
    pub(crate) fn bytes(&mut self) -> [u8; 16] {
        (u128::from(self.number()) << 64 | u128::from(self.number())).to_le_bytes()
    }

    /// A random UUID.
    pub(crate) fn uuid(&mut self) -> Uuid {
        Uuid::from_u64_pair(self.number(), self.number())
    }
}
