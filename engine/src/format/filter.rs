//! The filter of a sorted run's table (segments-format.md §15.4): says of a key that it is surely
//! not there, at the price of one line of the cache.

/// Bytes of one block: a line of the cache.
pub const FILTER_BLOCK_BYTES: usize = 64;
const WORDS: usize = 8;
/// Blocks that are encoded at a time.
const PIECE_BLOCKS: usize = 4_096;
/// Odd numbers, one for each word: each picks its bit from the same half of the hash.
const SALTS: [u32; WORDS] = [
    0x47b6_137b,
    0x4497_4d91,
    0x8824_ad5b,
    0xa2b7_289d,
    0x7054_95c7,
    0x2df1_424b,
    0x9efc_4947,
    0x5c6b_fb31,
];

/// A Bloom filter in blocks: a key has one block, and one bit in each of its eight words.
#[derive(Clone, Debug)]
pub struct Filter {
    blocks: Vec<Block>,
}

/// One block, in one line of the cache.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Block([u64; WORDS]);

impl Filter {
    /// An empty filter of so many blocks, at least one.
    #[must_use]
    pub fn new(blocks: u32) -> Self {
        Self { blocks: vec![Block([0; WORDS]); blocks.max(1) as usize] }
    }

    /// How many blocks give each of so many keys so many bits.
    #[must_use]
    pub fn blocks_for(keys: u64, bits_a_key: u64) -> u32 {
        let blocks = keys.saturating_mul(bits_a_key).div_ceil(FILTER_BLOCK_BYTES as u64 * 8);
        u32::try_from(blocks).unwrap_or(u32::MAX)
    }

    /// Adds the keys with these hashes. Nothing else happens between one and the next, so the
    /// processor fetches the blocks of several at a time.
    pub fn insert_all(&mut self, hashes: &[u64]) {
        for &hash in hashes {
            let at = self.block_of(hash);
            for (word, bit) in self.blocks[at].0.iter_mut().zip(bits(hash)) {
                *word |= bit;
            }
        }
    }

    /// False if the key with this hash was surely never added.
    #[must_use]
    pub fn may_have(&self, hash: u64) -> bool {
        let block = &self.blocks[self.block_of(hash)];
        block.0.iter().zip(bits(hash)).all(|(word, bit)| word & bit != 0)
    }

    /// Looks at the blocks of keys that will be asked for, so that the processor fetches many at a
    /// time, where one question after another would wait for each.
    pub fn touch(&self, hashes: impl Iterator<Item = u64>) {
        let words = hashes.map(|hash| self.blocks[self.block_of(hash)].0[0]);
        std::hint::black_box(words.fold(0, |all, word| all ^ word));
    }

    /// How many blocks it has.
    #[must_use]
    pub fn blocks(&self) -> u32 {
        u32::try_from(self.blocks.len()).unwrap_or(u32::MAX)
    }

    /// Its bytes in memory.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.blocks.len() as u64 * FILTER_BLOCK_BYTES as u64
    }

    /// Its bytes, in pieces of whole blocks: all of them may be hundreds of megabytes.
    pub fn encode(&self) -> impl Iterator<Item = Vec<u8>> {
        self.blocks.chunks(PIECE_BLOCKS).map(|blocks| {
            blocks.iter().flat_map(|block| block.0).flat_map(u64::to_le_bytes).collect()
        })
    }

    /// A filter whose blocks are still to come, with room for so many.
    #[must_use]
    pub fn with_room(blocks: u32) -> Self {
        Self { blocks: Vec::with_capacity(blocks as usize) }
    }

    /// Adds the whole blocks among these bytes.
    pub fn extend(&mut self, bytes: &[u8]) {
        let (words, _) = bytes.as_chunks::<8>();
        let (blocks, _) = words.as_chunks::<WORDS>();
        self.blocks.extend(blocks.iter().map(|words| Block(words.map(u64::from_le_bytes))));
    }

    /// The upper half of the hash picks the block, without a division.
    fn block_of(&self, hash: u64) -> usize {
        let scaled = u128::from(hash) * self.blocks.len() as u128;
        usize::try_from(scaled >> 64).unwrap_or(0)
    }
}

/// The key's bit in each word, by the lower half of its hash.
fn bits(hash: u64) -> [u64; WORDS] {
    let [low, _] = halves(hash);
    SALTS.map(|salt| 1 << (low.wrapping_mul(salt) >> 26))
}

#[expect(clippy::cast_possible_truncation, reason = "each half is taken as it is")]
fn halves(hash: u64) -> [u32; 2] {
    [hash as u32, (hash >> 32) as u32]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that look random, the same every time.
    fn hashes(seed: u64) -> impl Iterator<Item = u64> {
        let mut state = seed;
        std::iter::repeat_with(move || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        })
    }

    #[test]
    fn what_was_added_is_never_denied_and_little_else_is_let_through() {
        let count = 20_000;
        let mut filter = Filter::new(Filter::blocks_for(count, 16));
        let added = || hashes(1).take(20_000);
        filter.insert_all(&added().collect::<Vec<_>>());
        assert!(added().all(|hash| filter.may_have(hash)));
        let wrong = hashes(2).take(100_000).filter(|hash| filter.may_have(*hash)).count();
        assert!(wrong < 300, "{wrong} of 100,000 others are let through");
        let bytes: Vec<u8> = filter.encode().flatten().collect();
        let mut again = Filter::with_room(filter.blocks());
        let (one, others) = bytes.split_at(FILTER_BLOCK_BYTES);
        again.extend(one);
        again.extend(others);
        assert_eq!(again.blocks(), filter.blocks());
        assert!(added().all(|hash| again.may_have(hash)));
        assert_eq!(bytes.len() as u64, filter.bytes());
    }
}
