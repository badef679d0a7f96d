//! The PROXY protocol, versions 1 and 2: how a load balancer says for whom it connects.
//!
//! Source: the specification by HAProxy (`doc/proxy-protocol.txt`); the bound on a header and what
//! is done with headers that name no addresses are nginx's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest header that is read, bytes. A version 2 header with more extensions is refused.
pub const HEADER_BYTES_MAX: usize = 4096;
/// Longest line of version 1, bytes, its end included.
const LINE_BYTES_MAX: usize = 107;
/// How version 1 begins.
const LINE_START: &[u8] = b"PROXY ";
/// How version 2 begins.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of a version 2 header before its addresses.
const FIXED_BYTES: usize = 16;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// The connection stands for itself: a health check, or a client whose address is not known.
    Local,
    /// It is made for a client.
    Proxied {
        /// Where the client is.
        source: SocketAddr,
        /// What the client connected to.
        destination: SocketAddr,
    },
}

/// Why bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyProtocolError {
    /// They begin in another way.
    #[error("the connection does not begin with a PROXY protocol header")]
    Missing,
    /// They begin as a header does and go on in another way.
    #[error("the PROXY protocol header is malformed: {0}")]
    Malformed(&'static str),
    /// It is longer than it may be.
    #[error("the PROXY protocol header is longer than {0} bytes")]
    TooLong(usize),
}

use ProxyProtocolError::{Malformed, Missing, TooLong};

/// Reads the header at the start of `bytes`, and how long it is. `None` while it is incomplete:
/// then all of `bytes` belong to it.
///
/// # Errors
/// See [`ProxyProtocolError`]; more bytes would not change it.
pub fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, ProxyProtocolError> {
    let starts = |with: &[u8]| {
        let length = with.len().min(bytes.len());
        bytes[..length] == with[..length]
    };
    match (starts(LINE_START), starts(SIGNATURE)) {
        (true, _) if bytes.len() >= LINE_START.len() => version_1(bytes),
        (_, true) if bytes.len() >= SIGNATURE.len() => version_2(bytes),
        (false, false) => Err(Missing),
        _ => Ok(None),
    }
}

fn version_1(bytes: &[u8]) -> Result<Option<(Header, usize)>, ProxyProtocolError> {
    let line = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    let Some(end) = line.iter().position(|byte| *byte == b'\n') else {
        return match bytes.len() < LINE_BYTES_MAX {
            true => Ok(None),
            false => Err(TooLong(LINE_BYTES_MAX)),
        };
    };
    let line = line[..end]
        .strip_suffix(b"\r")
        .ok_or(Malformed("the line ends without a carriage return"))?;
    let line = std::str::from_utf8(line).map_err(|_| Malformed("the line is not text"))?;
    let mut words = line.split(' ').skip(1);
    let header = match words.next() {
        // whatever follows is to be ignored
        Some("UNKNOWN") => Header::Local,
        Some("TCP4") => pair::<Ipv4Addr>(words)?,
        Some("TCP6") => pair::<Ipv6Addr>(words)?,
        _ => return Err(Malformed("neither TCP4, TCP6 nor UNKNOWN follows PROXY")),
    };
    Ok(Some((header, end + 1)))
}

/// Source, destination and their ports.
fn pair<'a, A: std::str::FromStr + Into<IpAddr>>(
    mut words: impl Iterator<Item = &'a str>,
) -> Result<Header, ProxyProtocolError> {
    let mut address = || {
        let word = words.next().unwrap_or_default();
        let parsed = word.parse::<A>().map(Into::into);
        parsed.map_err(|_| Malformed("an address cannot be read"))
    };
    let (source, destination) = (address()?, address()?);
    let mut port = || {
        let word = words.next().unwrap_or_default();
        let digits = word.bytes().all(|byte| byte.is_ascii_digit());
        let parsed = word.parse::<u16>().ok().filter(|_| digits);
        parsed.ok_or(Malformed("a port cannot be read"))
    };
    let (from, to) = (port()?, port()?);
    match words.next() {
        Some(_) => Err(Malformed("something follows the ports")),
        None => Ok(Header::Proxied {
            source: SocketAddr::new(source, from),
            destination: SocketAddr::new(destination, to),
        }),
    }
}

fn version_2(bytes: &[u8]) -> Result<Option<(Header, usize)>, ProxyProtocolError> {
    if let Some(version) = bytes.get(12)
        && version >> 4 != 2
    {
        return Err(Malformed("the version is not 2"));
    }
    if let Some(command) = bytes.get(12)
        && command & 15 > 1
    {
        return Err(Malformed("the command is neither LOCAL nor PROXY"));
    }
    let Some(fixed) = bytes.get(..FIXED_BYTES) else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    let total = FIXED_BYTES + length;
    if total > HEADER_BYTES_MAX {
        return Err(TooLong(HEADER_BYTES_MAX));
    }
    let Some(rest) = bytes.get(FIXED_BYTES..total) else {
        return Ok(None);
    };
    let too_short = Malformed("it is too short for the addresses it announces");
    let is_local = fixed[12] & 15 == 0;
    let header = match fixed[13] {
        _ if is_local => Header::Local,
        // TCP over IPv4 and over IPv6
        0x11 => {
            let (addresses, _) = rest.split_first_chunk::<12>().ok_or(too_short)?;
            let [a, b, c, d, e, f, g, h, ports @ ..] = *addresses;
            proxied(
                Ipv4Addr::new(a, b, c, d).into(),
                Ipv4Addr::new(e, f, g, h).into(),
                ports,
            )
        }
        0x21 => {
            let (source, more) = rest.split_first_chunk::<16>().ok_or(too_short)?;
            let (destination, more) = more.split_first_chunk::<16>().ok_or(too_short)?;
            let (ports, _) = more.split_first_chunk::<4>().ok_or(too_short)?;
            proxied(
                Ipv6Addr::from(*source).into(),
                Ipv6Addr::from(*destination).into(),
                *ports,
            )
        }
        // sockets of the system, datagrams, or nothing that is known
        _ => Header::Local,
    };
    Ok(Some((header, total)))
}

fn proxied(source: IpAddr, destination: IpAddr, ports: [u8; 4]) -> Header {
    let [a, b, c, d] = ports;
    Header::Proxied {
        source: SocketAddr::new(source, u16::from_be_bytes([a, b])),
        destination: SocketAddr::new(destination, u16::from_be_bytes([c, d])),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(source: &str, destination: &str) -> Header {
        Header::Proxied {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        }
    }

    fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, family], &length, rest].concat()
    }

    #[track_caller]
    fn check(bytes: &[u8], expected: Result<Header, ProxyProtocolError>) {
        let more = [bytes, b"GET / HTTP/1.1\r\n"].concat();
        assert_eq!(
            parse(&more),
            expected.map(|header| Some((header, bytes.len())))
        );
        if expected.is_ok() {
            for cut in 0..bytes.len() {
                assert_eq!(parse(&bytes[..cut]), Ok(None), "{cut}");
            }
        }
    }

    #[test]
    fn lines() {
        let four = told("192.0.2.1:56324", "198.51.100.7:443");
        check(b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n", Ok(four));
        let six = told("[2001:db8::1]:1", "[::1]:65535");
        check(b"PROXY TCP6 2001:db8::1 ::1 1 65535\r\n", Ok(six));
        check(b"PROXY UNKNOWN\r\n", Ok(Header::Local));
        check(b"PROXY UNKNOWN ffff:f 1 2 x\r\n", Ok(Header::Local));
        for bad in [
            "PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 56324\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 56324 443 1\r\n",
            "PROXY TCP4  192.0.2.1 198.51.100.7 56324 443\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 56324 65536\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 +1 443\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
            "PROXY \r\n",
            "PROXY TCP4 \u{e9}\r\n",
        ] {
            let read = parse(bad.as_bytes());
            assert!(matches!(read, Err(Malformed(_))), "{bad:?}: {read:?}");
        }
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
        assert_eq!(parse(long.as_bytes()), Err(TooLong(LINE_BYTES_MAX)));
    }

    #[test]
    fn other_beginnings() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"\x16\x03\x01",
            b"PROXX ",
            b"\r\n\r\n\r\n",
            b"x",
        ] {
            assert_eq!(parse(bytes), Err(Missing));
        }
        assert_eq!(parse(b""), Ok(None));
    }

    #[test]
    fn binary_headers() {
        let four = [192, 0, 2, 1, 198, 51, 100, 7, 220, 4, 1, 187];
        let header = told("192.0.2.1:56324", "198.51.100.7:443");
        check(&binary(0x21, 0x11, &four), Ok(header));
        // extensions follow, which nobody asked for
        let extended = [&four[..], &[3, 0, 4, 1, 2, 3, 4]].concat();
        check(&binary(0x21, 0x11, &extended), Ok(header));
        let mut six = vec![0; 36];
        (six[15], six[31], six[33], six[35]) = (1, 2, 3, 4);
        check(&binary(0x21, 0x21, &six), Ok(told("[::1]:3", "[::2]:4")));
        // a health check; datagrams; sockets of the system; nothing known
        for (command, family) in [
            (0x20, 0x11),
            (0x21, 0x12),
            (0x21, 0x31),
            (0x21, 0),
            (0x20, 0),
        ] {
            check(&binary(command, family, &four), Ok(Header::Local));
        }
        check(&binary(0x20, 0, &[]), Ok(Header::Local));
        let read = |command, family, rest: &[u8]| parse(&binary(command, family, rest));
        assert!(matches!(read(0x11, 0x11, &four), Err(Malformed(_))));
        assert!(matches!(read(0x22, 0x11, &four), Err(Malformed(_))));
        assert!(matches!(read(0x21, 0x11, &four[..11]), Err(Malformed(_))));
        assert!(matches!(read(0x21, 0x21, &six[..35]), Err(Malformed(_))));
        assert_eq!(read(0x21, 0x11, &[0; 5000]), Err(TooLong(HEADER_BYTES_MAX)));
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes: Vec<u8>, start in 0..3usize) {
            let start: &[u8] = [&b""[..], LINE_START, SIGNATURE][start];
            let bytes = [start, &bytes].concat();
            if let Ok(Some((_, length))) = parse(&bytes) {
                prop_assert!(length <= bytes.len() && length <= HEADER_BYTES_MAX);
                prop_assert_eq!(parse(&bytes[..length - 1]), Ok(None));
            }
        }
    }
}
