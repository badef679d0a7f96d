//! Frames: a length, a kind, a payload.

/// The largest frame of all, kind and payload.
pub const FRAME_BYTES_MAX: usize = 1 << 20;
/// The largest frame that a node takes: a request.
pub const REQUEST_BYTES_MAX: usize = 64 << 10;
/// Bytes of the length.
const LENGTH_BYTES: usize = 4;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`super::Request`], from the client.
    Request,
    /// [`super::Reply`], the end of an answer.
    Reply,
    /// [`super::Progress`].
    Progress,
    /// Bytes of a file.
    Data,
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Kind::Request => 1,
            Kind::Reply => 2,
            Kind::Progress => 3,
            Kind::Data => 4,
        }
    }

    fn of(byte: u8) -> Option<Kind> {
        [Kind::Request, Kind::Reply, Kind::Progress, Kind::Data]
            .into_iter()
            .find(|kind| kind.byte() == byte)
    }
}

/// A frame at the beginning of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'b> {
    /// What it holds.
    pub kind: Kind,
    /// Its content.
    pub payload: &'b [u8],
    /// Bytes of the whole frame.
    pub bytes: usize,
}

/// Bytes that are no frame; what follows cannot be read either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Its length is 0.
    #[error("a frame is empty")]
    Empty,
    /// It is longer than what is taken.
    #[error("a frame of {found} bytes is longer than {max}")]
    TooLong {
        /// Its length.
        found: u32,
        /// The longest that is taken.
        max: usize,
    },
    /// It is of no known kind.
    #[error("a frame is of the unknown kind {0}")]
    Kind(u8),
}

/// The first frame of `bytes`; `None` if not all of it is there yet.
///
/// # Errors
/// See [`FrameError`]; it is noticed as soon as it can be, before the payload has come.
pub fn split(bytes: &[u8], max: usize) -> Result<Option<Frame<'_>>, FrameError> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let found = u32::from_be_bytes(*length);
    let length = usize::try_from(found).unwrap_or(usize::MAX);
    if length == 0 {
        return Err(FrameError::Empty);
    }
    if length > max {
        return Err(FrameError::TooLong { found, max });
    }
    let Some(kind) = rest.first() else {
        return Ok(None);
    };
    let kind = Kind::of(*kind).ok_or(FrameError::Kind(*kind))?;
    let payload = rest.get(1..length);
    Ok(payload.map(|payload| Frame {
        kind,
        payload,
        bytes: LENGTH_BYTES + length,
    }))
}

/// Adds a frame to `out`.
///
/// # Panics
/// The payload is as long as [`FRAME_BYTES_MAX`] or longer.
pub fn write(kind: Kind, payload: &[u8], out: &mut Vec<u8>) {
    assert!(
        payload.len() < FRAME_BYTES_MAX,
        "a frame is cut before it is written"
    );
    let length = u32::try_from(payload.len() + 1).expect("bounded above");
    out.extend_from_slice(&length.to_be_bytes());
    out.push(kind.byte());
    out.extend_from_slice(payload);
}
