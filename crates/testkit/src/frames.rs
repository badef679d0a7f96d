//! HTTP/2 frame by frame, right or wrong, as a test wants it (RFC 9113, RFC 7541).

use std::io::{self, ErrorKind, Read, Write};

/// What a client says first.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Types of frames.
#[allow(missing_docs, reason = "the names are those of RFC 9113 section 6")]
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Flags of frames; `ACK` is that of SETTINGS and PING.
#[allow(missing_docs, reason = "the names are those of RFC 9113 section 6")]
pub mod flag {
    pub const ACK: u8 = 1;
    pub const END_STREAM: u8 = 1;
    pub const END_HEADERS: u8 = 4;
    pub const PADDED: u8 = 8;
    pub const PRIORITY: u8 = 0x20;
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its type, see [`kind`].
    pub kind: u8,
    /// Its flags, see [`flag`].
    pub flags: u8,
    /// Its stream; the reserved bit is the highest.
    pub stream: u32,
    /// What it carries.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A frame of these parts.
    pub fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Frame {
        Frame {
            kind,
            flags,
            stream,
            payload: payload.into(),
        }
    }

    /// As it goes over the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = head(self.payload.len(), self.kind, self.flags, self.stream);
        bytes.extend_from_slice(&self.payload);
        bytes
    }

    /// Whether a flag is set.
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The error code of a RST_STREAM or GOAWAY frame.
    pub fn code(&self) -> Option<u32> {
        let at = match self.kind {
            kind::RST_STREAM => 0,
            kind::GOAWAY => 4,
            _ => return None,
        };
        let code = self.payload.get(at..at + 4)?;
        Some(u32::from_be_bytes(code.try_into().ok()?))
    }
}

/// The head of a frame, whatever follows it.
pub fn head(length: usize, kind: u8, flags: u8, stream: u32) -> Vec<u8> {
    let mut bytes = (length as u32).to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes
}

/// Fields as a block of HPACK literals, without an index and without Huffman's code.
pub fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            let length = text.len();
            if length < 127 {
                block.push(length as u8);
            } else {
                block.push(127);
                let mut rest = length - 127;
                while rest >= 128 {
                    block.push((rest & 127) as u8 | 128);
                    rest >>= 7;
                }
                block.push(rest as u8);
            }
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// Settings as the payload of a SETTINGS frame.
pub fn settings(settings: &[(u16, u32)]) -> Vec<u8> {
    settings
        .iter()
        .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()[..]].concat())
        .collect()
}

/// What comes next on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// A frame.
    Frame(Frame),
    /// The peer closed it, or reset it.
    Closed,
    /// Nothing, for as long as the stream waits.
    Silent,
}

/// A client's connection, of which a test decides every byte.
pub struct Frames<S> {
    stream: S,
    /// What the server's first SETTINGS said.
    pub settings: Vec<(u16, u32)>,
}

impl<S: Read + Write> Frames<S> {
    /// An open stream on which nothing was said. It should have a read timeout.
    pub fn new(stream: S) -> Frames<S> {
        Frames {
            stream,
            settings: Vec::new(),
        }
    }

    /// The preface, and each side's settings.
    ///
    /// # Errors
    /// The server's first frame is something else.
    pub fn shake_hands(&mut self) -> io::Result<()> {
        self.bytes(PREFACE);
        self.send(kind::SETTINGS, 0, 0, settings(&[(4, 65_535)]));
        let Next::Frame(first) = self.next() else {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "no settings"));
        };
        if first.kind != kind::SETTINGS || first.has(flag::ACK) {
            let text = format!("the first frame is {first:?}");
            return Err(io::Error::new(ErrorKind::InvalidData, text));
        }
        let (chunks, _) = first.payload.as_chunks::<6>();
        self.settings = chunks
            .iter()
            .map(|&[a, b, c, d, e, f]| {
                (u16::from_be_bytes([a, b]), u32::from_be_bytes([c, d, e, f]))
            })
            .collect();
        self.send(kind::SETTINGS, flag::ACK, 0, []);
        loop {
            match self.next() {
                Next::Frame(frame) if frame.kind == kind::SETTINGS && frame.has(flag::ACK) => {
                    return Ok(());
                }
                Next::Frame(_) => {}
                other => return Err(io::Error::other(format!("{other:?} for an ACK"))),
            }
        }
    }

    /// What the server's settings said of this one.
    pub fn setting(&self, id: u16) -> Option<u32> {
        let mut found = self.settings.iter().filter(|(known, _)| *known == id);
        found.next_back().map(|(_, value)| *value)
    }

    /// Sends any bytes. A peer that does not take them shows it in what comes next.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.try_bytes(bytes);
    }

    /// As [`bytes`](Frames::bytes); whether the peer took them all.
    pub fn try_bytes(&mut self, bytes: &[u8]) -> bool {
        self.stream
            .write_all(bytes)
            .and_then(|()| self.stream.flush())
            .is_ok()
    }

    /// Sends a frame, as [`bytes`](Frames::bytes).
    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) {
        self.bytes(&Frame::new(kind, flags, stream, payload).to_bytes());
    }

    /// What comes next.
    #[allow(clippy::should_implement_trait, reason = "it never ends by itself")]
    pub fn next(&mut self) -> Next {
        self.read().unwrap_or_else(|error| match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Next::Silent,
            _ => Next::Closed,
        })
    }

    fn read(&mut self) -> io::Result<Next> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head)?;
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.stream.read_exact(&mut payload)?;
        let stream = u32::from_be_bytes(stream) & 0x7fff_ffff;
        Ok(Next::Frame(Frame::new(kind, flags, stream, payload)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_what_the_rfc_says() {
        let ping = Frame::new(kind::PING, flag::ACK, 0, [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(
            ping.to_bytes(),
            b"\0\0\x08\x06\x01\0\0\0\0\x01\x02\x03\x04\x05\x06\x07\x08"
        );
        let goaway = Frame::new(kind::GOAWAY, 0, 0, [0, 0, 0, 3, 0, 0, 0, 1]);
        assert_eq!(goaway.code(), Some(1));
        assert_eq!(fields(&[(":path", "/")]), b"\0\x05:path\x01/");
        let long = "a".repeat(300);
        assert_eq!(fields(&[("a", &long)])[..6], [0, 1, b'a', 127, 0xad, 1]);
        assert_eq!(settings(&[(4, 1)]), [0, 4, 0, 0, 0, 1]);
    }
}
