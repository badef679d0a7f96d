//! `reconfigure`: a whole configuration on its way to a data plane.

use std::io::{BufWriter, IntoInnerError, Read, Write};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{FrameError, expect_kind, object};
use crate::config_hash::{ConfigHash, Hashes, hashes};

const TYPE: &str = "reconfigure";

/// One configuration, as it is pushed to every data plane of a control plane.
#[derive(Clone, Debug, PartialEq)]
pub struct Reconfigure {
    /// Unix seconds at which the payload was built; only for log lines.
    pub timestamp: Option<f64>,
    /// The declarative configuration: `_format_version`, `_transform`, one flat array per
    /// entity name, foreign keys as id strings. Always an object.
    pub config_table: Value,
    /// The hash the data plane reports once it runs this; `None` if the sender left it out.
    pub config_hash: Option<ConfigHash>,
    /// Hashes of the parts; `None` means that everything is to be rebuilt.
    pub hashes: Option<Hashes>,
}

impl Reconfigure {
    /// A payload with the hashes computed from `config_table`.
    pub fn new(config_table: Value, timestamp: f64) -> Reconfigure {
        let hashes = hashes(&config_table);
        Reconfigure {
            timestamp: Some(timestamp),
            config_table,
            config_hash: Some(hashes.config),
            hashes: Some(hashes),
        }
    }

    /// The hash to report for this payload: the sender's, else computed from the table.
    pub fn hash(&self) -> ConfigHash {
        self.config_hash
            .unwrap_or_else(|| hashes(&self.config_table).config)
    }

    /// The frame: gzip of JSON. Send it unfragmented; real data planes drop the link otherwise.
    pub fn encode(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Frame<'a> {
            r#type: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            timestamp: Option<f64>,
            config_table: &'a Value,
            #[serde(skip_serializing_if = "Option::is_none")]
            config_hash: Option<ConfigHash>,
            #[serde(skip_serializing_if = "Option::is_none")]
            hashes: Option<Hashes>,
        }
        gzip_json(&Frame {
            r#type: TYPE,
            timestamp: self.timestamp,
            config_table: &self.config_table,
            config_hash: self.config_hash,
            hashes: self.hashes,
        })
    }

    /// Reads a frame of which at most `bytes_max` bytes may come out of the compression.
    ///
    /// # Errors
    /// [`FrameError::OtherType`] is to be ignored, as Kong does; every other error says why the
    /// frame is unusable.
    pub fn decode(frame: &[u8], bytes_max: usize) -> Result<Reconfigure, FrameError> {
        let text = gunzip(frame, bytes_max)?;
        let mut object = object(&text)?;
        drop(text);
        expect_kind(&object, TYPE)?;
        let config_table = match object.remove("config_table") {
            Some(table @ Value::Object(_)) => table,
            Some(_) => return Err(problem("config_table", "is not an object")),
            None => return Err(problem("config_table", "is missing")),
        };
        let config_hash = take(&mut object, "config_hash", |value| match value {
            Value::String(text) => text.parse().map_err(|error| format!("is no hash: {error}")),
            _ => Err("is not a string".to_owned()),
        })?;
        let hashes = take(&mut object, "hashes", |value| {
            serde_json::from_value(value).map_err(|error| format!("cannot be used: {error}"))
        })?;
        let timestamp = object.get("timestamp").and_then(Value::as_f64);
        Ok(Reconfigure {
            timestamp,
            config_table,
            config_hash,
            hashes,
        })
    }
}

/// A frame that is written entity by entity, each from its JSON text, so that a large configuration
/// is written as JSON once and stands nowhere as a whole.
pub struct FrameWriter {
    out: BufWriter<GzEncoder<Vec<u8>>>,
    /// The list that is being written.
    list: Option<&'static str>,
}

impl Default for FrameWriter {
    fn default() -> FrameWriter {
        let mut writer = FrameWriter {
            out: buffered(),
            list: None,
        };
        writer.put(&format!(
            "{{\"type\":\"{TYPE}\",\"config_table\":{{\"_format_version\":\"3.0\",\"_transform\":false"
        ));
        writer
    }
}

impl FrameWriter {
    /// Adds an entity to a list such as `routes`. The entities of a list follow each other.
    pub fn add(&mut self, list: &'static str, text: &str) {
        if self.list == Some(list) {
            self.put(",");
        } else {
            let end = if self.list.is_some() { "]" } else { "" };
            self.put(&format!("{end},\"{list}\":["));
            self.list = Some(list);
        }
        self.put(text);
    }

    /// The frame, with the hash that a data plane reports once it runs it.
    pub fn finish(mut self, hash: ConfigHash) -> Vec<u8> {
        let end = if self.list.is_some() { "]" } else { "" };
        self.put(&format!("{end}}},\"config_hash\":\"{hash}\"}}"));
        finished(self.out)
    }

    fn put(&mut self, text: &str) {
        let written = self.out.write_all(text.as_bytes());
        written.expect("memory takes every byte");
    }
}

/// Whether a table holds no entity but workspaces. A data plane then reports the zero hash and
/// stays unready.
pub fn is_empty_config(config_table: &Value) -> bool {
    let Value::Object(fields) = config_table else {
        return true;
    };
    fields.iter().all(|(name, value)| {
        name.starts_with('_')
            || name == "workspaces"
            || value.is_null()
            || value.as_array().is_some_and(Vec::is_empty)
            || value.as_object().is_some_and(Map::is_empty)
    })
}

/// The gzip of the JSON text of `value`, at a level that favours speed.
pub fn gzip_json(value: &impl Serialize) -> Vec<u8> {
    let mut out = buffered();
    serde_json::to_writer(&mut out, value).expect("JSON values write to memory");
    finished(out)
}

/// JSON is written in crumbs of a few bytes, each of which would be a call of the compression.
fn buffered() -> BufWriter<GzEncoder<Vec<u8>>> {
    let gzip = GzEncoder::new(Vec::new(), Compression::fast());
    BufWriter::with_capacity(64 * 1024, gzip)
}

fn finished(out: BufWriter<GzEncoder<Vec<u8>>>) -> Vec<u8> {
    let gzip = out.into_inner().map_err(IntoInnerError::into_error);
    let frame = gzip.and_then(GzEncoder::finish);
    frame.expect("memory takes every byte")
}

/// Decompresses at most `bytes_max` bytes; checks the length and checksum at the end.
fn gunzip(frame: &[u8], bytes_max: usize) -> Result<Vec<u8>, FrameError> {
    let mut text = Vec::new();
    GzDecoder::new(frame)
        .take(bytes_max as u64 + 1)
        .read_to_end(&mut text)
        .map_err(|error| FrameError::Gzip(error.to_string()))?;
    if text.len() > bytes_max {
        return Err(FrameError::TooLarge { bytes_max });
    }
    Ok(text)
}

/// Takes an optional field out of `object`; null counts as absent.
fn take<T>(
    object: &mut Map<String, Value>,
    field: &'static str,
    read: impl FnOnce(Value) -> Result<T, String>,
) -> Result<Option<T>, FrameError> {
    match object.remove(field) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => read(value)
            .map(Some)
            .map_err(|problem| FrameError::Field { field, problem }),
    }
}

fn problem(field: &'static str, problem: &str) -> FrameError {
    FrameError::Field {
        field,
        problem: problem.to_owned(),
    }
}
