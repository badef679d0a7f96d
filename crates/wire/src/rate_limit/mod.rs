//! The limitd protocol: what crosses the rate-limiting port, in both directions.
//!
//! A message is an unsigned LEB128 length and so many bytes of protobuf; see [`frame`]. There is
//! no handshake. A client chooses an id for each [`Request`] and gets one [`Response`] with it,
//! in any order. Names, keys and ids are bytes: JavaScript clients write lone surrogates, which are
//! not UTF-8.
//!
//! Source: limitd/protocol v2.1.1 `messages/*.proto`; what the server 7.0.2 was seen to send.
//! Between nodes of ours the same messages carry three fields more ([`Request::lease`] and
//! [`Extra`]), which everybody else skips as unknown. [`Method::Count`] is ours as well: it counts in
//! calendar windows ([`window`]) for gateways, and no client of limitd uses it.

pub mod frame;
pub mod request;
pub mod response;
#[cfg(test)]
mod tests;
pub mod window;

use crate::protobuf::ProtobufError;

pub use frame::{Frame, FrameError, split};
pub use request::{Method, Request};
pub use response::{Body, Counted, ErrorKind, Extra, Item, Level, Response, Taken};
pub use window::{Period, Window, Windows};

/// What connects a response to its request, in the form the client chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Id<'a> {
    /// Field 1: any bytes, empty if the client gave none.
    Text(&'a [u8]),
    /// Field 20.
    Number(i32),
}

/// The body of a frame is not a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// It is no message of protobuf, or a field is not what it must be.
    #[error(transparent)]
    Protobuf(#[from] ProtobufError),
    /// A request without a method. Source: the server 7.0.2 closes the connection.
    #[error("the request names no method")]
    NoMethod,
    /// A request with a method that this protocol does not have.
    #[error("the request has method {0}, which does not exist")]
    UnknownMethod(i32),
    /// A response without a body, or with an error code that does not exist.
    #[error("the response says nothing that is known")]
    NoBody,
}
