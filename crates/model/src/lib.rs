//! Entities of a gateway configuration: what they are, what is valid, what is default.
//!
//! Pure: no socket, file, clock or dice. [`schema`] is the one table that stored values, API
//! answers and schema documents come from; [`entities`] are the typed values a gateway runs.

pub mod entities;
pub mod kind;
pub mod schema;

pub use kind::Kind;
