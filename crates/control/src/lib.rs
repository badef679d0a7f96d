//! Role: the control plane. Its APIs, and the configuration it sends to data planes.
//!
//! One TLS listener serves everything. The server name of the handshake decides: names of
//! `config_sync` and `telemetry` belong to data planes, which must present a certificate that is
//! pinned to the control plane in the name; every other name is the API, guarded by tokens.
//!
//! Each folder is one feature; [`start`] puts them on the listener.

mod app;
mod arguments;
mod audit_log;
mod body;
mod bootstrap;
mod config_sync;
mod control_planes;
mod core_entities;
mod deck;
mod dp_certificates;
mod drafts;
mod enrolment;
mod fields;
mod identity;
mod ip_addresses;
mod kic;
mod limits;
mod listener;
mod metrics;
mod nodes;
mod openapi;
mod page;
mod post;
mod problem;
mod route;
mod snapshot;
mod start;
mod telemetry;
mod versions;

pub use audit_log::{
    AuditLogError, AuditLogSettings, CommandLog, ExportError, GivenCommand, export, public_key,
    verify_data, verify_export, verify_signature,
};
pub use bootstrap::{Bootstrap, BootstrapError, bootstrap};
pub use control_planes::host;
pub use core_entities::{ImportError, import};
pub use dp_certificates::{CertificateError, pin_certificate};
pub use ip_addresses::{
    Contribution, Contributor, Feed, FeedError, HistoryError, Seal, SourcesError,
    described as described_addresses,
};
pub use start::{
    AdminSettings, NODE_PURGE_DELAY, Running, Settings, StartError, start, start_publishing,
};
pub use telemetry::{TelemetryError, TelemetrySettings};

/// The version of Kong whose behaviour this control plane has; clients and data planes see it.
pub const KONG_VERSION: &str = "3.10.0";
