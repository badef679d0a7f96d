//! Frames and handshakes of the hybrid protocol; what was read is written and read the same.
#![no_main]

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use libfuzzer_sys::fuzz_target;
use sallyport_wire::ConfigHash;
use sallyport_wire::config_sync::{ErrorReport, FromDataPlane, OutletQuery, Reconfigure, ping_hash};

const BYTES_MAX: usize = 1 << 20;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(FromDataPlane::BasicInfo(hello)) = FromDataPlane::decode(bytes) {
        let again = FromDataPlane::decode(&hello.encode()).expect("what we write is a frame");
        let FromDataPlane::BasicInfo(again) = again else {
            panic!("another type")
        };
        assert_eq!(again.encode(), hello.encode());
    }
    if let Ok(FromDataPlane::Error(report)) = FromDataPlane::decode(bytes) {
        let refused = report.refused();
        let told = ErrorReport::on_entities(ConfigHash::ZERO, &refused);
        let again = ErrorReport::decode(&told.encode()).expect("what we write is a frame");
        assert_eq!(again.refused().len(), refused.len());
    }
    if let Ok(hash) = ping_hash(bytes) {
        assert_eq!(hash.as_bytes()[..], *bytes);
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(query) = OutletQuery::parse(text)
    {
        assert_eq!(OutletQuery::parse(&query.to_string()), Ok(query));
    }
    _ = Reconfigure::decode(bytes, BYTES_MAX);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::none());
    gzip.write_all(bytes).expect("memory takes every byte");
    let frame = gzip.finish().expect("memory takes every byte");
    if let Ok(read) = Reconfigure::decode(&frame, BYTES_MAX) {
        let again = Reconfigure::decode(&read.encode(), 8 * BYTES_MAX).expect("what we write");
        assert_eq!(again.config_table, read.config_table);
        assert_eq!(again.hash(), read.hash());
    }
    assert!(Reconfigure::decode(&frame, bytes.len().saturating_sub(1)).is_err());
});
