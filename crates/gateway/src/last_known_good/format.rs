//! The bytes of the file: magic, format version, hash, payload, checksum.
//!
//! | bytes | content |
//! |---|---|
//! | 8 | `SPORTLKG` |
//! | 4 | format version, little endian: 1, or 2 |
//! | 32 | hash in force, ASCII |
//! | 32 | in format 2: the control plane's name of the version, ASCII |
//! | 8 | length of the payload, little endian |
//! | … | payload: the reconfigure frame, gzip of JSON |
//! | 32 | SHA-256 of everything before it |

use sallyport_wire::ConfigHash;
use sallyport_wire::config_sync::delta::SyncVersion;
use sallyport_wire::config_sync::{FrameError, Reconfigure};
use sha2::{Digest, Sha256};

use super::Saved;

const MAGIC: &[u8; 8] = b"SPORTLKG";
/// Without a name of the version.
const PLAIN: u32 = 1;
/// With one.
const NAMED: u32 = 2;
const HEAD: usize = 8 + 4 + 32 + 8;
const SUM: usize = 32;
/// The file is ours and its checksum holds, so this only bounds an absurd one.
const DECOMPRESSED_BYTES_MAX: usize = 4 << 30;

/// Why a file is not a last-known-good configuration.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// Shorter than head and checksum.
    #[error("it is cut short ({found} bytes)")]
    Short {
        /// Bytes in the file.
        found: usize,
    },
    /// It begins with something else.
    #[error("it is not a last-known-good file")]
    Magic,
    /// A later build wrote it.
    #[error("it has format version {found}, this build reads up to {NAMED}")]
    Version {
        /// The version it names.
        found: u32,
    },
    /// Cut short or added to.
    #[error("it is {found} bytes long where it should be {wanted}")]
    Length {
        /// Bytes in the file.
        found: u64,
        /// Bytes according to its head.
        wanted: u64,
    },
    /// Changed after it was written.
    #[error("its checksum does not match: it was damaged after it was written")]
    Checksum,
    /// The checksum holds, but the content is no configuration.
    #[error("its content cannot be used: {0}")]
    Payload(FrameError),
}

pub(crate) fn encode(saved: &Saved) -> Vec<u8> {
    let payload = saved.payload.encode();
    let mut bytes = Vec::with_capacity(HEAD + 32 + payload.len() + SUM);
    bytes.extend_from_slice(MAGIC);
    let format = match saved.version {
        None => PLAIN,
        Some(_) => NAMED,
    };
    bytes.extend_from_slice(&format.to_le_bytes());
    bytes.extend_from_slice(saved.hash.as_bytes());
    if let Some(version) = saved.version {
        bytes.extend_from_slice(version.as_str().as_bytes());
    }
    bytes.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&payload);
    let sum = Sha256::digest(&bytes);
    bytes.extend_from_slice(&sum);
    bytes
}

/// What a file holds, its payload not yet read.
pub(super) struct Verified<'a> {
    hash: ConfigHash,
    version: Option<SyncVersion>,
    payload: &'a [u8],
}

/// Checks everything but the content.
pub(super) fn verify(bytes: &[u8]) -> Result<Verified<'_>, FormatError> {
    let short = || FormatError::Short { found: bytes.len() };
    let (magic, rest) = bytes.split_first_chunk::<8>().ok_or_else(short)?;
    if magic != MAGIC {
        return Err(FormatError::Magic);
    }
    let (format, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
    let format = u32::from_le_bytes(*format);
    if format != PLAIN && format != NAMED {
        return Err(FormatError::Version { found: format });
    }
    let (hash, mut rest) = rest.split_first_chunk::<32>().ok_or_else(short)?;
    let mut version = None;
    let mut head = HEAD;
    if format == NAMED {
        let (name, after) = rest.split_first_chunk::<32>().ok_or_else(short)?;
        (version, rest, head) = (Some(name), after, HEAD + 32);
    }
    let (length, rest) = rest.split_first_chunk::<8>().ok_or_else(short)?;
    let length = u64::from_le_bytes(*length);
    let wanted = length.saturating_add((head + SUM) as u64);
    if bytes.len() as u64 != wanted {
        return Err(FormatError::Length {
            found: bytes.len() as u64,
            wanted,
        });
    }
    let (payload, sum) = rest.split_last_chunk::<SUM>().ok_or_else(short)?;
    if Sha256::digest(&bytes[..bytes.len() - SUM])[..] != sum[..] {
        return Err(FormatError::Checksum);
    }
    let hash = ConfigHash::try_from(&hash[..]).map_err(|_| FormatError::Checksum)?;
    let version = version.map(|name| std::str::from_utf8(name).ok()?.parse().ok());
    let version = match version {
        Some(None) => return Err(FormatError::Checksum),
        Some(name) => name,
        None => None,
    };
    Ok(Verified {
        hash,
        version,
        payload,
    })
}

pub(crate) fn decode(bytes: &[u8]) -> Result<Saved, FormatError> {
    let Verified {
        hash,
        version,
        payload,
    } = verify(bytes)?;
    let payload =
        Reconfigure::decode(payload, DECOMPRESSED_BYTES_MAX).map_err(FormatError::Payload)?;
    Ok(Saved {
        hash,
        version,
        payload,
    })
}
