//! Calls: requests to gRPC services, over HTTP/2 connections that many calls share.
//!
//! A call is driven inside the request's own task, as any request. Only what outlives the head of
//! its response, the rest of a client's stream, goes on in a task of its own, which the response
//! holds and ends; and each connection has one task, which its pool holds.

mod call;
mod connections;
mod send;

pub(crate) use call::Call;
pub(super) use call::{Asked, start};
use connections::Chosen;
pub(crate) use connections::Connections;
