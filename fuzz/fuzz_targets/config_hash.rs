//! Hashes exist for every JSON value and do not depend on the order of members.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sallyport_wire::config_hash::{ConfigHash, hashes};
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(hash) = ConfigHash::try_from(bytes) {
        assert_eq!(hash.as_str().parse(), Ok(hash));
    }
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else {
        return;
    };
    let made = hashes(&value);
    assert!(!made.config.is_zero());
    assert_eq!(hashes(&value), made);
    if let Value::Object(members) = &value {
        let turned: Value = Value::Object(members.clone().into_iter().rev().collect());
        assert_eq!(hashes(&turned), made);
    }
});
