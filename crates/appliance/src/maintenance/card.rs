//! What nodes have to know of each other for maintenance: one line that a node prints.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A public key of OpenSSH, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    kind: String,
    data: String,
    comment: Option<String>,
}

/// A node as another one knows it: `NAME ADDRESS KIND DATA KIND DATA`, the account's key before the
/// host's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// Its name.
    pub name: String,
    /// Its address, from which it comes and at which it is reached.
    pub address: IpAddr,
    /// By what it logs in.
    pub user_key: PublicKey,
    /// What its SSH server shows.
    pub host_key: PublicKey,
}

/// A line that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CardError {
    /// It is no public key.
    #[error("{0:?} is no public key of OpenSSH (ssh-ed25519 AAAA… or ecdsa-sha2-…, in one line)")]
    Key(String),
    /// It is no card.
    #[error("{0:?} is no card; `sallyport maintenance card` prints it on the other node")]
    Card(String),
}

/// Kinds of keys that are taken: RSA's sizes and DSA are a question of their own.
const KINDS: [&str; 5] = [
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

impl PublicKey {
    fn new(kind: &str, data: &str, comment: Option<String>) -> Option<PublicKey> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
        let fits =
            KINDS.contains(&kind) && (40..=800).contains(&data.len()) && data.chars().all(plain);
        // An option in front of a key would come before ours.
        (fits && data.starts_with("AAAA")).then(|| PublicKey {
            kind: kind.to_owned(),
            data: data.to_owned(),
            comment,
        })
    }
}

impl FromStr for PublicKey {
    type Err = CardError;

    fn from_str(text: &str) -> Result<PublicKey, CardError> {
        let bad = || CardError::Key(text.trim().chars().take(60).collect());
        let mut words = text.split_whitespace();
        let (Some(kind), Some(data)) = (words.next(), words.next()) else {
            return Err(bad());
        };
        let comment: Vec<&str> = words.collect();
        let comment = comment.join(" ");
        let plain = |c: char| c.is_ascii_graphic() || c == ' ';
        let comment: String = comment.chars().filter(|c| plain(*c)).take(100).collect();
        let is_one_line = !text.trim().contains('\n');
        let key = PublicKey::new(kind, data, Some(comment).filter(|it| !it.is_empty()));
        key.filter(|_| is_one_line).ok_or_else(bad)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.data)?;
        match &self.comment {
            Some(comment) => write!(f, " {comment}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Card {
    type Err = CardError;

    fn from_str(text: &str) -> Result<Card, CardError> {
        let bad = || CardError::Card(text.trim().chars().take(60).collect());
        let words: Vec<&str> = text.split_whitespace().collect();
        let [name, address, user_kind, user_data, host_kind, host_data] = words[..] else {
            return Err(bad());
        };
        let known =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
        let is_name = name.len() <= 253 && name.chars().all(known) && !name.starts_with(['-', '.']);
        if !is_name {
            return Err(bad());
        }
        Ok(Card {
            name: name.to_owned(),
            address: address.parse().map_err(|_| bad())?,
            user_key: PublicKey::new(user_kind, user_data, None).ok_or_else(bad)?,
            host_key: PublicKey::new(host_kind, host_data, None).ok_or_else(bad)?,
        })
    }
}

impl fmt::Display for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let without = |key: &PublicKey| format!("{} {}", key.kind, key.data);
        let (user, host) = (without(&self.user_key), without(&self.host_key));
        write!(f, "{} {} {user} {host}", self.name, self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIO6bO5Zl0O0o0o0o0o0o0o0o0o0o0o0o0o0o0o0o0o0o";

    #[test]
    fn a_card_is_read_as_it_is_printed() {
        let text = format!("a0-1 fd00::7 ssh-ed25519 {DATA} ecdsa-sha2-nistp256 {DATA}");
        let card: Card = text.parse().unwrap();
        assert_eq!(card.to_string(), text);
        for bad in [
            String::new(),
            text.replace("fd00::7", "host"),
            text.replace("a0-1", "a0 1"),
            text.replace("a0-1", "*"),
            text.replace("ssh-ed25519", "ssh-dss"),
            text.replace("AAAA", "BAAA"),
            format!("{text} more"),
        ] {
            bad.parse::<Card>().unwrap_err();
        }
    }

    #[test]
    fn a_key_has_no_options_and_one_line() {
        let key: PublicKey = format!("ssh-ed25519 {DATA} ann smith\n").parse().unwrap();
        assert_eq!(key.to_string(), format!("ssh-ed25519 {DATA} ann smith"));
        for bad in [
            format!("command=\"x\" ssh-ed25519 {DATA}"),
            format!("ssh-ed25519 {DATA}\nssh-ed25519 {DATA}"),
            "ssh-ed25519".to_owned(),
            format!("ssh-ed25519 {}", DATA.replace("O6", "O\"")),
        ] {
            bad.parse::<PublicKey>().unwrap_err();
        }
    }
}
