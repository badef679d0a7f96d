//! Frames of protocol v2 and the file of changes; what was read is written and read the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sallyport_gateway::last_known_good::changes::records;
use sallyport_wire::config_sync::delta::{Deltas, Hello, HelloAnswer, Report, asked_version};
use sallyport_wire::config_sync::rpc::{Message, compress, decode};

const BYTES_MAX: usize = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    _ = decode(bytes, BYTES_MAX);
    _ = HelloAnswer::decode(bytes);
    if let Ok((_, hello)) = Hello::decode(bytes) {
        let (_, again) = Hello::decode(&hello.encode()).expect("what we write is a hello");
        assert_eq!(again, hello);
    }
    let (_, good) = records(bytes);
    assert!(good <= bytes.len());
    let Ok(messages) = decode(&compress(bytes), BYTES_MAX) else {
        return;
    };
    for message in messages.into_iter().flatten() {
        let again = decode(&message.encode(), 2 * BYTES_MAX).expect("what we write is a frame");
        assert_eq!(again, [Ok(message.clone())]);
        let (Message::Call { params: raw, .. }
        | Message::Notification { params: raw, .. }
        | Message::Answer { result: raw, .. }) = message
        else {
            continue;
        };
        _ = Deltas::from_params(&raw);
        _ = Report::from_params(&raw);
        _ = asked_version(&raw);
        if let Ok(deltas) = Deltas::from_raw(&raw) {
            let again = Deltas::from_raw(&deltas.to_raw()).expect("what we write are deltas");
            assert_eq!(again.list, deltas.list);
        }
    }
});
