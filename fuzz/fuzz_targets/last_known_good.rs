//! Last-known-good files, with a right checksum too: damage is seen, and nothing panics.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sallyport_gateway::fuzzing::{decode_last_known_good, encode_last_known_good};
use sha2::{Digest, Sha256};

fuzz_target!(|bytes: &[u8]| {
    _ = decode_last_known_good(bytes);
    // the same content, signed
    let mut signed = bytes.to_vec();
    signed.extend_from_slice(&Sha256::digest(bytes));
    check(&signed);
    // the same payload in a right frame
    let mut framed = b"SPORTLKG\x01\0\0\0".to_vec();
    framed.extend([b'0'; 32]);
    framed.extend((bytes.len() as u64).to_le_bytes());
    framed.extend(bytes);
    let sum = Sha256::digest(&framed);
    framed.extend_from_slice(&sum);
    check(&framed);
});

fn check(file: &[u8]) {
    if let Ok(saved) = decode_last_known_good(file) {
        let again = decode_last_known_good(&encode_last_known_good(&saved));
        assert_eq!(again.expect("what we write"), saved);
    }
}
