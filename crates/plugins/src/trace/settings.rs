//! The record `propagation`, and the older fields beside it.

use http::HeaderName;
use sallyport_model::schema::{Field, Record, each};
use serde::Deserialize;
use serde_json::json;

use super::Format;
use crate::CompileError;
use crate::checks::header_name;

/// Formats as `extract` names them.
const EXTRACTED: &[&str] = &[
    "w3c", "b3", "jaeger", "ot", "datadog", "aws", "gcp", "instana",
];
const INJECTED: &[&str] = &[
    "preserve",
    "w3c",
    "b3",
    "b3-single",
    "jaeger",
    "ot",
    "datadog",
    "aws",
    "gcp",
    "instana",
];
const HEADER_TYPES: &[&str] = &[
    "preserve",
    "ignore",
    "b3",
    "b3-single",
    "w3c",
    "jaeger",
    "ot",
    "aws",
    "datadog",
    "gcp",
    "instana",
];

/// The field `propagation`.
pub(crate) fn propagation_field(default_format: &'static str) -> Field {
    let record = Record::new([
        Field::array("extract", each::string().one_of(EXTRACTED))
            .about("Formats to look for in requests; the first that is found counts."),
        Field::array("clear", each::string().check(header_name))
            .about("Headers that requests lose before they go upstream."),
        Field::array("inject", each::string().one_of(INJECTED))
            .about("Formats to write upstream; `preserve` is the one that was found."),
        Field::string("default_format")
            .required()
            .default(json!(default_format))
            .one_of(&Format::NAMES)
            .about("What `preserve` means for a request without a trace."),
    ]);
    Field::record("propagation", record)
        .required()
        .about("Without `extract`, `clear` and `inject`, `header_type` counts.")
}

/// The field `header_type`.
pub(crate) fn header_type() -> Field {
    Field::string("header_type")
        .default(json!("preserve"))
        .one_of(HEADER_TYPES)
        .about("The older form of `propagation`: `preserve` looks for all formats and goes on in the one found.")
}

/// The field `default_header_type`.
pub(crate) fn default_header_type() -> Field {
    Field::string("default_header_type")
        .required()
        .default(json!("b3"))
        .one_of(&HEADER_TYPES[2..])
        .about("The older form of `propagation.default_format`.")
}

/// What a configuration says about trace headers.
#[derive(Deserialize)]
pub(crate) struct TraceHeaders {
    #[serde(default)]
    propagation: Config,
    header_type: Option<String>,
    default_header_type: Option<String>,
}

#[derive(Default, Deserialize)]
struct Config {
    extract: Option<Vec<String>>,
    clear: Option<Vec<String>>,
    inject: Option<Vec<String>>,
    default_format: Option<String>,
}

/// Which trace headers are read, removed and written.
#[derive(Debug, PartialEq)]
pub(crate) struct Propagation {
    pub(super) extract: Vec<Format>,
    pub(super) clear: Vec<HeaderName>,
    /// `None`: the format that was found.
    pub(super) inject: Vec<Option<Format>>,
    pub(super) default_format: Format,
}

impl TraceHeaders {
    /// Source: `get_plugin_params` of Kong's propagation.
    pub(crate) fn propagation(self) -> Result<Propagation, CompileError> {
        let format = |name: &str| {
            let found = Format::named(name);
            found.ok_or_else(|| CompileError::value(format!("trace format {name:?} is unknown")))
        };
        let Config {
            extract,
            clear,
            inject,
            default_format,
        } = self.propagation;
        let default = default_format.as_deref().unwrap_or("w3c");
        if extract.is_some() || clear.is_some() || inject.is_some() {
            let inject = inject.unwrap_or_default();
            let clear = clear.unwrap_or_default();
            let clear = clear.iter().map(|name| name.parse());
            return Ok(Propagation {
                extract: extract
                    .unwrap_or_default()
                    .iter()
                    .map(|name| format(name))
                    .collect::<Result<_, _>>()?,
                clear: clear
                    .collect::<Result<_, _>>()
                    .map_err(CompileError::value)?,
                inject: inject
                    .iter()
                    .map(|name| match name.as_str() {
                        "preserve" => Ok(None),
                        name => format(name).map(Some),
                    })
                    .collect::<Result<_, _>>()?,
                default_format: format(default)?,
            });
        }
        let default_format = format(self.default_header_type.as_deref().unwrap_or(default))?;
        let (extract, inject) = match self.header_type.as_deref() {
            None => (vec![], vec![]),
            Some("preserve") => (Format::EXTRACTED.to_vec(), vec![None]),
            Some("ignore") => (vec![], vec![Some(default_format)]),
            Some(name) => (Format::EXTRACTED.to_vec(), vec![None, Some(format(name)?)]),
        };
        Ok(Propagation {
            extract,
            clear: vec![],
            inject,
            default_format,
        })
    }
}
