//! The configuration hash by which a data plane says which configuration it runs.
//!
//! The algorithm is Kong's (hybrid protocol v1): a canonical text of the JSON, MD5 over it, in
//! parts. Nobody recomputes the hash of somebody else, so equality with Kong's own value matters
//! only to people who compare the two; that it changes with the content matters to everybody.

mod canonical;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use canonical::{concat_hash, text_hash};

/// A configuration hash or part hash: exactly 32 visible ASCII characters.
///
/// Ours are lower-case hexadecimal MD5; other control planes put other things in the 32
/// characters, so only length and visibility are checked. 32 zeros mean "no configuration".
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConfigHash([u8; 32]);

impl ConfigHash {
    /// The hash of "no configuration" or of an absent part: 32 times `0`.
    pub const ZERO: ConfigHash = ConfigHash([b'0'; 32]);

    /// Whether this is [`ConfigHash::ZERO`].
    pub fn is_zero(&self) -> bool {
        *self == ConfigHash::ZERO
    }

    /// The 32 characters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("only visible ASCII is ever stored")
    }

    /// The 32 bytes, which are also the payload of a heartbeat PING.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 32 lower-case hexadecimal digits of 128 bits.
    pub(crate) fn from_digest(digest: [u8; 16]) -> ConfigHash {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 32];
        for (pair, byte) in text.chunks_exact_mut(2).zip(digest) {
            pair[0] = HEX[usize::from(byte >> 4)];
            pair[1] = HEX[usize::from(byte & 15)];
        }
        ConfigHash(text)
    }
}

/// Why some bytes are not a configuration hash.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigHashError {
    /// Not 32 bytes long.
    #[error("a configuration hash has exactly 32 characters, this one has {found}")]
    Length {
        /// How many bytes there were.
        found: usize,
    },
    /// A byte that is not visible ASCII.
    #[error("a configuration hash has visible ASCII characters only, byte {at} is 0x{byte:02x}")]
    Character {
        /// Position of the byte, from 0.
        at: usize,
        /// The byte.
        byte: u8,
    },
}

impl TryFrom<&[u8]> for ConfigHash {
    type Error = ConfigHashError;

    fn try_from(bytes: &[u8]) -> Result<ConfigHash, ConfigHashError> {
        let text: [u8; 32] = bytes
            .try_into()
            .map_err(|_| ConfigHashError::Length { found: bytes.len() })?;
        match text.iter().position(|byte| !byte.is_ascii_graphic()) {
            None => Ok(ConfigHash(text)),
            Some(at) => Err(ConfigHashError::Character { at, byte: text[at] }),
        }
    }
}

impl FromStr for ConfigHash {
    type Err = ConfigHashError;

    fn from_str(text: &str) -> Result<ConfigHash, ConfigHashError> {
        ConfigHash::try_from(text.as_bytes())
    }
}

impl fmt::Display for ConfigHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ConfigHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for ConfigHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ConfigHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ConfigHash, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The hash of a whole configuration and of the parts that drive partial rebuilds.
///
/// As JSON it is the `hashes` object of a reconfigure message; missing keys read as zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hashes {
    /// Over everything.
    pub config: ConfigHash,
    /// Over the array `routes`.
    pub routes: ConfigHash,
    /// Over the array `services`.
    pub services: ConfigHash,
    /// Over the array `plugins`.
    pub plugins: ConfigHash,
    /// Over the array `upstreams`.
    pub upstreams: ConfigHash,
    /// Over the array `targets`.
    pub targets: ConfigHash,
}

impl Default for Hashes {
    fn default() -> Hashes {
        let zero = ConfigHash::ZERO;
        Hashes {
            config: zero,
            routes: zero,
            services: zero,
            plugins: zero,
            upstreams: zero,
            targets: zero,
        }
    }
}

/// The hashes of a configuration table, as Kong computes them.
///
/// A value that is neither object nor array hashes to the MD5 of its canonical text, with all
/// parts zero. "No configuration at all" is [`Hashes::default`].
pub fn hashes(config_table: &Value) -> Hashes {
    const PARTS: [&str; 5] = ["routes", "services", "plugins", "upstreams", "targets"];
    if !config_table.is_object() && !config_table.is_array() {
        return Hashes {
            config: text_hash(config_table, &[]),
            ..Hashes::default()
        };
    }
    let [routes, services, plugins, upstreams, targets] = PARTS.map(|part| {
        config_table
            .get(part)
            .map_or(ConfigHash::ZERO, |v| text_hash(v, &[]))
    });
    let rest = text_hash(config_table, &PARTS);
    let config = concat_hash(&[routes, services, plugins, upstreams, targets, rest]);
    Hashes {
        config,
        routes,
        services,
        plugins,
        upstreams,
        targets,
    }
}
