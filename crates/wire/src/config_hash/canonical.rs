//! The canonical text of a JSON value, and MD5 over it.

use md5::{Digest, Md5};
use serde_json::{Number, Value};

use super::ConfigHash;

/// Above this many bytes the text so far is replaced by its MD5 before the next value.
const TEXT_BYTES_MAX: usize = 1_000_000;

/// The hash of the canonical text of `value` without the top-level keys `left_out`.
pub(super) fn text_hash(value: &Value, left_out: &[&str]) -> ConfigHash {
    let mut text = Vec::with_capacity(256);
    push_value(&mut text, value, left_out);
    ConfigHash::from_digest(Md5::digest(&text).into())
}

/// The hash of some hashes, written one after the other.
pub(super) fn concat_hash(hashes: &[ConfigHash]) -> ConfigHash {
    let mut md5 = Md5::new();
    for hash in hashes {
        md5.update(hash.as_bytes());
    }
    ConfigHash::from_digest(md5.finalize().into())
}

fn push_value(text: &mut Vec<u8>, value: &Value, left_out: &[&str]) {
    if text.len() > TEXT_BYTES_MAX {
        let digest = Md5::digest(&*text);
        text.clear();
        text.extend_from_slice(&digest);
    }
    match value {
        Value::Null => text.extend_from_slice(b"/null/"),
        Value::Bool(true) => text.extend_from_slice(b"true"),
        Value::Bool(false) => text.extend_from_slice(b"false"),
        Value::Number(number) => push_number(text, number),
        Value::String(string) => text.extend_from_slice(string.as_bytes()),
        Value::Array(items) if items.is_empty() => text.extend_from_slice(b"{}"),
        Value::Array(items) => {
            // Up to five elements are joined; from six on each one is followed by the separator.
            let separated = if items.len() <= 5 {
                items.len() - 1
            } else {
                items.len()
            };
            for (at, item) in items.iter().enumerate() {
                push_value(text, item, &[]);
                if at < separated {
                    text.push(b';');
                }
            }
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields
                .iter()
                .filter(|(key, _)| !left_out.contains(&key.as_str()))
                .collect();
            fields.sort_unstable_by_key(|(key, _)| *key);
            if fields.is_empty() {
                text.extend_from_slice(b"{}");
            }
            for (key, value) in fields {
                text.extend_from_slice(key.as_bytes());
                text.push(b':');
                push_value(text, value, &[]);
                text.push(b';');
            }
        }
    }
}

fn push_number(text: &mut Vec<u8>, number: &Number) {
    match number.as_i64() {
        // Plain digits need no detour through floating point.
        Some(small) if small.unsigned_abs() < 100_000_000_000_000 => {
            text.extend_from_slice(small.to_string().as_bytes());
        }
        _ => {
            let float = number
                .as_f64()
                .expect("every JSON number converts to a float");
            text.extend_from_slice(percent_14g(float).as_bytes());
        }
    }
}

/// C's `%.14g`, with exact decimal ties rounded away from zero as LuaJIT does.
pub(super) fn percent_14g(float: f64) -> String {
    const DIGITS: usize = 14;
    if float == 0.0 {
        return if float.is_sign_negative() {
            "-0".to_owned()
        } else {
            "0".to_owned()
        };
    }
    // A decimal of up to 15 digits survives the way through a normal f64 and back, so a short
    // shortest form is already the answer. Else round the exact expansion: 766 digits after the
    // point are enough for every f64.
    let mut scientific = format!("{:e}", float.abs());
    let significant = scientific
        .bytes()
        .take_while(|b| *b != b'e')
        .filter(|b| *b != b'.')
        .count();
    if significant > DIGITS || !float.is_normal() {
        scientific = format!("{:.766e}", float.abs());
    }
    let (mantissa, exponent) = scientific.split_once('e').expect("{:e} writes an exponent");
    let mut exponent: i32 = exponent.parse().expect("{:e} writes a decimal exponent");
    let mut digits: Vec<u8> = mantissa.bytes().filter(u8::is_ascii_digit).collect();
    let up = digits.get(DIGITS).is_some_and(|digit| *digit >= b'5');
    digits.truncate(DIGITS);
    if up {
        while digits.last() == Some(&b'9') {
            digits.pop();
        }
        match digits.last_mut() {
            Some(last) => *last += 1,
            None => {
                digits.push(b'1');
                exponent += 1;
            }
        }
    }
    while digits.len() > 1 && digits.last() == Some(&b'0') {
        digits.pop();
    }
    let digits = String::from_utf8(digits).expect("only ASCII digits were kept");
    let sign = if float < 0.0 { "-" } else { "" };
    sign.to_owned() + &place_point(&digits, exponent)
}

/// `digits` with the point after the first one, times ten to the `exponent`, as `%g` writes it.
fn place_point(digits: &str, exponent: i32) -> String {
    if !(-4..14).contains(&exponent) {
        let (first, others) = digits.split_at(1);
        let point = if others.is_empty() { "" } else { "." };
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!(
            "{first}{point}{others}e{sign}{:02}",
            exponent.unsigned_abs()
        );
    }
    match usize::try_from(exponent) {
        Err(_) => {
            let zeros = "0".repeat(exponent.unsigned_abs() as usize - 1);
            format!("0.{zeros}{digits}")
        }
        Ok(exponent) if digits.len() <= exponent + 1 => {
            format!("{digits}{}", "0".repeat(exponent + 1 - digits.len()))
        }
        Ok(exponent) => format!("{}.{}", &digits[..=exponent], &digits[exponent + 1..]),
    }
}
