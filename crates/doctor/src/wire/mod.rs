//! Just enough of each protocol to ask one question and recognise an answer. Pure.

pub mod dns;
pub mod http;
pub mod ntp;

/// The printable ASCII of `bytes`, at most 60 characters.
pub fn printable(bytes: &[u8]) -> String {
    let keep = |b: &&u8| b.is_ascii_graphic() || **b == b' ';
    let text: String = bytes
        .iter()
        .take(200)
        .filter(keep)
        .map(|b| char::from(*b))
        .collect();
    text.trim().chars().take(60).collect()
}
