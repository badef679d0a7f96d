//! What all log plugins that tell JSON have in common.

use bytes::{BufMut, Bytes, BytesMut};
use sallyport_model::schema::{Field, each};

use super::custom_fields::check;

/// The field `custom_fields_by_lua`.
pub(crate) fn custom_fields_by_lua() -> Field {
    Field::map(
        "custom_fields_by_lua",
        each::string(),
        each::string().check(check),
    )
    .about(
        "Further fields of an entry, in a part of Lua: see \
         [log queues](../log_queue.md#fields-of-your-own).",
    )
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
