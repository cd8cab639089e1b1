//! The 64-bit checksum: CRC-64/NVME.

/// CRC-64/NVME of `bytes`.
#[must_use]
pub fn crc64(bytes: &[u8]) -> u64 {
    crc64_of(&[bytes])
}

/// CRC-64/NVME of these parts, one after another.
#[must_use]
pub fn crc64_of(parts: &[&[u8]]) -> u64 {
    let mut digest = crc64fast_nvme::Digest::new();
    for part in parts {
        digest.write(part);
    }
    digest.sum64()
}

/// The sum of what comes a piece at a time.
#[derive(Default)]
pub struct RunningSum(crc64fast_nvme::Digest);

impl RunningSum {
    /// Takes the next bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0.write(bytes);
    }

    /// CRC-64/NVME of all bytes so far.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.0.sum64()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_check_value_is_the_published_one() {
        assert_eq!(super::crc64(b"123456789"), 0xAE8B_1486_0A79_9888);
    }
}
