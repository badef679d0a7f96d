//! `healthcheck`: what load balancers and monitoring ask on port 9110.
//!
//! Everything is computed here from what the node knows and probes itself, so that it answers
//! without the database too, which is when it is needed. [`checks`] are the questions, [`pulse`]
//! asks the cheap ones each second for `/testall`, [`samples`] keeps one answer a minute, [`http`]
//! serves.

mod checks;
mod http;
mod limit;
mod machine;
mod metrics;
mod outside;
mod pulse;
mod samples;
mod tls;

pub use checks::{Answer, Check, Verdict};
pub(crate) use http::serve;
pub(crate) use pulse::pulse;
pub(crate) use samples::sample;
pub(crate) use tls::Secured;
