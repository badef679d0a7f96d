//! What strangers send: it ends their connection and nobody else's.

use std::io::Write;

use super::lab::{BUCKETS, Limiter, take};
use crate::lab::bytes_until_close;

#[test]
fn garbage_and_giants_end_their_own_connection() {
    let limiter = Limiter::start(BUCKETS);
    let mut good = limiter.client();
    let mut beyond = Vec::new();
    take("ip", &"k".repeat(20_000), 1).encode(&mut beyond);
    let garbage: Vec<u8> = (0..40_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let bad: [&[u8]; 6] = [
        b"\xff\xff\xff\xff\xff\xff\xff",
        &beyond,
        b"\x05\x0a\x01\x31\x20\x09",
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
        b"\x03GET",
        &garbage,
    ];
    for bytes in bad {
        let mut stranger = limiter.client();
        // it may be gone before all is written
        _ = stranger.stream.write_all(bytes);
        bytes_until_close(&mut stranger.stream);
        assert!(good.take("ip", "127.0.0.1").0);
    }
    // one that says half a message and no more holds nobody up
    let mut slow = limiter.client();
    slow.stream.write_all(b"\x09\x0a").unwrap();
    assert!(good.take("ip", "127.0.0.1").0);
}

#[test]
fn a_reader_who_does_not_read_holds_nobody_up() {
    let limiter = Limiter::start(BUCKETS);
    let mut deaf = limiter.client();
    let limit = std::time::Duration::from_millis(200);
    deaf.stream.set_write_timeout(Some(limit)).unwrap();
    let mut takes = Vec::new();
    for id in 0..10_000 {
        take("ip", "127.0.0.1", id).encode(&mut takes);
    }
    // until its answers fill all buffers on the way, and with them its requests
    while deaf.stream.write_all(&takes).is_ok() {}
    assert!(limiter.client().take("ip", "1.1.1.1").0);
}
