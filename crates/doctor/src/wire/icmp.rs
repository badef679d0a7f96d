//! ICMP and ICMPv6 echo.

/// An echo request. The kernel fills in the checksum of ICMPv6, and the identifier of unprivileged
/// sockets.
pub fn request(v4: bool, id: u16, sequence: u16, cookie: [u8; 8]) -> Vec<u8> {
    let mut bytes = vec![if v4 { 8 } else { 128 }, 0, 0, 0];
    bytes.extend(id.to_be_bytes());
    bytes.extend(sequence.to_be_bytes());
    bytes.extend(cookie);
    if v4 {
        let sum = checksum(&bytes).to_be_bytes();
        bytes[2..4].copy_from_slice(&sum);
    }
    bytes
}

/// Whether `bytes` are the reply to the request with `cookie`, with or without an IPv4 header.
pub fn is_reply(v4: bool, cookie: [u8; 8], bytes: &[u8]) -> bool {
    let icmp = match bytes.first() {
        // 0x45 and above is no ICMP type of ours: an IPv4 header, its length in words.
        Some(first) if v4 && first >> 4 == 4 => bytes.get(usize::from(first & 0x0f) * 4..),
        _ => Some(bytes),
    };
    let kind = if v4 { 0 } else { 129 };
    icmp.is_some_and(|it| it.first() == Some(&kind) && it.get(8..16) == Some(&cookie[..]))
}

fn checksum(bytes: &[u8]) -> u16 {
    let pairs = bytes.chunks(2).map(|pair| {
        u32::from(u16::from_be_bytes([
            pair[0],
            pair.get(1).copied().unwrap_or(0),
        ]))
    });
    let mut sum: u32 = pairs.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded to 16 bits above")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_sums_to_zero_and_its_reply_is_known() {
        let cookie = *b"sallyprt";
        let bytes = request(true, 7, 1, cookie);
        assert_eq!(checksum(&bytes), 0);
        let mut reply = bytes;
        assert!(!is_reply(true, cookie, &reply));
        reply[0] = 0;
        assert!(is_reply(true, cookie, &reply));
        let mut raw = vec![0x45; 20];
        raw.extend(&reply);
        assert!(is_reply(true, cookie, &raw));
        assert!(!is_reply(true, *b"anothers", &raw));
        let mut reply = request(false, 7, 1, cookie);
        reply[0] = 129;
        assert!(is_reply(false, cookie, &reply));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn hostile_bytes_never_panic(v4: bool, cookie: [u8; 8], bytes: Vec<u8>) {
            let _ = is_reply(v4, cookie, &bytes);
        }
    }
}
