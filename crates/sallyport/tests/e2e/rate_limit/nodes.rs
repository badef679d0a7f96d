//! Three nodes with certificates of one authority, and what lies between them.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::spawn;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use sallyport_appliance::rate_limit::owner_of;
use sallyport_testkit::free_ports;

use super::lab::Limiter;
use crate::lab::{soon, write};

pub(super) const NAMES: [&str; 3] = ["a", "b", "c"];

/// Three running nodes that know each other.
pub(super) struct Nodes {
    pub(super) limiters: Vec<Limiter>,
    /// What node `from` dials to reach node `to`.
    relays: Vec<((usize, usize), Relay)>,
    _dir: tempfile::TempDir,
}

impl Nodes {
    /// Starts them and waits until each has reached the others. Nodes wait for each other for so
    /// long that a slow machine does not look like a silent node.
    pub(super) fn start(buckets: &str) -> Nodes {
        Nodes::patient(buckets, 10_000)
    }

    /// As [`Nodes::start`]; nodes wait so many milliseconds for each other's answers.
    pub(super) fn patient(buckets: &str, answer_ms: u32) -> Nodes {
        let dir = tempfile::tempdir().unwrap();
        certificates(dir.path(), &NAMES);
        let ports = free_ports::<3>();
        let mut relays = Vec::new();
        for from in 0..3 {
            for to in (0..3).filter(|to| *to != from) {
                let target = SocketAddr::from(([127, 0, 0, 1], ports[to]));
                relays.push(((from, to), Relay::start(target)));
            }
        }
        let mut limiters = Vec::new();
        for (from, name) in NAMES.iter().enumerate() {
            let mut text =
                format!("cluster:\n  answer_ms: {answer_ms}\n  node: {name}\n  nodes:\n");
            for (to, other) in NAMES.iter().enumerate() {
                let relay = relays.iter().find(|(ends, _)| *ends == (from, to));
                let port = relay.map_or(ports[from], |(_, relay)| relay.port);
                text += &format!("    {other}: 127.0.0.1:{port}\n");
            }
            text += &format!("  ca: ca.crt\n  certificate: {name}.crt\n  key: {name}.key\n");
            text += buckets;
            let listen = format!("127.0.0.1:{}", ports[from]);
            let file = format!("{name}.yml");
            limiters.push(Limiter::start_in(dir.path(), &file, &text, &listen));
        }
        let nodes = Nodes {
            limiters,
            relays,
            _dir: dir,
        };
        for from in 0..3 {
            for to in (0..3).filter(|to| *to != from) {
                nodes.wait_reached(from, 0, to);
            }
        }
        nodes
    }

    /// Waits until a node has reached another, passing over its first lines.
    pub(super) fn wait_reached(&self, from: usize, lines: usize, to: usize) {
        let pattern = format!("node reached node=\"{}\"", NAMES[to]);
        let program = &self.limiters[from].program;
        program.wait_for_line_after(lines, &pattern, soon());
    }

    /// Cuts or mends what lies between a node and the others, in both directions.
    pub(super) fn set_open(&self, node: usize, open: bool) {
        for ((from, to), relay) in &self.relays {
            if *from == node || *to == node {
                relay.set_open(open);
            }
        }
    }
}

/// The node that a key belongs to.
pub(super) fn owner(bucket: &str, key: &str) -> usize {
    let owner = owner_of(&NAMES, bucket.as_bytes(), key.as_bytes()).unwrap();
    NAMES.iter().position(|name| *name == owner).unwrap()
}

/// An authority, and a certificate of it for each name, for both ends of a connection.
pub(super) fn certificates(dir: &Path, names: &[&str]) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&key).unwrap();
    write(&dir.join("ca.crt"), ca.pem());
    let issuer = Issuer::new(params, key);
    for name in names {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![(*name).to_owned()]).unwrap();
        let cert = params.signed_by(&key, &issuer).unwrap();
        write(&dir.join(format!("{name}.crt")), cert.pem());
        write(&dir.join(format!("{name}.key")), key.serialize_pem());
    }
}

/// A wire that can be cut.
struct Relay {
    port: u16,
    open: Arc<AtomicBool>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl Relay {
    fn start(target: SocketAddr) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = Relay {
            port: listener.local_addr().unwrap().port(),
            open: Arc::new(AtomicBool::new(true)),
            streams: Arc::default(),
        };
        let (open, streams) = (relay.open.clone(), relay.streams.clone());
        // It ends with the process of the tests, like what it waits for.
        spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = TcpStream::connect(target) else {
                    continue;
                };
                let mut known = streams.lock().unwrap();
                if !open.load(Ordering::SeqCst) {
                    continue;
                }
                for (from, to) in [(&near, &far), (&far, &near)] {
                    _ = from.set_nodelay(true);
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    known.push(from.try_clone().unwrap());
                    spawn(move || copy(from, to));
                }
            }
        });
        relay
    }

    fn set_open(&self, open: bool) {
        let mut streams = self.streams.lock().unwrap();
        self.open.store(open, Ordering::SeqCst);
        if !open {
            for stream in streams.drain(..) {
                _ = stream.shutdown(Shutdown::Both);
            }
        }
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let mut chunk = [0; 16 * 1024];
    while let Ok(read) = from.read(&mut chunk) {
        if read == 0 || to.write_all(&chunk[..read]).is_err() {
            break;
        }
    }
    for stream in [from, to] {
        _ = stream.shutdown(Shutdown::Both);
    }
}
