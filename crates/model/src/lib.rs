//! Entities of a gateway configuration: what they are, what is valid, what is default.
//!
//! Pure: no socket, file, clock or dice. [`schema`] is the one table that stored values, API
//! answers and schema documents come from; [`declarative`] is whole configurations as documents;
//! [`entities`] are the typed values a gateway runs; [`expression`] is the language of routes.

pub mod balancing;
pub mod basic_auth;
pub mod certificate;
pub mod config_table;
pub mod declarative;
pub mod entities;
pub mod expression;
pub mod kind;
pub mod public_key;
mod router_flavor;
pub mod schema;

pub use config_table::to_config_table;
pub use kind::Kind;
pub use router_flavor::RouterFlavor;
