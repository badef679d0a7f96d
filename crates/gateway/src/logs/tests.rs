use std::path::Path;

use http::{HeaderName, HeaderValue};
use proptest::prelude::*;
use sallyport_plugins::Fields;

use super::*;

fn fields(headers: &[(&'static str, &str)]) -> Fields {
    let mut fields = Fields::new();
    for (name, value) in headers {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        fields.append(&HeaderName::from_static(name), &value);
    }
    fields
}

fn line(request: &[u8], headers: &Fields, format: AccessFormat) -> Vec<u8> {
    let mut out = Vec::new();
    let mut time = LocalTime::default();
    let line = Line {
        client: [203, 0, 113, 7].into(),
        time: time.at(1_795_355_284_999),
        request: request.into(),
        headers,
        status: 200,
        body_bytes: 12,
        request_id: "0af1",
    };
    line.write(&mut out, format);
    out
}

#[track_caller]
fn check(request: &str, headers: &[(&'static str, &str)], format: AccessFormat, expected: &str) {
    let line = line(request.as_bytes(), &fields(headers), format);
    let line = String::from_utf8(line).unwrap();
    assert_eq!(line, format!("203.0.113.7 - {expected}\n"));
}

#[test]
fn lines_are_those_of_nginx() {
    let time = "[22/Nov/2026:13:48:04 +0000]";
    check(
        "GET /a?b HTTP/1.1",
        &[("user-agent", "curl/8"), ("referer", "http://x/")],
        AccessFormat::Combined,
        &format!("- {time} \"GET /a?b HTTP/1.1\" 200 12 \"http://x/\" \"curl/8\""),
    );
    check(
        "",
        &[],
        AccessFormat::Kong,
        &format!("- {time} \"-\" 200 12 \"-\" \"-\" kong_request_id: \"0af1\""),
    );
    check(
        "GET / HTTP/1.1",
        &[
            ("authorization", "Basic YWxpY2U6cw=="),
            ("user-agent", "a\"\\é"),
        ],
        AccessFormat::Combined,
        &format!("alice {time} \"GET / HTTP/1.1\" 200 12 \"-\" \"a\\x22\\x5C\\xC3\\xA9\""),
    );
    for bad in ["Basic !!", "Bearer YWxpY2U6cw==", "Basic", "Basic YWxpY2U="] {
        check(
            "GET / HTTP/1.1",
            &[("authorization", bad)],
            AccessFormat::Combined,
            &format!("- {time} \"GET / HTTP/1.1\" 200 12 \"-\" \"-\""),
        );
    }
}

proptest! {
    #[test]
    fn nothing_that_a_client_sends_makes_a_second_line(
        request in proptest::collection::vec(any::<u8>(), 0..64), user in "[^:]{0,8}",
    ) {
        use base64::Engine as _;
        let user = base64::engine::general_purpose::STANDARD.encode(format!("{user}:x"));
        let headers = fields(&[("authorization", &format!("Basic {user}"))]);
        let line = line(&request, &headers, AccessFormat::Kong);
        prop_assert_eq!(memchr::memchr(b'\n', &line), Some(line.len() - 1));
        prop_assert!(line[..line.len() - 1].iter().all(|byte| (32..127).contains(byte)));
        prop_assert_eq!(line.iter().filter(|byte| **byte == b'"').count(), 8);
    }
}

#[test]
fn a_file_is_written_reopened_and_finished() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("logs/access.log");
    let target = |path: &Path| LogTarget::File {
        path: path.to_owned(),
        format: None,
    };
    let mut files = LogFiles::default();
    let first = files
        .access(&target(&path), AccessFormat::Kong)
        .unwrap()
        .unwrap();
    let second = files
        .access(&target(&path), AccessFormat::Kong)
        .unwrap()
        .unwrap();
    first.sink.write(b"one\n".to_vec());
    second.sink.write(b"two\n".to_vec());
    files.reopen(); // comes after the lines before it
    files.finish();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");

    let mut files = LogFiles::default();
    let sink = files
        .access(&target(&path), AccessFormat::Kong)
        .unwrap()
        .unwrap()
        .sink;
    std::fs::rename(&path, dir.path().join("old")).unwrap();
    sink.reopen();
    sink.write(b"three\n".to_vec());
    files.finish();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
    assert_eq!(files.dropped(), 0);
    assert!(
        files
            .access(&LogTarget::Off, AccessFormat::Kong)
            .unwrap()
            .is_none()
    );
    let bad = files
        .access(&target(&dir.path().join("old/x")), AccessFormat::Kong)
        .err();
    assert!(bad.unwrap().to_string().contains("old/x"));
}

#[test]
fn a_disk_that_does_not_keep_up_costs_lines_and_not_memory() {
    use std::io::Read as _;
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.unwrap().success());
    let reader = {
        let fifo = fifo.clone();
        std::thread::spawn(move || std::fs::File::open(fifo).unwrap())
    };
    let sink = Sink::open(&fifo).unwrap(); // waits for the reader
    let mut read = reader.join().unwrap();
    let chunk: Vec<u8> = b"0123456789abcde\n".repeat(4096);
    let chunks = 2 * QUEUED_BYTES_MAX / chunk.len();
    for _ in 0..chunks {
        sink.write(chunk.clone()); // nobody reads
    }
    let dropped = sink.dropped();
    assert!(dropped >= (chunks as u64 / 2) * 4096 - 4096, "{dropped}");
    let drained = std::thread::spawn(move || {
        let mut text = Vec::new();
        read.read_to_end(&mut text).unwrap();
        text
    });
    sink.finish();
    drop(sink);
    let lines = drained.join().unwrap().len() as u64 / 16;
    assert_eq!(lines + dropped, chunks as u64 * 4096);
}
