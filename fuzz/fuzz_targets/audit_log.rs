//! What reaches port 8071, and lines of an exported audit log.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sallyport_wire::audit_log::{Framer, Message, Verifier};

const BYTES_MAX: usize = 1 << 16;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(message) = Message::parse(bytes) {
        let again = Message::parse(&message.render()).expect("what we write is a message");
        assert_eq!(again.data, message.data);
        assert_eq!(again.sequence(), message.sequence());
    }
    let mut framer = Framer::new(BYTES_MAX);
    for piece in bytes.chunks(7) {
        framer.push(piece);
        while let Ok(Some(message)) = framer.next_message() {
            assert!(message.len() <= BYTES_MAX);
        }
    }
    _ = framer.finish();
    let text = String::from_utf8_lossy(bytes);
    let mut verifier = Verifier::new(|_: &[u8], _: &[u8; 64]| true);
    text.lines().for_each(|line| verifier.line(line));
    _ = verifier.finish(true);
});
