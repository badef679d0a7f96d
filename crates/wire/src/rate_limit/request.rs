//! What a client asks.

use super::{Id, MessageError, frame};
use crate::protobuf::{self, Fields};

const ID: u32 = 1;
const BUCKET: u32 = 2;
const KEY: u32 = 3;
const METHOD: u32 = 4;
const COUNT: u32 = 5;
const ALL: u32 = 6;
const SKIP_RESPONSE: u32 = 7;
const ID_NUMBER: u32 = 20;
const LEASE: u32 = 100;
const WINDOWS: u32 = 101;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// Takes tokens if they are there.
    Take = 0,
    /// Takes tokens as soon as they are there.
    Wait = 1,
    /// Puts tokens back, or fills the bucket.
    Put = 2,
    /// Lists buckets by the start of their keys.
    Status = 3,
    /// Asks for a sign of life and the protocol version.
    Ping = 4,
    /// Looks at a bucket.
    Get = 5,
    /// Counts one more in calendar windows, unless one of them is full. Ours, for gateways.
    Count = 100,
}

impl Method {
    /// All methods, in the order of their numbers.
    pub const ALL: [Method; 7] = [
        Method::Take,
        Method::Wait,
        Method::Put,
        Method::Status,
        Method::Ping,
        Method::Get,
        Method::Count,
    ];
}

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// Comes back in the response.
    pub id: Id<'a>,
    /// Name of the bucket type (`type` in the protocol).
    pub bucket: &'a [u8],
    /// Which bucket of the type; for STATUS how its key begins.
    pub key: &'a [u8],
    /// What to do.
    pub method: Method,
    /// How many tokens; what its absence means depends on the method.
    pub count: Option<i32>,
    /// For PUT: fill the bucket.
    pub all: bool,
    /// No answer is wanted.
    pub skip_response: bool,
    /// Between nodes: for TAKE, so many tokens more are debited ahead if they are there; 0 from
    /// others.
    pub lease: u32,
    /// For COUNT: the [`Windows`](super::Windows), encoded; empty otherwise.
    pub windows: &'a [u8],
}

impl<'a> Request<'a> {
    /// Reads the body of a frame. Of a field that comes twice the last one counts, also between
    /// the two forms of the id; unknown fields are skipped.
    ///
    /// # Errors
    /// Not a request; the server then closes the connection.
    pub fn decode(body: &'a [u8]) -> Result<Request<'a>, MessageError> {
        let mut request = Request {
            id: Id::Text(b""),
            bucket: b"",
            key: b"",
            method: Method::Take,
            count: None,
            all: false,
            skip_response: false,
            lease: 0,
            windows: b"",
        };
        let mut method = None;
        let mut fields = Fields(body);
        while let Some((field, value)) = fields.next()? {
            match field {
                ID => request.id = Id::Text(value.bytes(field)?),
                ID_NUMBER => request.id = Id::Number(value.int32(field)?),
                BUCKET => request.bucket = value.bytes(field)?,
                KEY => request.key = value.bytes(field)?,
                METHOD => method = Some(value.int32(field)?),
                COUNT => request.count = Some(value.int32(field)?),
                ALL => request.all = value.varint(field)? != 0,
                SKIP_RESPONSE => request.skip_response = value.varint(field)? != 0,
                LEASE => request.lease = value.varint(field)? as u32,
                WINDOWS => request.windows = value.bytes(field)?,
                _ => {}
            }
        }
        let number = method.ok_or(MessageError::NoMethod)?;
        let known = Method::ALL.iter().find(|it| **it as i32 == number);
        request.method = *known.ok_or(MessageError::UnknownMethod(number))?;
        Ok(request)
    }

    /// Appends the whole frame, in the order and with the fields that the clients write.
    pub fn encode(&self, out: &mut Vec<u8>) {
        frame::put(out, |out| {
            match self.id {
                Id::Text(text) => protobuf::bytes(out, ID, text),
                Id::Number(number) => protobuf::int32(out, ID_NUMBER, number),
            }
            protobuf::bytes(out, BUCKET, self.bucket);
            protobuf::bytes(out, KEY, self.key);
            protobuf::number(out, METHOD, self.method as u64);
            if let Some(count) = self.count {
                protobuf::int32(out, COUNT, count);
            }
            for (field, set) in [(ALL, self.all), (SKIP_RESPONSE, self.skip_response)] {
                if set {
                    protobuf::number(out, field, 1);
                }
            }
            if self.lease > 0 {
                protobuf::number(out, LEASE, u64::from(self.lease));
            }
            if !self.windows.is_empty() {
                protobuf::bytes(out, WINDOWS, self.windows);
            }
        });
    }
}
