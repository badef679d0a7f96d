//! Expressions of routes: `http.host == "a.example" && http.path ^= "/v1"`.
//!
//! Grammar and types are those of Kong's own engine, the crate `atc-router`, which parses and
//! checks; what comes out is a tree of ours, whose fields and values are typed, so that whoever
//! evaluates it checks nothing again. `||` binds tighter than `&&`. Source: data-plane
//! reference 4.4.

mod convert;
mod scan;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use http::HeaderName;
use ipnet::IpNet;
use regex::Regex;

use scan::Scan;

/// Bytes of text that one expression may have.
pub const TEXT_BYTES_MAX: usize = 64 * 1024;
/// How deep parentheses may nest: the parser recurses.
pub const DEPTH_MAX: usize = 64;
/// `&&` and `||` in one expression.
pub const OPERATORS_MAX: usize = 2_000;
/// Bytes of compiled program that one regex may take.
pub const REGEX_BYTES_MAX: usize = 1 << 20;

/// Which traffic an expression is about: it decides which fields there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subsystem {
    /// Requests: every field.
    Http,
    /// TCP, TLS and UDP: `net.*` and `tls.sni`.
    Stream,
}

/// A condition on a request or on a connection.
#[derive(Clone, Debug)]
pub enum Expression {
    /// Every part holds; tried from left to right until one does not.
    All(Vec<Expression>),
    /// Some part holds; tried from left to right until one does.
    Any(Vec<Expression>),
    /// The part does not hold.
    Not(Box<Expression>),
    /// One comparison.
    Test(Test),
}

/// One comparison: a field with a value.
#[derive(Clone, Debug)]
pub struct Test {
    /// What is looked at. Without a value no comparison holds, not even `!=`.
    pub field: Field,
    /// Whether text is turned into lower case first.
    pub lower: bool,
    /// Whether one of several values is enough; otherwise all must pass.
    pub any: bool,
    /// What must hold; its type is that of the field.
    pub check: Check,
}

/// What a comparison looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// `net.protocol`: `http`, `https`, `tcp`, `tls` or `udp`.
    Protocol,
    /// `tls.sni`
    Sni,
    /// `http.method`
    Method,
    /// `http.host`, lower case and without port.
    Host,
    /// `http.path`, normalised.
    Path,
    /// `http.path.segments.<first>[_<last>]`, counted from 0, both ends included.
    Segments {
        /// The first segment.
        first: usize,
        /// The last segment, larger than the first unless there is one only.
        last: usize,
    },
    /// `http.path.segments.len`
    SegmentCount,
    /// `http.headers.<name>`; several values.
    Header(HeaderField),
    /// `http.queries.<name>`; several values.
    Query(String),
    /// `net.src.ip`
    SourceIp,
    /// `net.src.port`
    SourcePort,
    /// `net.dst.ip`
    DestinationIp,
    /// `net.dst.port`, and its old name `net.port`.
    DestinationPort,
}

/// The spellings of a header in the order they are looked up: with underscores, then with
/// dashes, as in Kong, where a field name cannot hold a dash. All lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderField {
    /// As in `x_tenant`.
    pub underscored: HeaderName,
    /// As in `x-tenant`; `None` if it is the same.
    pub dashed: Option<HeaderName>,
}

impl HeaderField {
    /// The header of this name, in any spelling; `None` if it is no name.
    pub fn new(name: &str) -> Option<HeaderField> {
        let underscored = name.to_ascii_lowercase().replace('-', "_");
        let dashed = underscored.replace('_', "-");
        let parse = |name: &str| HeaderName::from_bytes(name.as_bytes()).ok();
        Some(HeaderField {
            dashed: match dashed == underscored {
                true => None,
                false => Some(parse(&dashed)?),
            },
            underscored: parse(&underscored)?,
        })
    }
}

/// What must hold for a value.
#[derive(Clone, Debug)]
pub enum Check {
    /// `==`, `!=`, `^=`, `=^`, `contains` with a text.
    Text(TextOperator, String),
    /// `~`: matches anywhere.
    Regex(Regex),
    /// A comparison of numbers.
    Number(NumberOperator, i64),
    /// `==`, or `!=` if not wanted.
    Address(bool, IpAddr),
    /// `in`, or `not in` if not wanted.
    Network(bool, IpNet),
}

/// How texts are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the operators")]
pub enum TextOperator {
    Equal,
    NotEqual,
    Prefix,
    Suffix,
    Contains,
}

/// How numbers are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the operators")]
pub enum NumberOperator {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

/// Why a text is no expression, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpressionError {
    /// Line and column, counted from 1; `None` if it is about the whole.
    pub at: Option<(usize, usize)>,
    /// What is wrong there.
    pub message: String,
}

impl std::fmt::Display for ExpressionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.at {
            Some((line, column)) => write!(f, "line {line}, column {column}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for ExpressionError {}

impl Expression {
    /// Reads an expression.
    ///
    /// # Errors
    /// What is wrong with it and where: grammar, an unknown field, types that do not go together, a
    /// regex that cannot be used, or one of the bounds of this module.
    pub fn parse(text: &str, subsystem: Subsystem) -> Result<Expression, ExpressionError> {
        // before the parser sees it: it recurses, and knows no bounds
        let scan = Scan::new(text)?;
        let parsed =
            atc_router::parser::parse(text).map_err(|error| grammar(&error.to_string()))?;
        convert::convert(parsed, subsystem, &scan)
    }
}

/// What the parser says: ` --> line:column`, the text, a mark, and `= message` in the last lines.
fn grammar(shown: &str) -> ExpressionError {
    let position = shown.lines().next().and_then(|line| {
        let (line, column) = line.trim().strip_prefix("--> ")?.split_once(':')?;
        Some((line.parse().ok()?, column.parse().ok()?))
    });
    let message = shown
        .split_once("\n  = ")
        .map_or(shown, |(_, message)| message);
    let last = message
        .lines()
        .map(str::trim)
        .rfind(|line| !line.is_empty());
    let message = last.unwrap_or(message);
    ExpressionError {
        at: position,
        message: message
            .strip_prefix("error: ")
            .unwrap_or(message)
            .to_owned(),
    }
}
