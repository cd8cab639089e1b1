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

#[cfg(test)]
mod tests {
    #[test]
    fn the_check_value_is_the_published_one() {
        assert_eq!(super::crc64(b"123456789"), 0xAE8B_1486_0A79_9888);
    }
}
