//! What a client is told.

use super::{Id, MessageError, Period, frame};
use crate::protobuf::{self, Fields};

const ID: u32 = 1;
const ID_NUMBER: u32 = 20;
const ERROR: u32 = 100;
const TAKE: u32 = 101;
const PUT: u32 = 102;
const STATUS: u32 = 103;
const PONG: u32 = 104;
const GET: u32 = 105;
const LEASED: u32 = 200;
const REFUSED_MS: u32 = 201;
const COUNTED: u32 = 202;
/// Within the answer to COUNT, after one field for each period.
const REFUSED_BY: u32 = 7;

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// No bucket type has this name.
    UnknownBucketType = 1,
    /// To COUNT: who counts the key cannot be reached. Ours.
    Unreachable = 2,
}

/// How full a bucket is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// Whole tokens in it, 0..=`limit`.
    pub remaining: u32,
    /// The Unix second at which it will be full; 0 if nothing but a PUT fills it.
    pub reset: u64,
    /// Tokens it can hold.
    pub limit: u32,
}

/// The answer to TAKE and WAIT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Whether the tokens were taken.
    pub conformant: bool,
    /// Whether they had to be waited for.
    pub delayed: bool,
    /// The bucket afterwards.
    pub level: Level,
}

/// One bucket in the answer to STATUS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its key.
    pub key: Vec<u8>,
    /// How full it is.
    pub level: Level,
}

/// The answer to COUNT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// What was counted before in the window of each period, in the order of [`Period::ALL`].
    pub used: [u64; Period::ALL.len()],
    /// The shortest full window, if there is one; then nothing was counted.
    pub refused_by: Option<Period>,
}

/// What a response says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// The request failed.
    Error(ErrorKind),
    /// To TAKE and WAIT.
    Take(Taken),
    /// To PUT: the bucket afterwards.
    Put(Level),
    /// To STATUS: buckets in the order of their keys.
    Status(Vec<Item>),
    /// To PING.
    Pong {
        /// The protocol version the server speaks; 0 where it does not say.
        version: u32,
    },
    /// To GET.
    Get(Level),
    /// To COUNT.
    Count(Counted),
}

/// What nodes tell each other beyond the protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Extra {
    /// Tokens debited ahead for the asking node, beyond those asked for.
    pub leased: u32,
    /// After a refusal: so many milliseconds the same TAKE will go on being refused, unless
    /// somebody puts tokens back.
    pub refused_ms: u32,
}

/// One response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response<'a> {
    /// The request's.
    pub id: Id<'a>,
    /// What it says.
    pub body: Body,
    /// Between nodes only; all zero otherwise.
    pub extra: Extra,
}

impl<'a> Response<'a> {
    /// A response as clients get it.
    pub fn new(id: Id<'a>, body: Body) -> Response<'a> {
        let extra = Extra::default();
        Response { id, body, extra }
    }

    /// Appends the whole frame.
    ///
    /// Fields are written also when they are zero: limitd-client 1.x calls them required, and
    /// takes a response without one for none. Only `delayed` is left out when it is false.
    #[inline]
    pub fn encode(&self, out: &mut Vec<u8>) {
        frame::put(out, |out| {
            match self.id {
                Id::Text(text) => protobuf::bytes(out, ID, text),
                Id::Number(number) => protobuf::int32(out, ID_NUMBER, number),
            }
            match &self.body {
                Body::Error(kind) => protobuf::message(out, ERROR, |out| {
                    protobuf::number(out, 1, *kind as u64);
                }),
                Body::Take(taken) => protobuf::message(out, TAKE, |out| {
                    protobuf::number(out, 1, u64::from(taken.conformant));
                    if taken.delayed {
                        protobuf::number(out, 2, 1);
                    }
                    level(out, 3, taken.level);
                }),
                Body::Put(of) => protobuf::message(out, PUT, |out| level(out, 1, *of)),
                Body::Get(of) => protobuf::message(out, GET, |out| level(out, 1, *of)),
                Body::Status(items) => protobuf::message(out, STATUS, |out| {
                    for item in items {
                        protobuf::message(out, 1, |out| {
                            protobuf::bytes(out, 1, &item.key);
                            level(out, 2, item.level);
                        });
                    }
                }),
                Body::Count(of) => protobuf::message(out, COUNTED, |out| {
                    for (field, used) in (1..).zip(of.used) {
                        protobuf::number(out, field, used);
                    }
                    if let Some(period) = of.refused_by {
                        protobuf::number(out, REFUSED_BY, 1 + period as u64);
                    }
                }),
                Body::Pong { version } => protobuf::message(out, PONG, |out| {
                    if *version > 0 {
                        protobuf::number(out, 1, u64::from(*version));
                    }
                }),
            }
            for (field, value) in [
                (LEASED, self.extra.leased),
                (REFUSED_MS, self.extra.refused_ms),
            ] {
                if value > 0 {
                    protobuf::number(out, field, u64::from(value));
                }
            }
        });
    }

    /// Reads the body of a frame. Absent numbers are zero; of several bodies the last one counts.
    ///
    /// # Errors
    /// Not a response.
    pub fn decode(frame: &'a [u8]) -> Result<Response<'a>, MessageError> {
        let (mut id, mut body, mut extra) = (Id::Text(b""), None, Extra::default());
        let mut fields = Fields(frame);
        while let Some((field, value)) = fields.next()? {
            match field {
                ID => id = Id::Text(value.bytes(field)?),
                ID_NUMBER => id = Id::Number(value.int32(field)?),
                ERROR => body = Some(Body::Error(error(value.bytes(field)?)?)),
                TAKE => body = Some(Body::Take(taken(value.bytes(field)?)?)),
                PUT => body = Some(Body::Put(item(value.bytes(field)?, 1)?.level)),
                GET => body = Some(Body::Get(item(value.bytes(field)?, 1)?.level)),
                STATUS => body = Some(Body::Status(items(value.bytes(field)?)?)),
                COUNTED => body = Some(Body::Count(counted(value.bytes(field)?)?)),
                PONG => body = Some(pong(value.bytes(field)?)?),
                LEASED => extra.leased = value.varint(field)? as u32,
                REFUSED_MS => extra.refused_ms = value.varint(field)? as u32,
                _ => {}
            }
        }
        let body = body.ok_or(MessageError::NoBody)?;
        Ok(Response { id, body, extra })
    }
}

/// A level's three fields from number `first` on.
fn level(out: &mut Vec<u8>, first: u32, level: Level) {
    protobuf::number(out, first, u64::from(level.remaining));
    protobuf::number(out, first + 1, level.reset);
    protobuf::number(out, first + 2, u64::from(level.limit));
}

fn error(body: &[u8]) -> Result<ErrorKind, MessageError> {
    let mut kind = 0;
    let mut fields = Fields(body);
    while let Some((field, value)) = fields.next()? {
        if field == 1 {
            kind = value.int32(field)?;
        }
    }
    match kind {
        1 => Ok(ErrorKind::UnknownBucketType),
        2 => Ok(ErrorKind::Unreachable),
        _ => Err(MessageError::NoBody),
    }
}

fn taken(body: &[u8]) -> Result<Taken, MessageError> {
    let mut taken = Taken {
        level: item(body, 3)?.level,
        ..Taken::default()
    };
    let mut fields = Fields(body);
    while let Some((field, value)) = fields.next()? {
        match field {
            1 => taken.conformant = value.varint(field)? != 0,
            2 => taken.delayed = value.varint(field)? != 0,
            _ => {}
        }
    }
    Ok(taken)
}

/// A level from field `first` on, and what field 1 holds if the level comes after it as a key.
fn item(body: &[u8], first: u32) -> Result<Item, MessageError> {
    let (mut key, mut level) = (Vec::new(), Level::default());
    let mut fields = Fields(body);
    while let Some((field, value)) = fields.next()? {
        match field.wrapping_sub(first) {
            0 => level.remaining = value.varint(field)? as u32,
            1 => level.reset = value.varint(field)?,
            2 => level.limit = value.varint(field)? as u32,
            _ if field == 1 && first == 2 => key = value.bytes(field)?.to_vec(),
            _ => {}
        }
    }
    Ok(Item { key, level })
}

fn items(body: &[u8]) -> Result<Vec<Item>, MessageError> {
    let mut items = Vec::new();
    let mut fields = Fields(body);
    while let Some((field, value)) = fields.next()? {
        if field == 1 {
            items.push(item(value.bytes(field)?, 2)?);
        }
    }
    Ok(items)
}

fn counted(body: &[u8]) -> Result<Counted, MessageError> {
    let mut counted = Counted::default();
    let mut fields = Fields(body);
    while let Some((field, value)) = fields.next()? {
        let number = value.varint(field)?;
        match field {
            1..REFUSED_BY => counted.used[field as usize - 1] = number,
            REFUSED_BY => {
                let at = usize::try_from(number).unwrap_or(0).checked_sub(1);
                counted.refused_by = at.and_then(|at| Period::ALL.get(at).copied());
            }
            _ => {}
        }
    }
    Ok(counted)
}

fn pong(body: &[u8]) -> Result<Body, MessageError> {
    let mut version = 0;
    let mut fields = Fields(body);
    while let Some((field, value)) = fields.next()? {
        if field == 1 {
            version = value.varint(field)? as u32;
        }
    }
    Ok(Body::Pong { version })
}
