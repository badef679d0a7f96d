//! The proxy path: listeners on every core, requests, upstream connections.

mod body;
mod clock;
mod forward;
mod headers;
pub(crate) mod http1;
mod http2;
mod later;
mod listeners;
mod options;
mod pool;
mod reply;
mod serve;
mod silence;
mod tunnel;
mod upstream;
mod worker;

pub(crate) use listeners::{Bound, open};
pub(crate) use options::{Options, Via};
pub(crate) use worker::{Shared, Workers};
