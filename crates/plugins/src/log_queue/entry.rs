//! What all log plugins that tell JSON have in common.

use bytes::{BufMut, Bytes, BytesMut};
use sallyport_model::schema::{Field, each};
use serde_json::Value;

use crate::exchange::Exchange;
use crate::finished::Finished;

/// The field of Kong that would run code; only an empty one is taken.
pub(crate) fn custom_fields_by_lua() -> Field {
    Field::map("custom_fields_by_lua", each::string(), each::string())
        .check(no_code)
        .about("Must be empty: code in configurations is not run.")
}

fn no_code(fields: &Value) -> Result<(), String> {
    match fields.as_object().is_some_and(|map| !map.is_empty()) {
        true => Err(
            "code in configurations is not run by this build; leave it out and change entries \
             where they are collected"
                .to_owned(),
        ),
        false => Ok(()),
    }
}

/// The entry of a request, without a line feed.
pub(crate) fn line(exchange: &Exchange, finished: &Finished<'_>) -> Bytes {
    finished.entry(exchange).to_json().into()
}

/// Entries as lines.
pub(crate) fn lines(batch: &[Bytes]) -> Bytes {
    let bytes: usize = batch.iter().map(|entry| entry.len() + 1).sum();
    let mut text = BytesMut::with_capacity(bytes);
    for entry in batch {
        text.extend_from_slice(entry);
        text.put_u8(b'\n');
    }
    text.freeze()
}

/// Entries as a JSON array.
pub(crate) fn array(batch: &[Bytes]) -> Bytes {
    let bytes: usize = batch.iter().map(|entry| entry.len() + 1).sum();
    let mut text = BytesMut::with_capacity(bytes + 1);
    text.put_u8(b'[');
    for (at, entry) in batch.iter().enumerate() {
        if at > 0 {
            text.put_u8(b',');
        }
        text.extend_from_slice(entry);
    }
    text.put_u8(b']');
    text.freeze()
}
