//! A request head that is accepted has one reading: written down again, it is read the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sallyport_gateway::fuzzing::{Request, request_head};

fuzz_target!(|bytes: &[u8]| {
    let Ok(Some(read)) = request_head(bytes) else {
        return;
    };
    assert!(bytes.ends_with(&read.left), "what follows stays as it is");
    assert!(!read.target.bytes().any(|byte| byte <= b' '), "{read:?}");
    for (name, value) in &read.headers {
        assert!(
            !name.is_empty() && !value.iter().any(|byte| b"\r\n\0".contains(byte)),
            "{read:?}"
        );
    }
    let head = &bytes[..bytes.len() - read.left.len()];
    // alone, and with something else behind it
    for behind in [&b""[..], b"GET / HTTP/1.1\r\n", b"\0"] {
        let again = request_head(&[head, behind].concat())
            .expect("it was a head")
            .expect("whole");
        assert_eq!(
            again,
            Request {
                left: behind.to_vec(),
                ..read.clone()
            }
        );
    }
    // every shorter part is no head yet, or the same refusal would have come earlier
    assert_eq!(request_head(&head[..head.len() - 1]), Ok(None));
    let again = request_head(&written(&read))
        .expect("what we write is a head")
        .expect("whole");
    assert_eq!(again, read);
});

fn written(read: &Request) -> Vec<u8> {
    let mut out = format!("{} {} HTTP/1.{}\r\n", read.method, read.target, read.minor).into_bytes();
    for (name, value) in &read.headers {
        out.extend(format!("{name}: ").bytes());
        out.extend(&value[..]);
        out.extend(b"\r\n");
    }
    if read.expects_continue {
        out.extend(b"expect: 100-continue\r\n");
    }
    let given = read
        .headers
        .iter()
        .find(|(name, _)| name == "content-length");
    let given = given.map(|(_, value)| std::str::from_utf8(value).expect("digits"));
    match read.length {
        None => out.extend(b"transfer-encoding: chunked\r\n"),
        Some(bytes) => assert_eq!(given.unwrap_or("0").parse(), Ok(bytes), "one length"),
    }
    out.extend(b"\r\n");
    out.extend(&read.left);
    out
}
