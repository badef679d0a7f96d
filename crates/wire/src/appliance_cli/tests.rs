use proptest::prelude::*;
use serde_json::json;

use super::*;

#[test]
fn a_frame_is_read_as_it_is_written() {
    let mut bytes = Vec::new();
    write(Kind::Request, b"{}", &mut bytes);
    assert_eq!(bytes, [0, 0, 0, 3, 1, b'{', b'}']);
    write(Kind::Data, b"", &mut bytes);
    let first = split(&bytes, FRAME_BYTES_MAX).unwrap().unwrap();
    assert_eq!(
        (first.kind, first.payload, first.bytes),
        (Kind::Request, &b"{}"[..], 7)
    );
    let second = split(&bytes[7..], FRAME_BYTES_MAX).unwrap().unwrap();
    assert_eq!(
        (second.kind, second.payload, second.bytes),
        (Kind::Data, &b""[..], 5)
    );
}

#[test]
fn what_is_no_frame_is_noticed_before_its_payload() {
    assert_eq!(split(&[0, 0, 0, 0], 10), Err(FrameError::Empty));
    let long = FrameError::TooLong { found: 11, max: 10 };
    assert_eq!(split(&[0, 0, 0, 11], 10), Err(long));
    assert_eq!(split(&[0, 0, 0, 2, 9], 10), Err(FrameError::Kind(9)));
    assert!(split(b"GET / HTTP/1.1\r\n\r\n", REQUEST_BYTES_MAX).is_err());
    assert!(split(b"SSH-2.0-", REQUEST_BYTES_MAX).is_err());
    for cut in 0..6 {
        assert_eq!(split(&[0, 0, 0, 2, 1, 7][..cut], 10), Ok(None));
    }
}

#[test]
fn a_request_has_names_that_commands_have() {
    let read = |text: &str| Request::decode(text.as_bytes());
    let right = read(r#"{"protocol":1,"command":"test-port","arguments":{"host":"h","port":"1"}}"#);
    let right = right.unwrap();
    assert_eq!(right.arguments["port"], "1");
    read(r#"{"protocol":7,"command":"ping","later":true}"#).unwrap();
    for bad in [
        "",
        "[]",
        r#"{"command":"ping"}"#,
        r#"{"protocol":1,"command":""}"#,
        r#"{"protocol":1,"command":"Ping"}"#,
        r#"{"protocol":1,"command":"../x"}"#,
        r#"{"protocol":1,"command":"ping","arguments":{"a b":"c"}}"#,
        r#"{"protocol":1,"command":"ping","arguments":{"a":"\u0000"}}"#,
        r#"{"protocol":1,"command":"ping","arguments":{"a":1}}"#,
    ] {
        read(bad).unwrap_err();
    }
    let long = format!(
        r#"{{"protocol":1,"command":"ping","arguments":{{"a":"{}"}}}}"#,
        "x".repeat(20_000)
    );
    assert!(read(&long).is_err());
}

#[test]
fn arguments_are_checked_against_the_command() {
    let argument = |name: &str, required| Argument {
        name: name.to_owned(),
        about: String::new(),
        required,
        secret: false,
    };
    let command = Command {
        name: "test-port".to_owned(),
        about: String::new(),
        arguments: vec![
            argument("host", true),
            argument("port", true),
            argument("why", false),
        ],
        file: false,
    };
    let check = |given: &[(&str, &str)]| {
        let given = given
            .iter()
            .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()));
        check_arguments(&command, &given.collect())
    };
    check(&[("host", "h"), ("port", "1")]).unwrap();
    let takes = "test-port <host> <port> [why]";
    let missing = check(&[("host", "h"), ("port", "")]).unwrap_err();
    assert!(
        missing.contains("port is missing") && missing.contains(takes),
        "{missing}"
    );
    let unknown = check(&[("host", "h"), ("prot", "1")]).unwrap_err();
    assert!(
        unknown.contains("\"prot\"") && unknown.contains(takes),
        "{unknown}"
    );
}

#[test]
fn a_reply_has_the_known_form() {
    let pong = serde_json::to_value(Reply::new("PONG")).unwrap();
    assert_eq!(pong, json!({"message": "PONG", "arguments": {}}));
    let found = Reply::new("found").with("name", "x").with("bytes", 7);
    let found = serde_json::to_value(found).unwrap();
    assert_eq!(
        found,
        json!({"message": "found", "arguments": {"name": "x", "bytes": 7}})
    );
    let refused = serde_json::to_value(Reply::refused("busy", "no")).unwrap();
    assert_eq!(refused["error"], "busy");
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Request),
        Just(Kind::Reply),
        Just(Kind::Progress),
        Just(Kind::Data)
    ]
}

proptest! {
    #[test]
    fn frames_come_back_however_they_are_cut(
        frames in proptest::collection::vec((kinds(), any::<Vec<u8>>()), 0..5),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = Vec::new();
        for (kind, payload) in &frames {
            write(*kind, payload, &mut bytes);
        }
        let (mut rest, mut read) = (&bytes[..], Vec::new());
        while let Some(frame) = split(rest, FRAME_BYTES_MAX).unwrap() {
            read.push((frame.kind, frame.payload.to_vec()));
            rest = &rest[frame.bytes..];
        }
        prop_assert_eq!(rest.len(), 0);
        prop_assert_eq!(&read, &frames);
        // a part of them is never an error
        let part = &bytes[..cut.index(bytes.len() + 1)];
        prop_assert!(split(part, FRAME_BYTES_MAX).is_ok());
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in any::<Vec<u8>>(), max in 0_usize..100) {
        if let Ok(Some(frame)) = split(&bytes, max) {
            prop_assert!(frame.bytes <= bytes.len() && frame.payload.len() < max);
        }
        _ = Request::decode(&bytes);
    }
}
