//! The query string with which a data plane opens `/v1/outlet`.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Kong does not encode at all; ids, host names and versions never need it. What could break
/// the request line is encoded here all the same.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':');

/// Who is dialling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutletQuery {
    /// UUID of the node, the same across restarts.
    pub node_id: String,
    /// Host name of the node; some clients leave it out.
    pub node_hostname: Option<String>,
    /// Kong version the node claims, such as `3.9.1`.
    pub node_version: String,
}

/// A query argument is missing; the control plane answers 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("query argument {argument:?} is missing")]
pub struct OutletError {
    /// Name of the argument.
    pub argument: &'static str,
}

impl OutletQuery {
    /// Reads the part after `?`: unknown arguments are ignored, the first of each name counts,
    /// percent-encoding is undone, and bytes that are not UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// `node_id` or `node_version` is missing or empty.
    pub fn parse(query: &str) -> Result<OutletQuery, OutletError> {
        let value = |name: &str| {
            query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .find(|(key, _)| *key == name)
                .map(|(_, value)| percent_decode_str(value).decode_utf8_lossy().into_owned())
                .filter(|value| !value.is_empty())
        };
        let required = |argument| value(argument).ok_or(OutletError { argument });
        Ok(OutletQuery {
            node_id: required("node_id")?,
            node_hostname: value("node_hostname"),
            node_version: required("node_version")?,
        })
    }

    /// Path and query of the request: `/v1/outlet?node_id=…&node_hostname=…&node_version=…`.
    pub fn path_and_query(&self) -> String {
        format!("{}?{self}", super::OUTLET_PATH)
    }
}

impl fmt::Display for OutletQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let encode = |text| utf8_percent_encode(text, PLAIN);
        write!(f, "node_id={}", encode(&self.node_id))?;
        if let Some(hostname) = &self.node_hostname {
            write!(f, "&node_hostname={}", encode(hostname))?;
        }
        write!(f, "&node_version={}", encode(&self.node_version))
    }
}
