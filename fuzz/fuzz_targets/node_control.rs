//! What comes over connections between nodes: frames, the messages of the membership protocol in
//! them, and join tokens.
#![no_main]

use chitchat::{ChitchatMessage, Deserializable};
use libfuzzer_sys::fuzz_target;
use sallyport_wire::node_control::{JoinToken, decode, encode};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Some(frame)) = decode(bytes) {
        assert!(frame.len <= bytes.len());
        let mut again = Vec::new();
        assert!(encode(frame.body, &mut again));
        assert_eq!(again, bytes[..frame.len]);
        message(frame.body);
    }
    message(bytes);
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(token) = JoinToken::parse(text)
    {
        assert_eq!(JoinToken::parse(&token.text()), Ok(token));
    }
});

fn message(bytes: &[u8]) {
    // Not written again: nodes answer out of their own state, and the crate asserts there that
    // what it read was written by itself.
    _ = ChitchatMessage::deserialize(&mut &bytes[..]);
}
