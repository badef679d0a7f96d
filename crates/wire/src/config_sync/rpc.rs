//! JSON-RPC 2.0 on `/v2/outlet`: what a frame after the hello holds.
//!
//! A frame is a raw snappy block around one JSON object, or an array of them (a batch). Params
//! are positional. The hello and its answer are plain JSON without compression.

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

/// Path of the endpoint.
pub const OUTLET_PATH: &str = "/v2/outlet";
/// The subprotocol that the upgrade asks for and must be answered with.
pub const SUBPROTOCOL: &str = "kong.meta.v1";
/// The only encoding of frames after the hello.
pub const ENCODING: &str = "x-snappy-framed";
/// Seconds within which a call is answered.
pub const CALL_SECS_MAX: u64 = 5;
/// Messages in one frame.
const BATCH_MAX: usize = 1024;

/// Codes of errors.
pub mod code {
    /// The text is not JSON.
    pub const PARSE: i64 = -32700;
    /// It is JSON, and no request.
    pub const INVALID_REQUEST: i64 = -32600;
    /// No such method.
    pub const UNKNOWN_METHOD: i64 = -32601;
    /// The method does not take these params.
    pub const PARAMS: i64 = -32602;
    /// The method failed here.
    pub const INTERNAL: i64 = -32603;
}

/// One message.
#[derive(Clone, Debug)]
pub enum Message {
    /// A call that wants an answer with the same id.
    Call {
        /// Chosen by the caller.
        id: u64,
        /// What is called.
        method: String,
        /// A JSON array.
        params: Box<RawValue>,
    },
    /// A call that is never answered.
    Notification {
        /// What is called.
        method: String,
        /// A JSON array.
        params: Box<RawValue>,
    },
    /// A call's good end.
    Answer {
        /// Of the call.
        id: u64,
        /// Anything.
        result: Box<RawValue>,
    },
    /// A call's bad end.
    Failure {
        /// Of the call; `None` if it could not be read.
        id: Option<u64>,
        /// One of [`code`], or the peer's own.
        code: i64,
        /// In words.
        message: String,
    },
}

impl PartialEq for Message {
    fn eq(&self, other: &Message) -> bool {
        self.to_json() == other.to_json()
    }
}

/// Why a frame could not be read. The peer is answered with [`RpcError::code`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    /// The compression is broken.
    #[error("the frame is no snappy block: {0}")]
    Snappy(String),
    /// More bytes would come out than allowed.
    #[error("the frame is larger than {bytes_max} bytes when decompressed")]
    TooLarge {
        /// The bound.
        bytes_max: usize,
    },
    /// The text is not JSON.
    #[error("the frame is not JSON: {0}")]
    Json(String),
    /// A message that is none.
    #[error("not a JSON-RPC message: {0}")]
    Message(String),
}

impl RpcError {
    /// What the peer is told.
    pub fn code(&self) -> i64 {
        match self {
            RpcError::Message(_) => code::INVALID_REQUEST,
            _ => code::PARSE,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Wire<'a> {
    #[serde(default)]
    jsonrpc: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    method: Option<String>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    params: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    result: Option<&'a RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<WireError>,
}

#[derive(Serialize, Deserialize)]
struct WireError {
    code: i64,
    #[serde(default)]
    message: String,
}

/// `value` as the params or the result of a message.
///
/// # Panics
/// For values that are no JSON, such as maps with other keys than texts; ours are.
pub fn raw(value: &impl Serialize) -> Box<RawValue> {
    to_raw_value(value).expect("our messages are JSON")
}

impl Message {
    /// The JSON text, without compression: the form of the hello.
    pub fn to_json(&self) -> Vec<u8> {
        let mut wire = Wire {
            jsonrpc: "2.0".to_owned(),
            id: None,
            method: None,
            params: None,
            result: None,
            error: None,
        };
        match self {
            Message::Call { id, method, params } => {
                wire.id = Some(*id);
                wire.method = Some(method.clone());
                wire.params = Some(params);
            }
            Message::Notification { method, params } => {
                wire.method = Some(method.clone());
                wire.params = Some(params);
            }
            Message::Answer { id, result } => {
                wire.id = Some(*id);
                wire.result = Some(result);
            }
            Message::Failure { id, code, message } => {
                wire.id = *id;
                wire.error = Some(WireError {
                    code: *code,
                    message: message.clone(),
                });
            }
        }
        serde_json::to_vec(&wire).expect("a message is JSON")
    }

    /// The frame: a snappy block.
    pub fn encode(&self) -> Vec<u8> {
        compress(&self.to_json())
    }

    /// Reads one message of plain JSON: the form of the hello.
    ///
    /// # Errors
    /// Not JSON, or no message.
    pub fn from_json(text: &[u8]) -> Result<Message, RpcError> {
        let wire: Wire<'_> =
            serde_json::from_slice(text).map_err(|error| match error.classify() {
                serde_json::error::Category::Data => RpcError::Message(error.to_string()),
                _ => RpcError::Json(error.to_string()),
            })?;
        Message::of(wire)
    }

    fn of(wire: Wire<'_>) -> Result<Message, RpcError> {
        let bad = |what: &str| RpcError::Message(what.to_owned());
        if wire.jsonrpc != "2.0" {
            return Err(bad("\"jsonrpc\" is not \"2.0\""));
        }
        match (wire.method, wire.result, wire.error) {
            (Some(method), None, None) => {
                let params = match wire.params {
                    Some(params) if params.get().starts_with('[') => params.to_owned(),
                    // Lua writes an empty list as an empty object
                    None => raw(&[(); 0]),
                    Some(params) if params.get() == "{}" => raw(&[(); 0]),
                    Some(_) => return Err(bad("\"params\" is not a list")),
                };
                Ok(match wire.id {
                    Some(id) => Message::Call { id, method, params },
                    None => Message::Notification { method, params },
                })
            }
            (None, Some(result), None) => Ok(Message::Answer {
                id: wire.id.ok_or_else(|| bad("an answer without \"id\""))?,
                result: result.to_owned(),
            }),
            (None, None, Some(error)) => Ok(Message::Failure {
                id: wire.id,
                code: error.code,
                message: error.message,
            }),
            _ => Err(bad("neither a request nor an answer")),
        }
    }
}

/// Reads the messages of a frame, of which at most `bytes_max` bytes may come out of the
/// compression. A message of a batch that is none stands for itself.
///
/// # Errors
/// Nothing of the frame can be used; an empty batch is such a frame.
pub fn decode(frame: &[u8], bytes_max: usize) -> Result<Vec<Result<Message, RpcError>>, RpcError> {
    let text = decompress(frame, bytes_max)?;
    let batch = text.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    if !batch {
        return Ok(vec![Ok(Message::from_json(&text)?)]);
    }
    let all: Vec<&RawValue> =
        serde_json::from_slice(&text).map_err(|error| RpcError::Json(error.to_string()))?;
    if all.is_empty() || all.len() > BATCH_MAX {
        return Err(RpcError::Message(format!("a batch of {}", all.len())));
    }
    let one = |raw: &&RawValue| Message::from_json(raw.get().as_bytes());
    Ok(all.iter().map(one).collect())
}

/// A raw snappy block.
pub fn compress(text: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new()
        .compress_vec(text)
        .expect("a text below 4 GiB can be compressed")
}

/// What is in a raw snappy block, of at most `bytes_max` bytes.
///
/// # Errors
/// It is none, or larger.
pub fn decompress(frame: &[u8], bytes_max: usize) -> Result<Vec<u8>, RpcError> {
    let snappy = |error: snap::Error| RpcError::Snappy(error.to_string());
    // said by the peer, so it is looked at before anything is set aside
    if snap::raw::decompress_len(frame).map_err(snappy)? > bytes_max {
        return Err(RpcError::TooLarge { bytes_max });
    }
    snap::raw::Decoder::new()
        .decompress_vec(frame)
        .map_err(snappy)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn same(message: &Message) {
        let frame = message.encode();
        let read = decode(&frame, 1 << 20).unwrap();
        let [Ok(read)] = read.as_slice() else {
            panic!("{read:?}");
        };
        assert_eq!(format!("{read:?}"), format!("{message:?}"));
    }

    #[test]
    fn what_is_written_is_read() {
        let params = raw(&json!([{"default": {"version": "v"}}]));
        let method = "kong.sync.v2.get_delta".to_owned();
        same(&Message::Call {
            id: 7,
            method: method.clone(),
            params: params.clone(),
        });
        same(&Message::Notification { method, params });
        same(&Message::Answer {
            id: 0,
            result: raw(&json!(true)),
        });
        same(&Message::Failure {
            id: None,
            code: code::PARSE,
            message: "no".to_owned(),
        });
    }

    #[track_caller]
    fn refused(text: &str, expected: i64) {
        let read = decode(&compress(text.as_bytes()), 1 << 20);
        assert_eq!(read.unwrap_err().code(), expected, "{text}");
    }

    #[test]
    fn what_is_no_message_gets_the_code_of_the_specification() {
        refused("{", code::PARSE);
        refused("[]", code::INVALID_REQUEST);
        refused("7", code::INVALID_REQUEST);
        refused(
            r#"{"jsonrpc":"1.0","method":"m","params":[]}"#,
            code::INVALID_REQUEST,
        );
        refused(
            r#"{"jsonrpc":"2.0","method":"m","params":7}"#,
            code::INVALID_REQUEST,
        );
        refused(
            r#"{"jsonrpc":"2.0","method":"m","result":1}"#,
            code::INVALID_REQUEST,
        );
        refused(r#"{"jsonrpc":"2.0","result":1}"#, code::INVALID_REQUEST);
        assert_eq!(
            decode(b"\xff\xff\xff\xff\xff\xff", 10).unwrap_err().code(),
            code::PARSE
        );
    }

    #[test]
    fn a_batch_keeps_what_is_good_in_it() {
        let text = br#"[{"jsonrpc":"2.0","method":"a"},{"nothing":1},{"jsonrpc":"2.0","id":3,"method":"b","params":{}}]"#;
        let read = decode(&compress(text), 1 << 20).unwrap();
        assert!(matches!(&read[0], Ok(Message::Notification { method, .. }) if method == "a"));
        assert!(read[1].is_err());
        assert!(
            matches!(&read[2], Ok(Message::Call { id: 3, params, .. }) if params.get() == "[]")
        );
    }

    #[test]
    fn a_bomb_is_seen_before_it_goes_off() {
        let bomb = compress(&vec![b' '; 1 << 20]);
        assert!(bomb.len() < 1 << 17);
        assert_eq!(
            decode(&bomb, 1 << 16).unwrap_err(),
            RpcError::TooLarge { bytes_max: 1 << 16 }
        );
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            _ = decode(&bytes, 1 << 16);
            _ = decode(&compress(&bytes), 1 << 16);
            _ = Message::from_json(&bytes);
        }
    }
}
