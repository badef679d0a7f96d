//! Kong's hybrid protocol, both ends: what crosses `/v1/outlet`, and `/v2/outlet` ([`rpc`], [`delta`]).
//!
//! A data plane dials `GET /v1/outlet?`[`OutletQuery`] over mutual TLS and upgrades to a
//! WebSocket. Its first frame is binary JSON, [`BasicInfo`], due within [`HELLO_SECS_MAX`]. The
//! control plane answers with one unfragmented binary frame per configuration, [`Reconfigure`].
//! From then on the data plane sends a PING whose payload is the [`ConfigHash`] in force: at
//! once, every [`PING_INTERVAL_SECS`] and after each apply. The control plane answers with an
//! empty PONG. Either side drops a link that was silent for [`SILENCE_SECS_MAX`].

pub mod basic_info;
pub mod compat;
pub mod delta;
pub mod digest;
pub mod edits;
pub mod error_report;
pub mod kong_deltas;
mod lua_list;
pub mod outlet;
pub mod reconfigure;
pub mod rpc;
pub mod snapshot;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

pub use basic_info::{BasicInfo, PluginVersion};
pub use compat::{KongVersion, PluginProblem, SyncStatus, VersionProblem};
pub use error_report::ErrorReport;
pub use outlet::{OutletError, OutletQuery};
pub use reconfigure::{FrameWriter, Reconfigure, gzip_json, is_empty_config};

use crate::config_hash::{ConfigHash, ConfigHashError};

/// Path of the endpoint.
pub const OUTLET_PATH: &str = "/v1/outlet";
/// Server name a data plane asks for when both sides share one certificate.
pub const SHARED_SERVER_NAME: &str = "kong_clustering";
/// Seconds within which [`BasicInfo`] must arrive, and for each connect and write.
pub const HELLO_SECS_MAX: u64 = 5;
/// Seconds between two heartbeats of a data plane.
pub const PING_INTERVAL_SECS: u64 = 30;
/// Seconds without any frame after which either side drops the link.
pub const SILENCE_SECS_MAX: u64 = 45;
/// Seconds a data plane waits before it dials again: uniform in this range, never growing.
pub const RECONNECT_SECS: std::ops::RangeInclusive<u64> = 5..=10;

/// Why a frame could not be understood.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The gzip wrapper is broken or cut short.
    #[error("the frame is not a whole gzip stream: {0}")]
    Gzip(String),
    /// More bytes came out of the gzip stream than allowed.
    #[error("the configuration is larger than {bytes_max} bytes when decompressed")]
    TooLarge {
        /// The bound that was passed in.
        bytes_max: usize,
    },
    /// The text is not JSON.
    #[error("the frame is not JSON: {0}")]
    Json(String),
    /// The JSON has another `type` than expected. Kong ignores such a frame.
    #[error("the frame has type {found:?} where {wanted:?} was expected")]
    OtherType {
        /// What was expected.
        wanted: &'static str,
        /// What `type` says; empty if there is none.
        found: String,
    },
    /// A field is missing or has the wrong shape.
    #[error("field {field:?} of the frame {problem}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

/// The configuration hash in the payload of a data plane's PING.
///
/// # Errors
/// Any length other than 32; a control plane then drops the link, as Kong's does.
pub fn ping_hash(payload: &[u8]) -> Result<ConfigHash, ConfigHashError> {
    ConfigHash::try_from(payload)
}

/// A binary frame of a data plane, uncompressed JSON.
#[derive(Clone, Debug, PartialEq)]
pub enum FromDataPlane {
    /// The first frame.
    BasicInfo(Box<BasicInfo>),
    /// A configuration was refused, or entities of it.
    Error(Box<ErrorReport>),
    /// A type this build does not know; to be ignored.
    Other {
        /// What `type` says; empty if there is none.
        kind: String,
    },
}

impl FromDataPlane {
    /// Reads a frame by its `type`.
    ///
    /// # Errors
    /// Bytes that are not a JSON object, or a known type with a malformed field.
    pub fn decode(frame: &[u8]) -> Result<FromDataPlane, FrameError> {
        let object = object(frame)?;
        match kind(&object) {
            basic_info::TYPE => BasicInfo::from_object(object)
                .map(Box::new)
                .map(FromDataPlane::BasicInfo),
            error_report::TYPE => ErrorReport::from_object(object)
                .map(Box::new)
                .map(FromDataPlane::Error),
            other => Ok(FromDataPlane::Other {
                kind: other.to_owned(),
            }),
        }
    }
}

fn object(text: &[u8]) -> Result<Map<String, Value>, FrameError> {
    serde_json::from_slice(text).map_err(|error| FrameError::Json(error.to_string()))
}

fn kind(object: &Map<String, Value>) -> &str {
    object
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn expect_kind(object: &Map<String, Value>, wanted: &'static str) -> Result<(), FrameError> {
    match kind(object) {
        found if found == wanted => Ok(()),
        found => Err(FrameError::OtherType {
            wanted,
            found: found.to_owned(),
        }),
    }
}
