use proptest::prelude::*;

use super::frame::{REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX};
use super::*;

/// Bytes written as hexadecimal digits, with blanks where they help.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|c| Some(c.to_digit(16)? as u8))
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

fn request<'a>(id: &'a str, bucket: &'a str, key: &'a str, method: Method) -> Request<'a> {
    Request {
        id: Id::Text(id.as_bytes()),
        bucket: bucket.as_bytes(),
        key: key.as_bytes(),
        method,
        count: None,
        all: false,
        skip_response: false,
        lease: 0,
        windows: b"",
    }
}

/// The frame decodes to the request, and the request encodes to the frame.
#[track_caller]
fn check_request(frame: &str, wanted: Request<'_>) {
    let frame = hex(frame);
    let split = split(&frame, REQUEST_BYTES_MAX).unwrap().unwrap();
    assert_eq!(split.bytes, frame.len());
    assert_eq!(Request::decode(split.body), Ok(wanted));
    let mut out = Vec::new();
    wanted.encode(&mut out);
    assert_eq!(out, frame);
}

#[track_caller]
fn check_response(frame: &str, id: &str, body: Body) {
    let frame = hex(frame);
    let wanted = Response::new(Id::Text(id.as_bytes()), body);
    let split = split(&frame, RESPONSE_BYTES_MAX).unwrap().unwrap();
    assert_eq!(split.bytes, frame.len());
    assert_eq!(Response::decode(split.body), Ok(wanted.clone()));
    let mut out = Vec::new();
    wanted.encode(&mut out);
    assert_eq!(out, frame);
}

const ADDRESS: &str = "1a0c 3139312e31322e32332e3332"; // key 191.12.23.32
const WRONG: &str = "120e 77726f6e675f70617373776f7264"; // type wrong_password

#[test]
fn requests_as_the_clients_write_them() {
    check_request(
        "09 0a0131 1200 1a00 2004",
        request("1", "", "", Method::Ping),
    );
    let ping = request("8BrR2vH", "", "", Method::Ping);
    check_request("0f 0a0738427252327648 1200 1a00 2004", ping);
    let take = request("2", "ip", "191.12.23.32", Method::Take);
    check_request(&format!("17 0a0132 12026970 {ADDRESS} 2000"), take);
    let three = Request {
        count: Some(3),
        ..take
    };
    check_request(&format!("19 0a0132 12026970 {ADDRESS} 2000 2803"), three);
    let all = Request { all: true, ..take };
    check_request(&format!("19 0a0132 12026970 {ADDRESS} 2000 3001"), all);
    let put = request("21", "wrong_password", "tito", Method::Put);
    let put = Request {
        all: true,
        skip_response: true,
        ..put
    };
    check_request(
        &format!("20 0a023231 {WRONG} 1a047469746f 2002 3001 3801"),
        put,
    );
    check_request(
        "18 0a023136 120d6f6e63652070657220686f7572 1a016b 2005",
        request("16", "once per hour", "k", Method::Get),
    );
    let wait = request("18", "ip", "w", Method::Wait);
    let wait = Request {
        count: Some(3),
        ..wait
    };
    check_request("0f 0a023138 12026970 1a0177 2001 2803", wait);
    check_request(
        "0f 0a023139 12026970 1a03313931 2003",
        request("19", "ip", "191", Method::Status),
    );
    let numbered = Request {
        id: Id::Number(7),
        ..request("", "ip", "a", Method::Take)
    };
    check_request("0c a00107 12026970 1a0161 2000", numbered);
    let negative = Request {
        count: Some(-1),
        ..request("1", "ip", "a", Method::Take)
    };
    check_request(
        "17 0a0131 12026970 1a0161 2000 28ffffffffffffffffff01",
        negative,
    );
}

#[test]
fn responses_as_the_server_writes_them() {
    let level = |remaining, reset, limit| Level {
        remaining,
        reset,
        limit,
    };
    let taken = |conformant, level| {
        Body::Take(Taken {
            conformant,
            delayed: false,
            level,
        })
    };
    let (at, limit) = (1_795_310_789, 10);
    check_response("06 0a0131 c20600", "1", Body::Pong { version: 0 });
    check_response("08 0a0131 c206020802", "1", Body::Pong { version: 2 });
    check_response(
        "12 0a0132 aa060c 0801 1809 20c58989d806 280a",
        "2",
        taken(true, level(9, at, limit)),
    );
    check_response(
        "12 0a0135 aa060c 0800 1805 20c68989d806 280a",
        "5",
        taken(false, level(5, at + 1, limit)),
    );
    check_response(
        "14 0a0136 aa060e 0801 18e607 20c58989d806 28e807",
        "6",
        taken(true, level(998, at, 1000)),
    );
    check_response(
        "12 0a0138 aa060c 0801 1864 20c78989d806 2864",
        "8",
        taken(true, level(100, at + 2, 100)),
    );
    check_response(
        "0e 0a0139 aa0608 0801 1801 2000 2803",
        "9",
        taken(true, level(1, 0, 3)),
    );
    check_response(
        "0d 0a023131 b20606 0802 1000 1803",
        "11",
        Body::Put(level(2, 0, 3)),
    );
    check_response(
        "0d 0a023133 ca0606 0803 1000 1803",
        "13",
        Body::Get(level(3, 0, 3)),
    );
    check_response(
        "11 0a023136 ca060a 0800 10ada589d806 1801",
        "16",
        Body::Get(level(0, 1_795_314_349, 1)),
    );
    let waited = Taken {
        conformant: true,
        delayed: true,
        level: level(0, at + 3, limit),
    };
    check_response(
        "15 0a023138 aa060e 0801 1001 1800 20c88989d806 280a",
        "18",
        Body::Take(waited),
    );
    let item = Item {
        key: b"191.12.23.32".to_vec(),
        level: level(10, at + 1, limit),
    };
    check_response(
        "21 0a023139 ba061a 0a18 0a0c3139312e31322e32332e3332 100a 18c68989d806 200a",
        "19",
        Body::Status(vec![item]),
    );
    check_response(
        "09 0a023230 a20602 0801",
        "20",
        Body::Error(ErrorKind::UnknownBucketType),
    );
}

#[test]
fn fields_in_any_order_and_unknown_ones() {
    let wanted = request("1", "ip", "a", Method::Take);
    for body in [
        "2000 1a0161 12026970 0a0131",
        // fields 30 to 32 of each wire type, and an id in the other form before
        "a00105 f00101 f9010102030405060708 820203616263 fd0101020304 0a0131 12026970 1a0161 2000",
    ] {
        assert_eq!(Request::decode(&hex(body)), Ok(wanted), "{body}");
    }
    let both = hex("0a0131 a00105 2000");
    let number = Request::decode(&both).unwrap();
    assert_eq!(number.id, Id::Number(5), "the last form counts");
}

#[test]
fn bad_messages() {
    use MessageError as E;
    use ProtobufError as P;
    let decode = |body: &str| Request::decode(&hex(body)).unwrap_err();
    assert_eq!(decode("0a0131 1a0161 12026970"), E::NoMethod);
    assert_eq!(decode(""), E::NoMethod);
    assert_eq!(decode("0a0131 2009"), E::UnknownMethod(9));
    assert_eq!(decode("20ffffffffffffffffff01"), E::UnknownMethod(-1));
    assert_eq!(decode("0a05 31"), P::Short.into());
    assert_eq!(decode("20"), P::Short.into());
    assert_eq!(decode("20ffffffffffffffffffff01"), P::Number.into());
    assert_eq!(decode("20ffffffffffffffffff02"), P::Number.into());
    let wrong = E::from(P::WireType {
        field: 4,
        wire_type: 2,
    });
    assert_eq!(decode("2200"), wrong);
    let group = E::from(P::Tag {
        field: 1,
        wire_type: 3,
    });
    assert_eq!(decode("0b"), group);
    assert_eq!(
        decode("0000"),
        E::from(P::Tag {
            field: 0,
            wire_type: 0
        })
    );
    assert_eq!(Response::decode(&hex("0a0131")), Err(E::NoBody));
    assert_eq!(Response::decode(&hex("a206020807")), Err(E::NoBody));
}

#[test]
fn frames_are_bounded() {
    assert_eq!(split(&[], 9), Ok(None));
    assert_eq!(split(&[0x80], 9), Ok(None));
    assert_eq!(
        split(&[0], 9),
        Ok(Some(Frame {
            body: &[],
            bytes: 1
        }))
    );
    assert_eq!(split(&[2, 7], 9), Ok(None));
    let two = [1, 7, 1, 8];
    assert_eq!(
        split(&two, 9).unwrap().unwrap(),
        Frame {
            body: &[7],
            bytes: 2
        }
    );
    let too_large = FrameError::TooLarge {
        bytes: 10,
        bytes_max: 9,
    };
    assert_eq!(split(&[10], 9), Err(too_large));
    assert_eq!(split(&[0xff; 5], 9), Err(FrameError::Length));
    assert_eq!(split(&[0xff; 4], usize::MAX), Ok(None));
}

#[test]
fn windows_are_read_back_and_a_count_has_a_method_of_its_own() {
    let windows = Windows([None, Some(5), None, Some(u64::MAX), Some(0), None]);
    let mut out = Vec::new();
    windows.encode(&mut out);
    assert_eq!(Windows::decode(&out), Ok(windows));
    let count = Request {
        windows: &out,
        ..request("1", "gateway", "k", Method::Count)
    };
    let mut frame = Vec::new();
    count.encode(&mut frame);
    let body = split(&frame, REQUEST_BYTES_MAX).unwrap().unwrap().body;
    assert_eq!(Request::decode(body), Ok(count));
    // what limitd does not know stays unknown: 6 is no method
    assert_eq!(
        Request::decode(&hex("0a0131 2006")),
        Err(MessageError::UnknownMethod(6))
    );
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..300)
}

fn any_level() -> impl Strategy<Value = Level> {
    (any::<u32>(), any::<u64>(), any::<u32>()).prop_map(|(remaining, reset, limit)| Level {
        remaining,
        reset,
        limit,
    })
}

fn any_body() -> impl Strategy<Value = Body> {
    let item = (any_bytes(), any_level()).prop_map(|(key, level)| Item { key, level });
    let taken = (any::<bool>(), any::<bool>(), any_level());
    prop_oneof![
        Just(Body::Error(ErrorKind::UnknownBucketType)),
        taken.prop_map(|(conformant, delayed, level)| Body::Take(Taken {
            conformant,
            delayed,
            level
        })),
        any_level().prop_map(Body::Put),
        any_level().prop_map(Body::Get),
        prop::collection::vec(item, 0..5).prop_map(Body::Status),
        any::<u32>().prop_map(|version| Body::Pong { version }),
        (any::<[u64; 6]>(), 0..7_usize).prop_map(|(used, by)| Body::Count(Counted {
            used,
            refused_by: Period::ALL.get(by).copied(),
        })),
        Just(Body::Error(ErrorKind::Unreachable)),
    ]
}

proptest! {
    #[test]
    fn a_request_comes_back(
        text in any_bytes(), number: Option<i32>, bucket in any_bytes(), key in any_bytes(),
        method in 0..Method::ALL.len(), count: Option<i32>, all: bool, skip_response: bool, lease: u32,
        windows in any_bytes(),
    ) {
        let id = number.map_or(Id::Text(&text), Id::Number);
        let (bucket, key, windows) = (&bucket[..], &key[..], &windows[..]);
        let method = Method::ALL[method];
        let request =
            Request { id, bucket, key, method, count, all, skip_response, lease, windows };
        let mut out = vec![9];
        request.encode(&mut out);
        let frame = split(&out[1..], REQUEST_BYTES_MAX).unwrap().unwrap();
        prop_assert_eq!(frame.bytes + 1, out.len());
        prop_assert_eq!(Request::decode(frame.body), Ok(request));
    }

    #[test]
    fn a_response_comes_back(
        text in any_bytes(), number: Option<i32>, body in any_body(), leased: u32, refused_ms: u32,
    ) {
        let id = number.map_or(Id::Text(&text), Id::Number);
        let response = Response { id, body, extra: Extra { leased, refused_ms } };
        let mut out = Vec::new();
        response.encode(&mut out);
        let frame = split(&out, RESPONSE_BYTES_MAX).unwrap().unwrap();
        prop_assert_eq!(frame.bytes, out.len());
        prop_assert_eq!(Response::decode(frame.body), Ok(response));
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in any_bytes()) {
        _ = split(&bytes, REQUEST_BYTES_MAX);
        _ = Request::decode(&bytes);
        _ = Response::decode(&bytes);
        if let Ok(windows) = Windows::decode(&bytes) {
            let mut out = Vec::new();
            windows.encode(&mut out);
            prop_assert_eq!(Windows::decode(&out), Ok(windows));
        }
    }

    /// A frame that is cut anywhere is not there yet, and is the same once the rest has come.
    #[test]
    fn frames_are_the_same_however_they_are_cut(body in any_bytes(), at: prop::sample::Index) {
        let mut out = Vec::new();
        frame::put(&mut out, |out| out.extend_from_slice(&body));
        let at = at.index(out.len());
        prop_assert_eq!(split(&out[..at], REQUEST_BYTES_MAX), Ok(None));
        let bytes = out.len();
        out.extend_from_slice(b"next");
        prop_assert_eq!(split(&out, REQUEST_BYTES_MAX), Ok(Some(Frame { body: &body, bytes })));
    }
}
