//! A configuration in a file, for a gateway that starts while its control plane is away.
//!
//! | bytes | content |
//! |---|---|
//! | 8 | `SPORTSNP` |
//! | 4 | format version, little endian: 1 |
//! | 4 | length of the header, little endian |
//! | … | header: JSON, [`Header`] |
//! | 8 | length of the payload, little endian |
//! | … | payload: gzip of JSON, as protocol v1 sends it |
//! | 64 | Ed25519 signature of everything before |
//!
//! The codec knows no keys: who reads a file verifies [`Snapshot::signed`] before anything else.

use serde::{Deserialize, Serialize};

use super::delta::SyncVersion;
use crate::config_hash::ConfigHash;

const MAGIC: &[u8; 8] = b"SPORTSNP";
const FORMAT: u32 = 1;
/// Bytes of a signature.
pub const SIGNATURE: usize = 64;
const HEADER_BYTES_MAX: usize = 64 * 1024;

/// What a file says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Id of the control plane.
    pub control_plane: String,
    /// First label of the names that its data planes dial; empty in files of builds before it.
    #[serde(default)]
    pub prefix: String,
    /// The version that it calls the configuration by.
    pub version: SyncVersion,
    /// Its hash.
    pub config_hash: ConfigHash,
    /// When it was exported, Unix seconds.
    pub issued_at: i64,
    /// Last Unix second at which a gateway may start from it.
    pub expires_at: i64,
}

/// A file, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot<'a> {
    /// What it says about itself.
    pub header: Header,
    /// The configuration.
    pub payload: &'a [u8],
    /// What is signed.
    pub signed: &'a [u8],
    /// The signature.
    pub signature: &'a [u8; SIGNATURE],
}

/// Why a file is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It begins with something else.
    #[error("it is not a snapshot file")]
    Magic,
    /// A later build wrote it.
    #[error("it has format version {found}, this build reads {FORMAT}")]
    Format {
        /// The version it names.
        found: u32,
    },
    /// Cut short or added to.
    #[error("it is cut short, or something was added")]
    Length,
    /// The header cannot be read.
    #[error("its header cannot be read: {0}")]
    Header(String),
}

/// The part of a file that is to be signed; the signature follows it.
pub fn unsigned(header: &Header, payload: &[u8]) -> Vec<u8> {
    let header = serde_json::to_vec(header).expect("a header is JSON");
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(
        &u32::try_from(header.len())
            .unwrap_or(u32::MAX)
            .to_le_bytes(),
    );
    bytes.extend_from_slice(&header);
    bytes.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Takes a file apart. Nothing of it is to be believed before its signature is verified.
///
/// # Errors
/// See [`SnapshotError`].
pub fn read(bytes: &[u8]) -> Result<Snapshot<'_>, SnapshotError> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(SnapshotError::Magic)?;
    let (format, rest) = rest.split_first_chunk::<4>().ok_or(SnapshotError::Length)?;
    let format = u32::from_le_bytes(*format);
    if format != FORMAT {
        return Err(SnapshotError::Format { found: format });
    }
    let (length, rest) = rest.split_first_chunk::<4>().ok_or(SnapshotError::Length)?;
    let length = u32::from_le_bytes(*length) as usize;
    if length > HEADER_BYTES_MAX {
        return Err(SnapshotError::Length);
    }
    let (header, rest) = rest.split_at_checked(length).ok_or(SnapshotError::Length)?;
    let (length, rest) = rest.split_first_chunk::<8>().ok_or(SnapshotError::Length)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| SnapshotError::Length)?;
    let (payload, signature) = rest.split_at_checked(length).ok_or(SnapshotError::Length)?;
    let signature = signature.try_into().map_err(|_| SnapshotError::Length)?;
    let header =
        serde_json::from_slice(header).map_err(|e| SnapshotError::Header(e.to_string()))?;
    Ok(Snapshot {
        header,
        payload,
        signed: &bytes[..bytes.len() - SIGNATURE],
        signature,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(payload: &[u8]) -> Vec<u8> {
        let header = Header {
            control_plane: "cp".to_owned(),
            prefix: "0123456789".to_owned(),
            version: SyncVersion::new(1, 2),
            config_hash: ConfigHash::ZERO,
            issued_at: 1,
            expires_at: 2,
        };
        let mut bytes = unsigned(&header, payload);
        bytes.extend([7; SIGNATURE]);
        bytes
    }

    #[test]
    fn every_cut_and_every_addition_is_seen() {
        let whole = file(b"payload");
        for cut in 0..whole.len() {
            assert!(read(&whole[..cut]).is_err(), "{cut}");
        }
        let longer = [&whole[..], b"x"].concat();
        assert!(read(&longer).is_err());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(payload in proptest::collection::vec(any::<u8>(), 0..100)) {
            let bytes = file(&payload);
            let read = read(&bytes).unwrap();
            prop_assert_eq!(read.payload, &payload[..]);
            prop_assert_eq!(read.signature, &[7; SIGNATURE]);
            prop_assert_eq!(unsigned(&read.header, read.payload), read.signed);
        }

        #[test]
        fn hostile_bytes_never_panic(tail in proptest::collection::vec(any::<u8>(), 0..200)) {
            _ = read(&tail);
            _ = read(&[&MAGIC[..], &FORMAT.to_le_bytes(), &tail].concat());
        }
    }
}
