//! The proxy path: listeners on every core, requests, upstream connections.

mod body;
mod calls;
mod clock;
mod connection;
mod fault;
mod flight;
mod forward;
mod grpc;
mod headers;
pub(crate) mod http1;
mod http2;
mod later;
mod listeners;
#[cfg(test)]
mod log_tests;
mod options;
mod pool;
mod proxy_header;
mod reply;
mod request_ids;
mod serve;
mod session;
mod silence;
mod spare;
pub(crate) mod stream;
mod tally;
#[cfg(test)]
pub(crate) mod testing;
mod tunnel;
mod upstream;
mod worker;

pub(crate) use listeners::{Bound, Speaks, open};
pub(crate) use options::{Options, Via};
pub(crate) use stream::Streams;
pub(crate) use worker::{Shared, Workers};
