//! The chain of records, and the search for what was done to it.
//!
//! A line is a record's text with `,"sig":"…"` before its last brace. An export ends with a line of
//! its own kind, signed the same way: `{"audit_export":{…},"sig":"…"}`, which says what it holds, so
//! that lines missing at either end are noticed.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// `prev` of the first record.
pub const GENESIS: [u8; 32] = [0; 32];

/// Faults that are kept one by one.
const FAULTS_MAX: usize = 1_000;

const SIG: &str = ",\"sig\":\"";

/// The hash of a record's text, which the record after it carries as `prev`.
pub fn hash(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A signature as text: base64url without padding, 86 characters.
pub fn signature_text(signature: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(signature)
}

/// A text (a JSON object on one line) with its signature as last member.
pub fn signed(text: &str, signature: &[u8]) -> String {
    let open = text.strip_suffix('}').unwrap_or(text);
    format!("{open}{SIG}{}\"}}", signature_text(signature))
}

/// Takes the signature out of a line: the text that was signed, and the signature.
pub fn unsigned(line: &str) -> Option<(String, [u8; 64])> {
    let open = line.strip_suffix("\"}")?;
    let (text, signature) = open.rsplit_once(SIG)?;
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    Some((format!("{text}}}"), signature.try_into().ok()?))
}

/// What an export says about itself in its last line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Number of the first record.
    pub first: u64,
    /// Number of the last record; `first - 1` if there is none.
    pub last: u64,
    /// [`hash`] of the last record; of the one before `first` if there is none.
    pub head: [u8; 32],
    /// When it was made, Unix milliseconds.
    pub at_ms: i64,
}

impl End {
    /// The text to be signed.
    pub fn text(&self) -> String {
        json!({"audit_export": {
            "first": self.first,
            "last": self.last,
            "head": hex(&self.head),
            "made_at": super::event::stamp(self.at_ms),
        }})
        .to_string()
    }
}

/// What is wrong in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Not a record: no object on one line that ends with a signature.
    NotARecord,
    /// The signature is not one of this text by this key: the line was edited, or made by another.
    Signature,
    /// A number other than the one that follows: records were taken out, put in or moved.
    Sequence {
        /// The number that follows.
        expected: u64,
        /// The number that stands there.
        found: u64,
    },
    /// It does not continue the record before it, although its number does.
    Previous,
    /// The end of the export is missing: it was cut off.
    NoEnd,
    /// The end of the export speaks of other records than the ones before it.
    End {
        /// First and last number according to the end.
        said: (u64, u64),
        /// First and last number that are there.
        found: (u64, u64),
    },
    /// A line after the end.
    AfterEnd,
    /// A record that was seen before is missing or another one: an older or a new log was put in
    /// the place of the one that was seen.
    Noted(u64),
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FaultKind::NotARecord => f.write_str("not a record"),
            FaultKind::Signature => f.write_str("edited: the signature does not fit"),
            FaultKind::Sequence { expected, found } if found > expected => {
                write!(f, "records {expected} to {} are missing", found - 1)
            }
            FaultKind::Sequence { expected, found } => {
                write!(f, "record {found} stands where {expected} should")
            }
            FaultKind::Previous => f.write_str("it does not continue the record before it"),
            FaultKind::NoEnd => f.write_str("cut off: the signed end of the export is missing"),
            FaultKind::End { said, found } => write!(
                f,
                "the end speaks of records {} to {}, there are {} to {}",
                said.0, said.1, found.0, found.1
            ),
            FaultKind::AfterEnd => f.write_str("a line after the signed end"),
            FaultKind::Noted(seq) => {
                write!(f, "record {seq} is not the one that was seen before")
            }
        }
    }
}

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Line, from 1.
    pub line: u64,
    /// What is wrong there.
    pub kind: FaultKind,
}

/// What a search found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Records seen.
    pub records: u64,
    /// Number of the first one.
    pub first: u64,
    /// Number of the last one.
    pub last: u64,
    /// [`hash`] of the last one.
    pub head: [u8; 32],
    /// The first 1,000 faults.
    pub faults: Vec<Fault>,
    /// Faults in all.
    pub faults_count: u64,
}

/// Searches lines, one after the other, for gaps and edits.
pub struct Verifier<V> {
    verify: V,
    line: u64,
    ended: bool,
    noted: Option<(u64, [u8; 32])>,
    summary: Summary,
}

impl<V: Fn(&[u8], &[u8; 64]) -> bool> Verifier<V> {
    /// `verify` tells whether a signature is one of these bytes by the installation's key.
    pub fn new(verify: V) -> Verifier<V> {
        Verifier {
            verify,
            line: 0,
            ended: false,
            noted: None,
            summary: Summary::default(),
        }
    }

    /// Also looks for a record by its number and [`hash`], as an earlier search gave them.
    #[must_use]
    pub fn noted(mut self, noted: Option<(u64, [u8; 32])>) -> Verifier<V> {
        self.noted = noted;
        self
    }

    /// Looks at the next line, without its line end.
    pub fn line(&mut self, line: &str) {
        self.line += 1;
        if self.ended {
            return self.fault(FaultKind::AfterEnd);
        }
        let Some((text, signature)) = unsigned(line) else {
            return self.fault(FaultKind::NotARecord);
        };
        if !(self.verify)(text.as_bytes(), &signature) {
            self.fault(FaultKind::Signature);
        }
        // Edited or not, what it says of its place shows what else is wrong.
        let value: Value = serde_json::from_str(&text).unwrap_or_default();
        if let Some(end) = value.get("audit_export") {
            return self.end(end);
        }
        let (Some(seq), Some(prev)) = (value["seq"].as_u64(), value["prev"].as_str()) else {
            return self.fault(FaultKind::NotARecord);
        };
        if self.summary.records == 0 {
            self.summary.first = seq;
            if seq == 1 && prev != hex(&GENESIS) {
                self.fault(FaultKind::Previous);
            }
        } else {
            let expected = self.summary.last.saturating_add(1);
            if seq != expected {
                self.fault(FaultKind::Sequence {
                    expected,
                    found: seq,
                });
            } else if prev != hex(&self.summary.head) {
                self.fault(FaultKind::Previous);
            }
        }
        self.summary.records += 1;
        self.summary.last = seq;
        self.summary.head = hash(&text);
        if self.noted == Some((seq, self.summary.head)) {
            self.noted = None;
        }
    }

    /// The lines are over. An export has to end with its own last line; the lines of a live log
    /// (`is_export` false) do not.
    pub fn finish(mut self, is_export: bool) -> Summary {
        if is_export && !self.ended {
            self.line += 1;
            self.fault(FaultKind::NoEnd);
        }
        if let Some((seq, _)) = self.noted {
            self.fault(FaultKind::Noted(seq));
        }
        self.summary
    }

    fn end(&mut self, end: &Value) {
        self.ended = true;
        let number = |name: &str| end[name].as_u64().unwrap_or(u64::MAX);
        let said = (number("first"), number("last"));
        let Summary {
            records,
            first,
            last,
            head,
            ..
        } = self.summary;
        let found = (first, last);
        let empty = records == 0 && said.0.checked_sub(1) == Some(said.1);
        let same = records > 0 && said == found && end["head"].as_str() == Some(&hex(&head));
        if !empty && !same {
            self.fault(FaultKind::End { said, found });
        }
    }

    fn fault(&mut self, kind: FaultKind) {
        self.summary.faults_count += 1;
        if self.summary.faults.len() < FAULTS_MAX {
            self.summary.faults.push(Fault {
                line: self.line,
                kind,
            });
        }
    }
}
