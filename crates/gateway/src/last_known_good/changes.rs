//! The file of changes: what led on from a stored configuration, one record after the other.
//!
//! | bytes | content |
//! |---|---|
//! | 8 | `SPORTCHG` |
//! | 4 | format version, little endian: 1 |
//!
//! and for each record
//!
//! | bytes | content |
//! |---|---|
//! | 4 | length of the payload, little endian |
//! | … | payload: a snappy block around JSON |
//! | 32 | SHA-256 of the payload |
//!
//! A record counts when all of it is there and its checksum holds; reading ends before the first
//! one that does not, which is what a crash while it was written leaves.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use sallyport_wire::config_sync::delta::{Deltas, Refused};
use sallyport_wire::config_sync::rpc::{compress, decompress};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

const HEAD: &[u8; 12] = b"SPORTCHG\x01\x00\x00\x00";
const SUM: usize = 32;
/// Bytes of one record once decompressed; a longer one is not written.
const RECORD_BYTES_MAX: usize = 256 << 20;

/// Changes that were put in force together.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// From where, to where, and what.
    pub deltas: Deltas,
    /// What of it was not served as it came.
    pub refused: Vec<Refused>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    deltas: Box<RawValue>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    refused: Vec<Refused>,
}

impl Record {
    fn encode(&self) -> Vec<u8> {
        let stored = Stored {
            deltas: self.deltas.to_raw(),
            refused: self.refused.clone(),
        };
        let payload = compress(&serde_json::to_vec(&stored).expect("a record is JSON"));
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend_from_slice(&payload);
        bytes.extend_from_slice(&Sha256::digest(&payload));
        bytes
    }
}

/// The file, open to add to it.
#[derive(Debug)]
pub struct Changes {
    file: File,
    bytes: u64,
}

impl Changes {
    /// Opens the file, or makes it; what is behind the last good record is cut off.
    pub(super) fn open(path: &Path, directory: &Path) -> io::Result<Changes> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.mode(0o600).open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let (_, good) = records(&bytes);
        if good == 0 {
            file.set_len(0)?;
            file.seek(SeekFrom::Start(0))?;
            file.write_all(HEAD)?;
            file.sync_all()?;
            File::open(directory)?.sync_all()?;
        } else {
            file.set_len(good as u64)?;
        }
        let bytes = file.seek(SeekFrom::End(0))?;
        Ok(Changes { file, bytes })
    }

    /// Adds records and waits until the disk has them.
    ///
    /// # Errors
    /// The disk is full, …; none of them is in the file then, or the file is to be opened anew.
    pub fn append(&mut self, records: &[Record]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for record in records {
            let record = record.encode();
            if record.len() > RECORD_BYTES_MAX {
                return Err(io::Error::other(
                    "a change of this size is stored as a whole",
                ));
            }
            bytes.extend(record);
        }
        let written = self
            .file
            .write_all(&bytes)
            .and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            self.file.set_len(self.bytes)?;
            self.file.seek(SeekFrom::End(0))?;
            return Err(error);
        }
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// The good records of a file; none if it is not there.
pub(super) fn read(path: &Path) -> Vec<Record> {
    let bytes = std::fs::read(path).unwrap_or_default();
    records(&bytes).0
}

/// The good records at the beginning of a file, and how many bytes of it are good.
pub fn records(bytes: &[u8]) -> (Vec<Record>, usize) {
    let mut found = Vec::new();
    let Some(mut rest) = bytes.strip_prefix(HEAD) else {
        return (found, 0);
    };
    while let Some((record, after)) = record(rest) {
        found.push(record);
        rest = after;
    }
    (found, bytes.len() - rest.len())
}

fn record(bytes: &[u8]) -> Option<(Record, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    let (payload, rest) = rest.split_at_checked(length)?;
    let (sum, rest) = rest.split_at_checked(SUM)?;
    if Sha256::digest(payload)[..] != *sum {
        return None;
    }
    let text = decompress(payload, RECORD_BYTES_MAX).ok()?;
    let stored: Stored = serde_json::from_slice(&text).ok()?;
    let record = Record {
        deltas: Deltas::from_raw(&stored.deltas).ok()?,
        refused: stored.refused,
    };
    Some((record, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sallyport_wire::config_sync::delta::{Delta, SyncVersion};
    use serde_json::json;

    use super::*;

    fn record(revision: u64) -> Record {
        let id = format!("00000000-0000-4000-8000-{revision:012}");
        Record {
            deltas: Deltas {
                full: false,
                from: Some(SyncVersion::new(1, revision - 1)),
                version: SyncVersion::new(1, revision),
                hash: None,
                list: vec![Delta {
                    table: "services".to_owned(),
                    entity: Some(json!({"id": id, "host": "a"})),
                    id,
                }],
            },
            refused: vec![Refused::default()],
        }
    }

    fn file(records: &[Record]) -> Vec<u8> {
        let mut bytes = HEAD.to_vec();
        records
            .iter()
            .for_each(|record| bytes.extend(record.encode()));
        bytes
    }

    #[test]
    fn what_is_added_is_read_and_a_torn_end_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("changes");
        assert!(read(&path).is_empty());
        let mut changes = Changes::open(&path, dir.path()).unwrap();
        changes.append(&[record(1)]).unwrap();
        changes.append(&[record(2)]).unwrap();
        assert_eq!(read(&path), [record(1), record(2)]);
        let whole = std::fs::read(&path).unwrap();
        assert_eq!(changes.bytes(), whole.len() as u64);
        let one = file(&[record(1)]).len();
        // a crash at any byte of the second record leaves the first
        for cut in one..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(read(&path), [record(1)], "cut at {cut}");
            let mut changes = Changes::open(&path, dir.path()).unwrap();
            changes.append(&[record(3)]).unwrap();
            assert_eq!(read(&path), [record(1), record(3)], "cut at {cut}");
        }
    }

    #[test]
    fn damage_ends_the_reading_there() {
        let whole = file(&[record(1), record(2), record(3)]);
        let (first, second) = (
            file(&[record(1)]).len(),
            file(&[record(1), record(2)]).len(),
        );
        for at in first..second {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            let (found, good) = records(&bytes);
            assert_eq!((found.len(), good), (1, first), "damaged at {at}");
        }
        assert_eq!(records(b"something else"), (Vec::new(), 0));
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(tail in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = HEAD.to_vec();
            bytes.extend(tail);
            assert!(records(&bytes).1 >= HEAD.len());
        }
    }
}
