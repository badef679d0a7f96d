//! Every socket that this machine listens on for the product, against the contract.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use sallyport_contract::{Port, PortUse, Transport};

/// A listening socket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Socket {
    /// The port.
    pub port: PortUse,
    /// The address it is bound to.
    pub address: IpAddr,
    /// The process that holds it: id and executable.
    pub process: Option<(u32, String)>,
}

/// The system's tables could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path}: {source}")]
pub struct SurfaceError {
    /// The file.
    pub path: String,
    /// What the system said.
    pub source: io::Error,
}

/// Every listening TCP socket and unconnected UDP socket of this network namespace.
///
/// Processes of other users are only named for root.
///
/// # Errors
/// `/proc` cannot be read.
pub fn surface() -> Result<Vec<Socket>, SurfaceError> {
    sockets(&holders())
}

/// As [`surface`], without the processes, which takes no time worth counting.
///
/// # Errors
/// `/proc` cannot be read.
pub fn bound() -> Result<Vec<Socket>, SurfaceError> {
    sockets(&BTreeMap::new())
}

fn sockets(holders: &BTreeMap<u64, (u32, String)>) -> Result<Vec<Socket>, SurfaceError> {
    let mut sockets = Vec::new();
    for (name, transport) in [
        ("tcp", Transport::Tcp),
        ("tcp6", Transport::Tcp),
        ("udp", Transport::Udp),
        ("udp6", Transport::Udp),
    ] {
        let path = format!("/proc/self/net/{name}");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound && name.ends_with('6') => {
                continue;
            }
            Err(source) => return Err(SurfaceError { path, source }),
        };
        for (address, port, inode) in text
            .lines()
            .skip(1)
            .filter_map(|it| listening(it, transport))
        {
            let process = holders.get(&inode).cloned();
            sockets.push(Socket {
                port,
                address,
                process,
            });
        }
    }
    sockets.sort();
    sockets.dedup();
    Ok(sockets)
}

/// Sockets open to the network whose port none of `known` is.
pub fn unknown<'a>(sockets: &'a [Socket], known: &[PortUse]) -> Vec<&'a Socket> {
    let open = sockets.iter().filter(|it| !it.address.is_loopback());
    open.filter(|it| !known.contains(&it.port)).collect()
}

/// One line of `/proc/net/{tcp,udp}{,6}`: address, port and inode, if it listens.
fn listening(line: &str, transport: Transport) -> Option<(IpAddr, PortUse, u64)> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let (local, _remote, state) = (words.next()?, words.next()?, words.next()?);
    // 0A: LISTEN; 07: a UDP socket that is not connected.
    let wanted = if transport == Transport::Tcp {
        "0A"
    } else {
        "07"
    };
    let inode = words.nth(5)?.parse().ok()?;
    let (address, port) = local.split_once(':')?;
    let port = Port::try_from(u16::from_str_radix(port, 16).ok()?).ok()?;
    let address = parse_address(address)?;
    (state == wanted).then_some((address, PortUse { port, transport }, inode))
}

/// Words of four bytes, each in the machine's order.
fn parse_address(text: &str) -> Option<IpAddr> {
    if !text.is_ascii() {
        return None;
    }
    let word = |at: usize| u32::from_str_radix(text.get(at..at + 8)?, 16).ok();
    match text.len() {
        8 => Some(Ipv4Addr::from(word(0)?.to_ne_bytes()).into()),
        32 => {
            let mut bytes = [0; 16];
            for (at, part) in bytes.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(at * 8)?.to_ne_bytes());
            }
            let address = Ipv6Addr::from(bytes);
            Some(address.to_ipv4_mapped().map_or(address.into(), IpAddr::V4))
        }
        _ => None,
    }
}

/// Socket inode to process, as far as this user may look.
fn holders() -> BTreeMap<u64, (u32, String)> {
    let mut holders = BTreeMap::new();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes {
        let Some(pid) = process
            .file_name()
            .to_str()
            .and_then(|it| it.parse::<u32>().ok())
        else {
            continue;
        };
        let exe = fs::read_link(process.path().join("exe"));
        let exe = exe
            .ok()
            .as_deref()
            .and_then(Path::file_name)
            .map(|it| it.to_string_lossy().into_owned());
        let Some(exe) = exe else { continue };
        let files = fs::read_dir(process.path().join("fd"))
            .into_iter()
            .flatten()
            .flatten();
        for target in files.filter_map(|file| fs::read_link(file.path()).ok()) {
            let text = target.to_string_lossy();
            let inode = text
                .strip_prefix("socket:[")
                .and_then(|it| it.strip_suffix(']'));
            if let Some(inode) = inode.and_then(|it| it.parse().ok()) {
                holders.insert(inode, (pid, exe.clone()));
            }
        }
    }
    holders
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_lines_of_the_kernel() {
        let line = "   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000 0 12345 1";
        let got = listening(line, Transport::Tcp).unwrap();
        assert_eq!(
            got,
            (
                "127.0.0.1".parse().unwrap(),
                "8000/tcp".parse().unwrap(),
                12345
            )
        );
        assert_eq!(
            listening(&line.replace(" 0A ", " 01 "), Transport::Tcp),
            None
        );
        let v6 = line.replace("0100007F", "00000000000000000000000001000000");
        assert_eq!(
            listening(&v6, Transport::Tcp).unwrap().0,
            "::1".parse::<IpAddr>().unwrap()
        );
    }

    #[test]
    fn finds_its_own_listener_and_calls_it_unknown() {
        let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let sockets = surface().unwrap();
        let own = sockets
            .iter()
            .find(|it| it.port.port.get() == port)
            .unwrap();
        assert_eq!(
            own.process.as_ref().map(|it| it.0),
            Some(std::process::id())
        );
        assert!(unknown(&sockets, &[]).contains(&own));
        assert!(!unknown(&sockets, &[own.port]).contains(&own));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn hostile_lines_never_panic(line in "\\PC{0,120}|( [0-9A-Fé]{8,32}:[0-9A-F]{4}){2} 0A .{0,40}") {
            let _ = listening(&line, Transport::Tcp);
        }
    }
}
