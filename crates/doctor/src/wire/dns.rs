//! DNS (RFC 1035): a question for an address, and whether bytes are an answer to it.

/// A question for the IPv4 address of `name`; `None` if it is no host name.
pub fn question(id: u16, name: &str) -> Option<Vec<u8>> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let mut bytes = Vec::with_capacity(name.len() + 18);
    bytes.extend(id.to_be_bytes());
    bytes.extend([0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0]); // recursion desired, one question
    for label in name.split('.') {
        let length = u8::try_from(label.len())
            .ok()
            .filter(|it| (1..=63).contains(it))?;
        bytes.push(length);
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]); // root, type A, class IN
    (name.len() <= 253).then_some(bytes)
}

/// The response code if `bytes` answer the question with this `id`.
pub fn response_code(id: u16, bytes: &[u8]) -> Option<u8> {
    let head: &[u8; 12] = bytes.first_chunk()?;
    let answers = head[2] & 0x80 != 0 && u16::from_be_bytes([head[0], head[1]]) == id;
    answers.then_some(head[3] & 0x0f)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn asks_and_recognises() {
        let bytes = question(0x1234, "a.example.").unwrap();
        assert_eq!(
            bytes,
            *b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x07example\x00\x00\x01\x00\x01"
        );
        assert_eq!(
            response_code(0x1234, &bytes),
            None,
            "a question is no answer"
        );
        let mut answer = bytes;
        answer[2] = 0x81;
        answer[3] = 0x83;
        assert_eq!(response_code(0x1234, &answer), Some(3));
        assert_eq!(response_code(0x1235, &answer), None);
        assert_eq!(question(1, "a..b"), None);
        assert_eq!(question(1, &"a".repeat(64)), None);
        assert_eq!(question(1, ""), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn hostile_bytes_never_panic(id: u16, bytes: Vec<u8>, name in "\\PC{0,300}") {
            let _ = response_code(id, &bytes);
            let _ = question(id, &name);
        }
    }
}
