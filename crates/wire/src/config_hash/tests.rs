use super::canonical::percent_14g;
use super::*;
use proptest::prelude::*;
use serde_json::json;

#[track_caller]
fn check(input: Value, config: &str) {
    assert_eq!(hashes(&input).config.as_str(), config, "{input}");
}

#[test]
fn the_published_vectors() {
    check(json!({}), "2da3c26e4dbd6dd6ea3ab60a3dd7fb3e");
    check(
        json!({"routes": [], "services": [], "plugins": []}),
        "81aac97a81ad03c0cf0b36663806488e",
    );
    check(
        json!({"upstreams": [], "targets": []}),
        "4d60dd9998ea4314039da5ca2f1db96f",
    );
    check(
        json!({"_format_version": "3.0", "_transform": false}),
        "3ba837da99e14dfab883d867101d37f6",
    );
    check(
        json!({
            "_format_version": "3.0", "_transform": false,
            "services": [{"id": "a", "name": null, "port": 80, "tags": []}],
        }),
        "e6a99acfd5ca268cbf9aac31e725f527",
    );
    check(json!(null), "5bf07a8b7343015026657d1108d8206e");
    check(json!(10), "d3d9446802a44259755d38e6d163e820");
    check(json!(0.9), "a894124cc6d5c5c71afe060d5dde0762");
    check(json!(""), "d41d8cd98f00b204e9800998ecf8427e");
    check(json!("hello"), "5d41402abc4b2a76b9719d911017c592");
    assert_eq!(Hashes::default().config, ConfigHash::ZERO);
    assert_eq!(ConfigHash::ZERO.as_str(), "0".repeat(32));
}

#[test]
fn parts_of_the_published_vectors() {
    let bare = hashes(&json!({}));
    for part in [
        bare.routes,
        bare.services,
        bare.plugins,
        bare.upstreams,
        bare.targets,
    ] {
        assert!(part.is_zero());
    }
    assert_eq!(
        text_hash(&json!({}), &[]).as_str(),
        "99914b932bd37a50b983c5e7c90ae93b"
    );
    assert_eq!(
        text_hash(&json!({"_format_version": "3.0", "_transform": false}), &[]).as_str(),
        "c60b430c1fe85624ebe35354b0c3f8ac"
    );
    let one = hashes(&json!({"services": [{"id": "a", "name": null, "port": 80, "tags": []}]}));
    assert_eq!(one.services.as_str(), "cc305338282d44e276aea2030684b608");
}

#[test]
fn numbers_print_as_in_c() {
    #[track_caller]
    fn check(float: f64, text: &str) {
        assert_eq!(percent_14g(float), text, "{float:e}");
    }
    check(0.0, "0");
    check(-0.0, "-0");
    check(80.0, "80");
    check(-1.5, "-1.5");
    check(0.9, "0.9");
    check(0.1 + 0.2, "0.3");
    check(1.0 / 3.0, "0.33333333333333");
    check(2.0 / 3.0, "0.66666666666667");
    check(1_700_000_000.123, "1700000000.123");
    check(99_999_999_999_999.0, "99999999999999");
    check(100_000_000_000_000.0, "1e+14");
    check(123_456_789_012_345.0, "1.2345678901235e+14"); // a tie: glibc would say …234
    check(12_345_678_901_234.5, "12345678901235");
    check(99_999_999_999_999.5, "1e+14");
    check(0.0001, "0.0001");
    check(0.00001, "1e-05");
    check(1.5e-10, "1.5e-10");
    check(1e100, "1e+100");
    check(f64::MAX, "1.7976931348623e+308");
    check(5e-324, "4.9406564584125e-324");
}

#[test]
fn integers_and_floats_of_one_value_hash_alike() {
    for (int, float) in [(json!(80), json!(80.0)), (json!(-7), json!(-7.0))] {
        assert_eq!(hashes(&int), hashes(&float));
    }
    check(
        json!(18_446_744_073_709_551_615_u64),
        "496d6f8b97d8b000fe666a24350e441e",
    );
}

#[test]
fn long_arrays_end_with_a_separator() {
    let five = hashes(&json!([[1, 2, 3, 4, 5]]));
    assert_eq!(five, hashes(&json!(["1;2;3;4;5"])));
    let six = hashes(&json!([[1, 2, 3, 4, 5, 6]]));
    assert_eq!(six, hashes(&json!(["1;2;3;4;5;6;"])));
}

#[test]
fn a_long_text_is_folded_before_the_next_value() {
    use md5::{Digest, Md5};
    let long = "x".repeat(1_000_001);
    let mut folded = Md5::digest(format!("{long};")).to_vec();
    folded.push(b'y');
    let want: [u8; 16] = Md5::digest(&folded).into();
    assert_eq!(
        text_hash(&json!([long, "y"]), &[]),
        ConfigHash::from_digest(want)
    );
    // At the limit, separator included, nothing is folded yet.
    let exact = "x".repeat(999_999);
    let want: [u8; 16] = Md5::digest(format!("{exact};y")).into();
    assert_eq!(
        text_hash(&json!([exact, "y"]), &[]),
        ConfigHash::from_digest(want)
    );
}

#[test]
fn only_32_visible_characters_are_a_hash() {
    #[track_caller]
    fn check(bytes: &[u8], want: Result<(), ConfigHashError>) {
        assert_eq!(ConfigHash::try_from(bytes).map(|_| ()), want);
    }
    check(&[b'a'; 32], Ok(()));
    check(b"", Err(ConfigHashError::Length { found: 0 }));
    check(&[b'a'; 31], Err(ConfigHashError::Length { found: 31 }));
    check(&[b'a'; 33], Err(ConfigHashError::Length { found: 33 }));
    check(
        &[b'\n'; 32],
        Err(ConfigHashError::Character { at: 0, byte: b'\n' }),
    );
    check(
        &[0xff; 32],
        Err(ConfigHashError::Character { at: 0, byte: 0xff }),
    );
}

#[test]
fn missing_part_hashes_read_as_zeros() {
    let some: Hashes =
        serde_json::from_value(json!({"config": "a".repeat(32), "filter_chains": "x"})).unwrap();
    assert_eq!(some.config.as_str(), "a".repeat(32));
    assert!(some.routes.is_zero());
}

proptest! {
    #[test]
    fn percent_14g_reads_back_within_14_digits(float in proptest::num::f64::NORMAL) {
        let text = percent_14g(float);
        let back: f64 = text.parse().unwrap();
        prop_assert!(((back - float) / float).abs() < 1e-13 || float.abs() > 1e307, "{text}");
        prop_assert_eq!(percent_14g(back), text);
    }

    #[test]
    fn any_bytes_are_a_hash_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(hash) = ConfigHash::try_from(bytes.as_slice()) {
            prop_assert_eq!(hash.as_bytes().as_slice(), bytes);
        }
    }
}
