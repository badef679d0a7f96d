//! A response head that is accepted loses what concerns the connection, and keeps its one length.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sallyport_gateway::fuzzing::response_head;

const CONNECTION: [&str; 5] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "transfer-encoding",
    "upgrade",
];

fuzz_target!(|bytes: &[u8]| {
    let Ok(Some(read)) = response_head(bytes) else {
        return;
    };
    assert!((100..1000).contains(&read.status));
    assert!(bytes.ends_with(&read.left), "what follows stays as it is");
    assert!(!(read.until_close && read.length.is_some()), "{read:?}");
    let mut lengths = Vec::new();
    for (name, value) in &read.headers {
        assert!(!CONNECTION.contains(&name.as_str()), "{read:?}");
        assert!(
            !value.iter().any(|byte| b"\r\n\0".contains(byte)),
            "{read:?}"
        );
        if name == "content-length" {
            lengths.push(
                std::str::from_utf8(value)
                    .expect("digits")
                    .parse::<u64>()
                    .ok(),
            );
        }
    }
    match read.length {
        Some(_) => assert_eq!(lengths, [read.length]),
        None => assert!(lengths.is_empty(), "{read:?}"),
    }
    let head = &bytes[..bytes.len() - read.left.len()];
    let again = response_head(&[head, b"0\r\n\r\n"].concat())
        .expect("a head")
        .expect("whole");
    assert_eq!(
        (again.status, &again.headers, again.length, again.keep_alive),
        (read.status, &read.headers, read.length, read.keep_alive)
    );
});
