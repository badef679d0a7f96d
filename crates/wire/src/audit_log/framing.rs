//! Messages in a byte stream: RFC 6587 section 3.4, both ways of telling where one ends.

/// Digits that a length may have.
const LENGTH_DIGITS_MAX: usize = 9;

/// Cuts a byte stream into messages.
///
/// Each message says itself how it ends: one that begins with a digit from 1 to 9 is octet-counted
/// (`LENGTH SP MESSAGE`), any other ends at a line feed. Line ends and NULs between messages are
/// passed over.
#[derive(Debug)]
pub struct Framer {
    buffer: Vec<u8>,
    /// Bytes of `buffer` that were handed out already.
    used: usize,
    /// Bytes after `used` in which no line feed was found.
    searched: usize,
    bytes_max: usize,
}

/// Why a stream cannot be cut any further. The sender has to connect anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// A message is longer than allowed.
    #[error("a message is longer than {bytes_max} bytes")]
    TooLong {
        /// The bound.
        bytes_max: usize,
    },
    /// A length that is none.
    #[error("a message begins with a digit, but not with a length and a space")]
    Length,
}

impl Framer {
    /// For messages of up to `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Framer {
        Framer {
            buffer: Vec::new(),
            used: 0,
            searched: 0,
            bytes_max,
        }
    }

    /// Takes what came in.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.used > 0 {
            self.buffer.drain(..self.used);
            self.used = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether part of a message is waiting for its rest.
    pub fn is_inside(&self) -> bool {
        self.used < self.buffer.len()
    }

    /// The next whole message; `None` if more bytes are needed.
    ///
    /// # Errors
    /// See [`FramingError`]; every later call says the same.
    pub fn next_message(&mut self) -> Result<Option<Vec<u8>>, FramingError> {
        while let Some(b'\n' | b'\r' | 0) = self.buffer.get(self.used) {
            self.used += 1;
        }
        match self.buffer.get(self.used) {
            None => Ok(None),
            Some(b'1'..=b'9') => self.counted(),
            Some(_) => self.line(),
        }
    }

    /// What is left when the stream is over: a last line without its line feed.
    pub fn finish(&mut self) -> Option<Vec<u8>> {
        let rest = self.buffer.split_off(self.used.min(self.buffer.len()));
        self.buffer.clear();
        self.used = 0;
        let counted = rest.first().is_none_or(u8::is_ascii_digit);
        (!counted && rest.len() <= self.bytes_max).then_some(rest)
    }

    fn counted(&mut self) -> Result<Option<Vec<u8>>, FramingError> {
        let rest = &self.buffer[self.used..];
        let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits > LENGTH_DIGITS_MAX {
            return Err(FramingError::TooLong {
                bytes_max: self.bytes_max,
            });
        }
        match rest.get(digits) {
            None => return Ok(None),
            Some(b' ') => {}
            Some(_) => return Err(FramingError::Length),
        }
        let length = rest[..digits]
            .iter()
            .fold(0_usize, |sum, digit| sum * 10 + usize::from(digit - b'0'));
        if length > self.bytes_max {
            return Err(FramingError::TooLong {
                bytes_max: self.bytes_max,
            });
        }
        let Some(message) = rest.get(digits + 1..digits + 1 + length) else {
            return Ok(None);
        };
        let message = message.to_vec();
        self.used += digits + 1 + length;
        Ok(Some(message))
    }

    fn line(&mut self) -> Result<Option<Vec<u8>>, FramingError> {
        let rest = &self.buffer[self.used..];
        let from = self.searched.min(rest.len());
        let end = rest[from..].iter().position(|byte| *byte == b'\n');
        let length = end.map_or(rest.len(), |end| from + end);
        if length > self.bytes_max {
            return Err(FramingError::TooLong {
                bytes_max: self.bytes_max,
            });
        }
        if end.is_none() {
            self.searched = rest.len();
            return Ok(None);
        }
        self.searched = 0;
        let line = rest[..length].to_vec();
        self.used += length + 1;
        Ok(Some(line))
    }
}

/// A message with its length before it.
pub fn octet_counted(message: &[u8]) -> Vec<u8> {
    let mut frame = format!("{} ", message.len()).into_bytes();
    frame.extend_from_slice(message);
    frame
}
