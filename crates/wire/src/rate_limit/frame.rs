//! Where one message ends and the next begins.

/// Bytes that a request may have; keys are addresses, names and e-mail addresses.
pub const REQUEST_BYTES_MAX: usize = 16 * 1024;
/// Bytes that a response may have: a STATUS answers with up to 100 keys.
pub const RESPONSE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The first message of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its bytes without the length; empty frames exist and mean nothing.
    pub body: &'a [u8],
    /// Bytes of length and body together, to be dropped from the buffer.
    pub bytes: usize,
}

/// No message can begin so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length has more than five bytes.
    #[error("the length of a message does not end within five bytes")]
    Length,
    /// The message is larger than allowed.
    #[error("a message of {bytes} bytes, at most {bytes_max} are allowed")]
    TooLarge {
        /// The length it announces.
        bytes: u64,
        /// The bound that was passed in.
        bytes_max: usize,
    },
}

/// The first message in `buffer`; `None` until all of it is there.
///
/// # Errors
/// The length is none, or above `bytes_max`: known as soon as the length is there.
pub fn split(buffer: &[u8], bytes_max: usize) -> Result<Option<Frame<'_>>, FrameError> {
    let mut length = 0_u64;
    for at in 0..5 {
        let Some(byte) = buffer.get(at) else {
            return Ok(None);
        };
        length |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 != 0 {
            continue;
        }
        let too_large = FrameError::TooLarge {
            bytes: length,
            bytes_max,
        };
        let length = usize::try_from(length).map_err(|_| too_large)?;
        if length > bytes_max {
            return Err(too_large);
        }
        let bytes = at + 1 + length;
        return Ok(buffer.get(at + 1..bytes).map(|body| Frame { body, bytes }));
    }
    Err(FrameError::Length)
}

/// Appends what `write` writes as one message.
pub(super) fn put(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    crate::protobuf::delimited(out, write);
}
