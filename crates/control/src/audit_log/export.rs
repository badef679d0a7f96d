//! The log as a file, and the search for what was done to it.

use std::io::{self, BufRead, Write};
use std::path::Path;

use sallyport_wire::audit_log::chain::{self, End, GENESIS};
use sallyport_wire::audit_log::{Fault, FaultKind, Summary, Verifier};

use super::database::{self, Range};
use super::error::{AuditLogError, LogFailure};
use super::key::{Key, public_from_text, verify};
use super::log::{database_path, key_path, now_ms};

/// The longest line that is taken for a record.
const LINE_BYTES_MAX: u64 = 16 << 20;

/// Why an export or a search did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The log cannot be opened.
    #[error(transparent)]
    Open(#[from] AuditLogError),
    /// The log cannot be read.
    #[error("the audit log cannot be read: {0}")]
    Read(String),
    /// A file or stream cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The key is none.
    #[error("that is no published key: neither a JSON Web Key Set nor the \"x\" of one")]
    NoKey,
}

impl From<rusqlite::Error> for ExportError {
    fn from(error: rusqlite::Error) -> ExportError {
        ExportError::Read(LogFailure::from(error).to_string())
    }
}

/// Writes the records from number `from` on, and the signed end, as lines. Works beside a running
/// control plane. The number of records written.
///
/// # Errors
/// See [`ExportError`].
pub fn export(directory: &Path, from: u64, out: &mut impl Write) -> Result<u64, ExportError> {
    let (key, conn) = open(directory)?;
    let from = from.max(1);
    let mut end = End {
        first: from,
        last: from - 1,
        head: GENESIS,
        at_ms: now_ms(),
    };
    // one snapshot, whatever is added meanwhile
    let tx = conn.unchecked_transaction()?;
    if from > 1 {
        let before = database::records(&tx, &Range::after(from - 2, 1))?;
        end.head = before.first().map_or(GENESIS, |it| chain::hash(&it.text));
    }
    loop {
        let page = database::records(&tx, &Range::after(end.last, 1_000))?;
        let Some(last) = page.last() else { break };
        (end.last, end.head) = (last.seq, chain::hash(&last.text));
        for record in &page {
            writeln!(out, "{}", record.line())?;
        }
    }
    let text = end.text();
    writeln!(out, "{}", chain::signed(&text, &key.sign(&text)))?;
    out.flush()?;
    Ok(end.last + 1 - end.first)
}

fn open(directory: &Path) -> Result<(Key, rusqlite::Connection), ExportError> {
    let path = database_path(directory);
    let key = key_path(directory);
    for needed in [&path, &key] {
        // opening would make a new, empty one
        std::fs::metadata(needed).map_err(|source| AuditLogError::io(needed, source))?;
    }
    let conn = database::open_to_read(&path);
    let conn = conn.map_err(|error| AuditLogError::engine(&path, &error))?;
    Ok((Key::open(&key)?, conn))
}

/// The public key in a published key set (or the bare `x` of one).
///
/// # Errors
/// [`ExportError::NoKey`].
pub fn public_key(text: &str) -> Result<Vec<u8>, ExportError> {
    public_from_text(text).ok_or(ExportError::NoKey)
}

/// Whether the installation with this public key has signed these bytes.
pub fn verify_signature(public: &[u8], signed: &[u8], signature: &[u8; 64]) -> bool {
    verify(public, signed, signature)
}

/// Searches an exported log for gaps and edits. `public` is the key it has to be signed with; `noted`
/// is the end that an earlier search found (number and hash), if somebody kept it.
///
/// # Errors
/// Only if the file cannot be read; what was done to it is in the summary.
pub fn verify_export(
    mut file: impl BufRead,
    public: &[u8],
    noted: Option<(u64, [u8; 32])>,
) -> Result<Summary, ExportError> {
    let verifier = Verifier::new(|text: &[u8], sig: &[u8; 64]| verify(public, text, sig));
    let mut verifier = verifier.noted(noted);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = io::Read::take(&mut file, LINE_BYTES_MAX);
        if bounded.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        // what is not UTF-8 is no record; replaced, it still is none
        verifier.line(&String::from_utf8_lossy(&line));
    }
    Ok(verifier.finish(true))
}

/// Searches the log in a data directory, with the key that lies there. Works beside a running
/// control plane. `noted` as in [`verify_export`].
///
/// # Errors
/// Only if it cannot be read.
pub fn verify_data(
    directory: &Path,
    noted: Option<(u64, [u8; 32])>,
) -> Result<Summary, ExportError> {
    let (key, conn) = open(directory)?;
    let public = key.public();
    let tx = conn.unchecked_transaction()?;
    let verifier = Verifier::new(|text: &[u8], sig: &[u8; 64]| verify(public, text, sig));
    let mut verifier = verifier.noted(noted);
    let mut after = 0;
    loop {
        let page = database::records(&tx, &Range::after(after, 1_000))?;
        let Some(last) = page.last() else { break };
        after = last.seq;
        page.iter().for_each(|record| verifier.line(&record.line()));
    }
    let mut summary = verifier.finish(false);
    if summary.records > 0 && summary.first != 1 {
        add(&mut summary, 1, |first| FaultKind::Sequence {
            expected: 1,
            found: first,
        });
    }
    let last = database::Head {
        seq: summary.last,
        hash: summary.head,
    };
    let text = database::head_text(&last);
    let said = database::state(&tx, "head")?;
    let said = said.as_deref().and_then(chain::unsigned);
    let fits = match &said {
        None => summary.records == 0,
        Some((said, sig)) => *said == text && verify(public, said.as_bytes(), sig),
    };
    if !fits {
        let line = summary.records + 1;
        add(&mut summary, line, |_| FaultKind::NoEnd);
    }
    Ok(summary)
}

fn add(summary: &mut Summary, line: u64, kind: impl FnOnce(u64) -> FaultKind) {
    let kind = kind(summary.first);
    summary.faults.push(Fault { line, kind });
    summary.faults_count += 1;
}
