//! Tables of the formats, and properties of everything that reads bytes from outside.

use proptest::prelude::*;
use serde_json::{Map, Value};

use super::chain::{self, End, GENESIS};
use super::*;

fn event(what: What) -> Event {
    Event {
        at_ms: 1_700_000_000_120,
        src: Some("192.0.2.7".parse().unwrap()),
        org_id: Some("org".to_owned()),
        principal_id: Some("user".to_owned()),
        principal_name: None,
        actor_id: None,
        trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736".to_owned()),
        user_agent: Some("decK/1.4".to_owned()),
        what,
    }
}

fn access(request: &str, query: &str) -> Event {
    event(What::Access {
        request: request.to_owned(),
        query: query.to_owned(),
        act: "PUT".to_owned(),
        status: Some(200),
    })
}

fn object(text: &str) -> Map<String, Value> {
    serde_json::from_str(text).unwrap()
}

/// A signature that only this module makes: the text's hash twice.
fn sign(text: &str) -> [u8; 64] {
    let hash = chain::hash(text);
    std::array::from_fn(|at| hash[at % 32] ^ 0x5a)
}

fn verify(text: &[u8], signature: &[u8; 64]) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| sign(text) == *signature)
}

/// An export of `count` records.
fn export(count: u64) -> Vec<String> {
    let mut prev = GENESIS;
    let mut lines = Vec::new();
    for seq in 1..=count {
        let text = access(&format!("/v2/control-planes/{seq}"), "").text(seq, &prev);
        prev = chain::hash(&text);
        lines.push(chain::signed(&text, &sign(&text)));
    }
    let end = End {
        first: 1,
        last: count,
        head: prev,
        at_ms: 0,
    };
    lines.push(chain::signed(&end.text(), &sign(&end.text())));
    lines
}

fn faults(lines: &[String]) -> Vec<Fault> {
    let mut verifier = Verifier::new(verify);
    lines.iter().for_each(|line| verifier.line(line));
    verifier.finish(true).faults
}

#[test]
fn json_is_flat_and_says_its_place() {
    let text = access("/v2/x", "size=1").text(7, &GENESIS);
    let zeros = "0".repeat(64);
    let expected = format!(
        "{{\"act\":\"PUT\",\"cef_version\":0,\"event_class_id\":\"KongGateway\",\
         \"event_product\":\"Konnect\",\"event_ts\":\"2023-11-14T22:13:20.120Z\",\
         \"event_vendor\":\"KongInc\",\"event_version\":\"1.0\",\"name\":\"Ingress\",\
         \"org_id\":\"org\",\"prev\":\"{zeros}\",\"principal_id\":\"user\",\"query\":\"size=1\",\
         \"request\":\"/v2/x\",\"rt\":1700000000120,\"seq\":7,\"severity\":1,\
         \"src\":\"192.0.2.7\",\"status\":200,\
         \"trace_id\":\"4bf92f3577b34da6a3ce929d0e0e4736\",\"user_agent\":\"decK/1.4\"}}"
    );
    assert_eq!(text, expected);
}

#[test]
fn cef_escapes_what_would_be_taken_for_its_own() {
    let denied = event(What::Authorization {
        service: "a|b\\c".to_owned(),
        resource: "control-planes/x".to_owned(),
        action: "say=\"a\\b\"\nsig=forged".to_owned(),
        granted: false,
    });
    let line = cef::render("sallyport.example", &object(&denied.text(1, &GENESIS)));
    let head = "2023-11-14T22:13:20.120Z sallyport.example \
                CEF:0|KongInc|Konnect|1.0|a\\|b\\\\c|Authz.control-planes/x|6|";
    assert!(line.starts_with(head), "{line}");
    assert!(
        line.contains("action=say\\=\"a\\\\b\"\\nsig\\=forged granted=false "),
        "{line}"
    );
    assert!(!line.contains('\n'));
}

#[test]
fn severities_follow_the_outcome() {
    #[track_caller]
    fn check(what: What, severity: u8) {
        let text = event(what).text(1, &GENESIS);
        assert_eq!(object(&text)["severity"], severity, "{text}");
    }
    let access = |status| What::Access {
        request: String::new(),
        query: String::new(),
        act: String::new(),
        status,
    };
    check(access(Some(200)), 1);
    check(access(Some(404)), 1);
    check(access(Some(403)), 6);
    check(access(Some(500)), 10);
    check(access(Some(507)), 10);
    check(access(None), 1);
    let received = |severity| {
        What::Received(Received {
            message: Message {
                severity,
                ..Message::default()
            },
            ..Received::default()
        })
    };
    check(received(0), 10);
    check(received(7), 0);
}

#[test]
fn the_pull_form_has_its_own_names() {
    let failed = event(What::Authentication {
        by: AuthenticationType::Pat,
        outcome: AuthenticationOutcome::NotFound,
        request: "/v2/x".to_owned(),
        reason: None,
        repeated: 3,
    });
    let record = object(&failed.text(9, &GENESIS));
    let shown = pull::shown(Kind::Authentication, &record, "SIG");
    let expected = serde_json::json!({
        "type": "authentication", "signature": "SIG", "ts": "2023-11-14T22:13:20.120Z",
        "org_id": "org", "principal_id": "user", "client_ip": "192.0.2.7",
        "user_agent": "decK/1.4", "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "seq": 9,
        "uri": "/v2/x", "successful": false, "repeated": 3,
        "authentication_type": "pat", "outcome": "not_found",
    });
    assert_eq!(shown, expected);
}

#[test]
fn an_untouched_export_has_no_faults() {
    assert_eq!(faults(&export(5)), []);
    assert_eq!(faults(&export(0)), []);
    let mut verifier = Verifier::new(verify);
    export(3).iter().for_each(|line| verifier.line(line));
    let summary = verifier.finish(true);
    assert_eq!((summary.records, summary.first, summary.last), (3, 1, 3));
}

#[test]
fn every_deletion_swap_cut_and_insertion_is_found() {
    let whole = export(6);
    for at in 0..whole.len() {
        let mut less = whole.clone();
        less.remove(at);
        assert_ne!(faults(&less), [], "line {at} deleted");
        assert_ne!(faults(&whole[..at]), [], "cut before line {at}");
        let mut more = whole.clone();
        more.insert(at, whole[at].clone());
        assert_ne!(faults(&more), [], "line {at} twice");
        for other in at + 1..whole.len() {
            let mut swapped = whole.clone();
            swapped.swap(at, other);
            assert_ne!(faults(&swapped), [], "lines {at} and {other} swapped");
        }
    }
    assert_ne!(faults(&whole[1..]), []);
    // a shorter export with the end of the longer one, and the other way round
    let mut spliced = whole[..4].to_vec();
    spliced.push(whole[6].clone());
    assert_ne!(faults(&spliced), []);
    let mut spliced = whole[..6].to_vec();
    spliced.push(export(4)[4].clone());
    assert_ne!(faults(&spliced), []);
}

#[test]
fn every_flipped_bit_is_found() {
    let whole = export(2).join("\n");
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut bytes = whole.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            let lines: Vec<String> = bytes
                .split(|byte| *byte == b'\n')
                .map(|line| String::from_utf8_lossy(line).into_owned())
                .collect();
            assert_ne!(faults(&lines), [], "byte {at}, bit {bit}");
        }
    }
}

#[test]
fn a_record_forged_with_another_record_in_its_place_does_not_continue() {
    let whole = export(3);
    let text = access("/elsewhere", "").text(2, &[7; 32]);
    let mut forged = whole;
    forged[1] = chain::signed(&text, &sign(&text));
    let kinds: Vec<FaultKind> = faults(&forged).into_iter().map(|it| it.kind).collect();
    assert_eq!(kinds, [FaultKind::Previous, FaultKind::Previous]);
}

#[test]
fn a_log_from_before_is_noticed_by_who_noted_its_end() {
    let summary = |lines: &[String], noted| {
        let mut verifier = Verifier::new(verify).noted(noted);
        lines.iter().for_each(|line| verifier.line(line));
        verifier.finish(true)
    };
    let end = |count| {
        let summary = summary(&export(count), None);
        Some((summary.last, summary.head))
    };
    assert_eq!(summary(&export(5), end(3)).faults, []);
    assert_eq!(summary(&export(3), end(3)).faults, []);
    let kinds = |lines: &[String], noted| {
        let faults = summary(lines, noted).faults;
        faults.into_iter().map(|it| it.kind).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&export(2), end(3)), [FaultKind::Noted(3)]);
    assert_eq!(kinds(&export(5), Some((3, [1; 32]))), [FaultKind::Noted(3)]);
}

#[track_caller]
fn check_message(bytes: &[u8], expected: Result<(u8, u8, &str, &str), SyslogError>) {
    let got = Message::parse(bytes);
    let got = got.map(|m| {
        let host = m.hostname.clone().unwrap_or_default();
        (m.facility, m.severity, host, m.text)
    });
    let expected = expected.map(|(f, s, host, text)| (f, s, host.to_owned(), text.to_owned()));
    assert_eq!(got, expected, "{}", String::from_utf8_lossy(bytes));
}

#[test]
fn syslog_messages_are_read() {
    use SyslogError::{Data, Field, Priority, Timestamp, Version};
    check_message(
        b"<165>1 2003-10-11T22:14:15.003Z host app 1 ID47 [x@1 a=\"b\\]\" c=\"\"][y] hi\n",
        Ok((20, 5, "host", "hi")),
    );
    check_message(b"<0>1 - - - - - -", Ok((0, 0, "", "")));
    check_message(
        b"<0>1 - - - - - - \xef\xbb\xbf\xc3\xa9",
        Ok((0, 0, "", "\u{e9}")),
    );
    check_message(b"<0>1 - - - - - - \xff", Ok((0, 0, "", "\u{fffd}")));
    check_message(
        b"<191>1 2024-01-01T00:00:00+01:00 h - - - - x",
        Ok((23, 7, "h", "x")),
    );
    check_message(b"<192>1 - - - - - -", Err(Priority));
    check_message(b"<01>1 - - - - - -", Err(Priority));
    check_message(b"<>1 - - - - - -", Err(Priority));
    check_message(b"<9999>1 - - - - - -", Err(Priority));
    check_message(b"", Err(Priority));
    check_message(b"<13>Oct 11 22:14:15 host su: failed", Err(Version));
    check_message(b"<13>2 - - - - - -", Err(Version));
    check_message(b"<13>1 yesterday - - - - -", Err(Timestamp));
    check_message(b"<13>1 2003-10-11 - - - - -", Err(Timestamp));
    check_message(b"<13>1 - h\xc3\xa9 - - - -", Err(Field("host name")));
    check_message(b"<13>1 -  - - - -", Err(Field("host name")));
    check_message(b"<13>1 - - -", Err(Field("application name")));
    check_message(b"<13>1 - - - - - ", Err(Data));
    check_message(b"<13>1 - - - - - [x a=\"b] y", Err(Data));
    check_message(b"<13>1 - - - - - [x a=b] y", Err(Data));
    check_message(b"<13>1 - - - - - [] y", Err(Data));
    check_message(b"<13>1 - - - - - -y", Err(Data));
}

#[test]
fn the_sequence_is_found_in_its_element() {
    #[track_caller]
    fn check(data: &str, expected: Option<u32>) {
        let message = format!("<13>1 - - - - - {data} x");
        let message = Message::parse(message.as_bytes()).unwrap();
        assert_eq!(message.sequence(), expected, "{data}");
    }
    check("[meta sequenceId=\"29\" ip=\"::1\"]", Some(29));
    check(
        "[x][meta ip=\"::1\" sequenceId=\"2147483647\"]",
        Some(2_147_483_647),
    );
    check("[meta sequenceId=\"2147483648\"]", None);
    check("[meta sequenceId=\"0\"]", None);
    check("[meta sequenceId=\"-1\"]", None);
    check("[x sequenceId=\"1\"]", None);
    check("-", None);
}

#[test]
fn sequences_show_loss() {
    let mut sequences = Sequences::new(2);
    let mut check = |sender: u8, number, expected| {
        assert_eq!(
            sequences.step(&sender, number),
            expected,
            "{sender} {number}"
        );
    };
    check(1, 5, Step::First);
    check(1, 6, Step::Next);
    check(1, 9, Step::Gap { from: 7, to: 8 });
    check(1, 8, Step::Late);
    check(1, 9, Step::Late);
    check(1, 10, Step::Next);
    check(1, 1, Step::Restart);
    check(2, sequence::SEQUENCE_MAX, Step::First);
    check(2, 1, Step::Next);
    check(3, 1, Step::First); // forgets sender 1, unheard for longest
    check(2, 2, Step::Next);
    check(1, 2, Step::First);
}

#[track_caller]
fn check_frames(stream: &[u8], expected: Result<&[&str], FramingError>) {
    // in one piece, and byte by byte
    for chunk in [stream.len().max(1), 1] {
        let mut framer = Framer::new(20);
        let mut got = Vec::new();
        let mut failed = None;
        for bytes in stream.chunks(chunk) {
            framer.push(bytes);
            loop {
                match framer.next_message() {
                    Ok(Some(message)) => got.push(String::from_utf8(message).unwrap()),
                    Ok(None) => break,
                    Err(error) => {
                        failed = Some(error);
                        break;
                    }
                }
            }
        }
        match expected {
            Ok(messages) => assert_eq!((failed, got), (None, to_strings(messages))),
            Err(error) => assert_eq!(failed, Some(error)),
        }
    }
}

fn to_strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

#[test]
fn streams_are_cut_both_ways() {
    check_frames(b"3 abc10 0123456789", Ok(&["abc", "0123456789"]));
    check_frames(
        b"<1>a\n<2>b\r\n\0\n3 abc\nCEF:0\n",
        Ok(&["<1>a", "<2>b\r", "abc", "CEF:0"]),
    );
    check_frames(b"3 a\nc<x>\n", Ok(&["a\nc", "<x>"]));
    check_frames(b"5 abc", Ok(&[]));
    check_frames(b"", Ok(&[]));
    let too_long = Err(FramingError::TooLong { bytes_max: 20 });
    check_frames(b"21 x", too_long);
    check_frames(b"99999999999999999999999", too_long);
    check_frames(b"<aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", too_long);
    check_frames(b"3abc ", Err(FramingError::Length));
    check_frames(
        b"2026-01-01T00:00:00Z host CEF:0|",
        Err(FramingError::Length),
    );
}

#[test]
fn a_last_line_needs_no_line_feed() {
    let mut framer = Framer::new(20);
    framer.push(b"<1>a\n<2>b");
    assert_eq!(framer.next_message(), Ok(Some(b"<1>a".to_vec())));
    assert_eq!(framer.next_message(), Ok(None));
    assert!(framer.is_inside());
    assert_eq!(framer.finish(), Some(b"<2>b".to_vec()));
    framer.push(b"9 abc");
    assert_eq!(framer.next_message(), Ok(None));
    assert_eq!(framer.finish(), None);
}

fn name(chars_max: usize) -> impl Strategy<Value = Option<String>> {
    let some = proptest::string::string_regex(&format!("[!-~]{{1,{chars_max}}}")).unwrap();
    proptest::option::of(some.prop_filter("a lone - is none", |text| text != "-"))
}

fn messages() -> impl Strategy<Value = Message> {
    let data_name = "[!#-<>-\\\\^-~]{1,32}";
    let params = proptest::collection::vec((data_name, any::<String>()), 0..3);
    let element = (data_name, params).prop_map(|(id, params)| Element { id, params });
    let names = (name(255), name(48), name(128), name(32));
    let text = any::<String>().prop_filter("line ends are passed over", |text| {
        !text.ends_with(['\n', '\r']) && !text.starts_with('\u{feff}')
    });
    let data = proptest::collection::vec(element, 0..3);
    (0_u8..24, 0_u8..8, names, data, text).prop_map(
        |(facility, severity, (hostname, app_name, procid, msgid), data, text)| Message {
            facility,
            severity,
            timestamp: Some("2026-01-02T03:04:05.678Z".to_owned()),
            hostname,
            app_name,
            procid,
            msgid,
            data,
            text,
        },
    )
}

proptest! {
    #[test]
    fn a_rendered_message_is_read_the_same(message in messages()) {
        prop_assert_eq!(Message::parse(&message.render()), Ok(message));
    }

    #[test]
    fn any_bytes_are_a_message_or_an_error(bytes in any::<Vec<u8>>(), tail in any::<Vec<u8>>()) {
        let _ = Message::parse(&bytes);
        for head in [&b"<13>1 "[..], b"<13>1 - h a p m ", b"<13>1 - h a p m [x a=\""] {
            let _ = Message::parse(&[head, &tail].concat());
        }
    }

    #[test]
    fn any_stream_is_cut_alike_in_all_pieces(
        bytes in any::<Vec<u8>>(),
        messages in proptest::collection::vec("[a-z]{0,30}", 0..5),
        chunk in 1_usize..9,
    ) {
        let mut stream: Vec<u8> = messages.iter().flat_map(|it| octet_counted(it.as_bytes())).collect();
        stream.extend(&bytes);
        let cut = |chunk: usize| {
            let mut framer = Framer::new(25);
            let mut got = Vec::new();
            for bytes in stream.chunks(chunk) {
                framer.push(bytes);
                loop {
                    match framer.next_message() {
                        Ok(Some(message)) => got.push(Ok(message)),
                        Ok(None) => break,
                        Err(error) => { got.push(Err(error)); return got }
                    }
                }
            }
            got
        };
        prop_assert_eq!(cut(chunk), cut(stream.len().max(1)));
    }

    #[test]
    fn octet_counted_messages_come_out_again(
        messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..9),
    ) {
        let mut framer = Framer::new(40);
        messages.iter().for_each(|message| framer.push(&octet_counted(message)));
        for message in messages {
            prop_assert_eq!(framer.next_message(), Ok(Some(message)));
        }
        prop_assert_eq!(framer.next_message(), Ok(None));
    }

    #[test]
    fn any_lines_are_verified_without_panic(lines in proptest::collection::vec(any::<String>(), 0..5)) {
        prop_assert_ne!(faults(&lines), []);
        let lines: Vec<String> = lines
            .iter()
            .map(|line| chain::signed(&format!("{{\"x\":{line:?}}}"), &[0; 64]))
            .collect();
        prop_assert_ne!(faults(&lines), []);
    }

    #[test]
    fn any_text_makes_one_line_whose_signature_comes_off(text in any::<String>()) {
        let record = access(&text, &text).text(3, &GENESIS);
        prop_assert!(!record.contains('\n'));
        let line = chain::signed(&record, &sign(&record));
        prop_assert_eq!(chain::unsigned(&line), Some((record.clone(), sign(&record))));
        let cef = cef::render("h", &object(&record));
        prop_assert!(!cef.contains(['\n', '\r']));
        prop_assert!(!cef.contains(" sig="));
    }
}
