//! Requests and ids that outlive their frames.

use sallyport_wire::rate_limit::{Id, Method, Request};

/// Bytes of an id that need no memory of their own; limitd's clients use up to 16.
const INLINE: usize = 22;

/// An id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::rate_limit) enum OwnedId {
    Short { bytes: [u8; INLINE], length: u8 },
    Long(Box<[u8]>),
    Number(i32),
}

impl From<Id<'_>> for OwnedId {
    fn from(id: Id<'_>) -> OwnedId {
        match id {
            Id::Number(number) => OwnedId::Number(number),
            Id::Text(text) if text.len() <= INLINE => {
                let mut bytes = [0; INLINE];
                bytes[..text.len()].copy_from_slice(text);
                let length = text.len() as u8;
                OwnedId::Short { bytes, length }
            }
            Id::Text(text) => OwnedId::Long(text.into()),
        }
    }
}

impl OwnedId {
    pub(in crate::rate_limit) fn get(&self) -> Id<'_> {
        match self {
            OwnedId::Short { bytes, length } => Id::Text(&bytes[..usize::from(*length)]),
            OwnedId::Long(text) => Id::Text(text),
            OwnedId::Number(number) => Id::Number(*number),
        }
    }
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::rate_limit) struct OwnedRequest {
    pub(in crate::rate_limit) id: OwnedId,
    /// Bucket type, key and windows, one after the other.
    names: Box<[u8]>,
    bucket_bytes: usize,
    windows_bytes: usize,
    method: Method,
    count: Option<i32>,
    all: bool,
    skip_response: bool,
}

impl From<&Request<'_>> for OwnedRequest {
    fn from(request: &Request<'_>) -> OwnedRequest {
        OwnedRequest {
            id: request.id.into(),
            names: [request.bucket, request.key, request.windows]
                .concat()
                .into(),
            bucket_bytes: request.bucket.len(),
            windows_bytes: request.windows.len(),
            method: request.method,
            count: request.count,
            all: request.all,
            skip_response: request.skip_response,
        }
    }
}

impl OwnedRequest {
    pub(in crate::rate_limit) fn get(&self) -> Request<'_> {
        let (bucket, rest) = self.names.split_at(self.bucket_bytes);
        let (key, windows) = rest.split_at(rest.len() - self.windows_bytes);
        Request {
            id: self.id.get(),
            bucket,
            key,
            method: self.method,
            count: self.count,
            all: self.all,
            skip_response: self.skip_response,
            lease: 0,
            windows,
        }
    }
}
