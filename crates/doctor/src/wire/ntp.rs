//! NTP (RFC 5905), as a client that asks once.

/// Seconds from 1900, where NTP counts from, to 1970.
const EPOCHS_APART_SECS: i64 = 2_208_988_800;

/// A request (version 4, client). `cookie` comes back in the answer's origin timestamp.
pub fn request(cookie: [u8; 8]) -> [u8; 48] {
    let mut bytes = [0; 48];
    bytes[0] = 0x23;
    bytes[40..].copy_from_slice(&cookie);
    bytes
}

/// The server's time in Unix seconds, if `bytes` answer the request with `cookie`.
///
/// `None` also for a server that says it does not know the time (stratum 0, or unsynchronised).
pub fn unix_secs(cookie: [u8; 8], bytes: &[u8]) -> Option<i64> {
    let bytes: &[u8; 48] = bytes.first_chunk()?;
    let is_server = bytes[0] & 0x07 == 4;
    let knows = bytes[1] != 0 && bytes[0] >> 6 != 3;
    let secs = i64::from(u32::from_be_bytes([
        bytes[40], bytes[41], bytes[42], bytes[43],
    ]));
    // The counter overflows in 2036; a small value is of the era after that.
    let secs = if secs < EPOCHS_APART_SECS {
        secs + (1 << 32)
    } else {
        secs
    };
    (is_server && knows && bytes[24..32] == cookie).then_some(secs - EPOCHS_APART_SECS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_the_time_of_an_answer() {
        let cookie = *b"12345678";
        assert_eq!(request(cookie)[0], 0x23);
        let mut bytes = [0; 48];
        bytes[0] = 0x24;
        bytes[1] = 2;
        bytes[24..32].copy_from_slice(&cookie);
        bytes[40..44].copy_from_slice(&3_913_056_000_u32.to_be_bytes());
        assert_eq!(unix_secs(cookie, &bytes), Some(1_704_067_200), "2024-01-01");
        bytes[40..44].copy_from_slice(&1_u32.to_be_bytes());
        assert_eq!(unix_secs(cookie, &bytes), Some(2_085_978_497), "2036-02-07");
        assert_eq!(unix_secs(*b"87654321", &bytes), None);
        bytes[1] = 0;
        assert_eq!(unix_secs(cookie, &bytes), None, "kiss of death");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn hostile_bytes_never_panic(cookie: [u8; 8], bytes: Vec<u8>) {
            let _ = unix_secs(cookie, &bytes);
        }
    }
}
