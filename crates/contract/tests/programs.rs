//! Generated rules, given to the programs that they are for.
//!
//! A program that is not there is announced and skipped; with `SALLYPORT_TEST_NO_SKIP=1` that fails.

mod fixture;

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use fixture::node;
use sallyport_contract::render::firewall::{Format, firewall};
use sallyport_contract::{Flow, Packet, Side, catalogue};

/// Whether everything is there that `test` needs.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn have(test: &str, needs: &[(&str, &str)]) -> bool {
    let mut missing: Vec<String> = Vec::new();
    for (program, package) in needs {
        let found = Command::new("sh")
            .args(["-c", &format!("command -v {program}")])
            .output();
        if !found.is_ok_and(|output| output.status.success()) {
            missing.push(format!("{program} (Debian package {package})"));
        }
    }
    let namespace = Command::new("unshare").args(["-n", "true"]).output();
    if !namespace.is_ok_and(|output| output.status.success()) {
        missing.push("the right to make network namespaces (root)".to_owned());
    }
    if missing.is_empty() {
        return true;
    }
    let text = format!("SKIPPED {test}: needs {}", missing.join(", "));
    assert!(
        std::env::var_os("SALLYPORT_TEST_NO_SKIP").is_none_or(|it| it != "1"),
        "{text}"
    );
    eprintln!("{text}");
    false
}

/// Runs a program with `input`; its output if it succeeded.
#[track_caller]
fn run(program: &str, args: &[&str], input: &str) -> String {
    let mut command = Command::new(program);
    command
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_owned();
    let writer = std::thread::spawn(move || {
        let _ = stdin.write_all(input.as_bytes()); // a program may stop reading early
    });
    let output = child.wait_with_output().expect("it was started");
    writer.join().expect("writing does not panic");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{program} {args:?}: {}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout) + &text(&output.stderr)
}

const NODES: [&str; 3] = ["edge", "node1", "node2"];

#[test]
fn nft_accepts_the_rules() {
    if !have("nft_accepts_the_rules", &[("nft", "nftables")]) {
        return;
    }
    for name in NODES {
        run(
            "unshare",
            &["-n", "nft", "-c", "-f", "-"],
            &firewall(&node(name), Format::Nftables),
        );
    }
    // Loading twice replaces the rules, and leaves one table.
    let text = firewall(&node("edge"), Format::Nftables);
    let script =
        "t=$(cat); for i in 1 2; do echo \"$t\" | nft -f - || exit 1; done; nft list tables";
    assert_eq!(
        run("unshare", &["-n", "sh", "-c", script], &text),
        "table inet sallyport\n"
    );
}

#[test]
fn iptables_accepts_the_rules() {
    let needs = [
        ("iptables-restore", "iptables"),
        ("ip6tables-restore", "iptables"),
    ];
    if !have("iptables_accepts_the_rules", &needs) {
        return;
    }
    for name in NODES {
        for (program, format) in [
            ("iptables-restore", Format::Iptables),
            ("ip6tables-restore", Format::Ip6tables),
        ] {
            run(
                "unshare",
                &["-n", program, "--test"],
                &firewall(&node(name), format),
            );
        }
    }
}

#[test]
fn firewalld_accepts_the_files() {
    if !have(
        "firewalld_accepts_the_files",
        &[("firewall-offline-cmd", "firewalld")],
    ) {
        return;
    }
    for name in NODES {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().to_str().expect("a plain path");
        let script = format!("FIREWALLD_DIR={path} sh -s");
        run(
            "sh",
            &["-c", &script],
            &firewall(&node(name), Format::Firewalld),
        );
        assert!(dir.path().join("zones/sallyport.xml").exists());
        let config = format!("--system-config={path}");
        run(
            "unshare",
            &["-n", "firewall-offline-cmd", &config, "--check-config"],
            "",
        );
        let listed = run(
            "unshare",
            &[
                "-n",
                "firewall-offline-cmd",
                &config,
                "--info-policy=sallyport-out",
            ],
            "",
        );
        assert!(
            listed.contains("ingress-zones: HOST") && listed.contains("target: DROP"),
            "{listed}"
        );
    }
}

#[test]
fn ufw_accepts_the_commands() {
    if !have("ufw_accepts_the_commands", &[("ufw", "ufw")]) {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    // Only the rules, and only as a dry run: nothing of this machine is changed.
    let only_allow = dir.path().join("ufw-dry");
    let script = "#!/bin/sh\n[ \"$1\" != allow ] || exec ufw --dry-run \"$@\"\n";
    fs::write(&only_allow, script).expect("a writable folder");
    run(
        "chmod",
        &["+x", only_allow.to_str().expect("a plain path")],
        "",
    );
    let set = format!("UFW={}", only_allow.display());
    for name in NODES {
        let text = firewall(&node(name), Format::Ufw);
        let printed = run("unshare", &["-n", "env", &set, "sh", "-s"], &text);
        assert!(printed.contains("### tuple ###"), "{printed}");
    }
}

#[test]
fn squid_accepts_the_file() {
    if !have(
        "squid_accepts_the_file",
        &[("squid", "squid"), ("ip", "iproute2")],
    ) {
        return;
    }
    for name in NODES {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("squid.conf");
        let text = format!(
            "http_port 127.0.0.1:3128\n{}",
            firewall(&node(name), Format::Squid)
        );
        fs::write(&path, text).expect("a writable folder");
        // squid looks whether IPv6 works on loopback before it reads IPv6 addresses.
        let script = format!("ip link set lo up && squid -k parse -f {}", path.display());
        let printed = run("unshare", &["-n", "sh", "-c", &script], "");
        assert!(
            !printed.contains("ERROR") && !printed.contains("WARNING"),
            "{printed}"
        );
    }
}

// ---- The full matrix, over real packets -----------------------------------------------------------

/// Machines of the matrix: fixture name (or none for the outside), and the last part of its address.
const MACHINES: [(&str, Option<&str>, u8); 4] = [
    ("edge", Some("edge"), 0x20),
    ("node1", Some("node1"), 0x11),
    ("node2", Some("node2"), 0x12),
    ("outside", None, 0x77),
];

/// IPv4 of a machine: the fixture writes the same digits in decimal.
fn v4(last: u8) -> String {
    format!("192.0.2.{last:x}")
}

fn v6(last: u8) -> String {
    format!("2001:db8::{last:x}")
}

/// Network namespaces joined by one bridge; gone when dropped.
struct Net(String);

impl Net {
    fn name(&self, machine: &str) -> String {
        format!("sp{}-{machine}", self.0)
    }

    fn new(tag: &str) -> Net {
        let net = Net(format!("{}{tag}", std::process::id()));
        let hub = net.name("hub");
        let mut script = format!(
            "set -e\nip netns add {hub}\nip -n {hub} link add br0 type bridge\nip -n {hub} link set br0 up\n"
        );
        for (machine, _, last) in MACHINES {
            let (ns, v4, v6) = (net.name(machine), v4(last), v6(last));
            // Refusals are the answers that the probes read, so their rate must not be limited.
            script.push_str(&format!(
                "ip netns add {ns}\nip -n {ns} link set lo up\n\
                 ip -n {hub} link add p-{machine} type veth peer name eth0 netns {ns}\n\
                 ip -n {hub} link set p-{machine} master br0 up\nip -n {ns} link set eth0 up\n\
                 ip -n {ns} addr add {v4}/24 dev eth0\nip -n {ns} addr add {v6}/64 dev eth0 nodad\n\
                 ip netns exec {ns} sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0\n"
            ));
        }
        run("sh", &["-s"], &script);
        net
    }

    fn exec(&self, machine: &str, program: &[&str], input: &str) -> String {
        let ns = self.name(machine);
        let args: Vec<&str> = ["netns", "exec", &ns]
            .into_iter()
            .chain(program.iter().copied())
            .collect();
        run("ip", &args, input)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for machine in MACHINES
            .map(|(machine, _, _)| machine)
            .into_iter()
            .chain(["hub"])
        {
            let _ = Command::new("ip")
                .args(["netns", "del", &self.name(machine)])
                .output();
        }
    }
}

/// Every port of the contract and two that it does not know, over both transports, and ICMP.
fn flows() -> BTreeSet<Flow> {
    let mut flows = BTreeSet::from([Flow::IcmpEcho]);
    let ports = catalogue()
        .entries
        .iter()
        .flat_map(|entry| &entry.ports)
        .map(|it| it.port.get());
    for port in ports.chain([1, 65_535]) {
        for transport in ["tcp", "udp"] {
            flows.insert(Flow::try_from(format!("{port}/{transport}")).expect("a flow"));
        }
    }
    flows
}

/// Not a test of its own: what the matrix runs inside a namespace. Prints every pair that got an
/// answer; nobody listens, so the answer of an open path is a refusal.
#[test]
fn probe() {
    let Ok(targets) = std::env::var("SALLYPORT_TEST_PROBE") else {
        return;
    };
    let mut probes = Vec::new();
    for target in targets.split(' ') {
        let target: IpAddr = target.parse().expect("an address");
        for flow in flows() {
            probes.push(std::thread::spawn(move || {
                (target, flow, answers(target, flow))
            }));
        }
    }
    for probe in probes {
        let (target, flow, answered) = probe.join().expect("a probe does not panic");
        if answered {
            println!("ANSWERED {target} {flow}");
        }
    }
}

fn answers(target: IpAddr, flow: Flow) -> bool {
    let Flow::Port(port) = flow else {
        let target = target.to_string();
        let ping = Command::new("ping")
            .args(["-n", "-c", "2", "-W", "2", "-i", "0.3", &target])
            .output();
        return ping.expect("ping was found before").status.success();
    };
    let address = SocketAddr::new(target, port.port.get());
    if port.transport.as_str() == "tcp" {
        // Longer than the kernel's first repetition of a lost packet.
        return match TcpStream::connect_timeout(&address, Duration::from_millis(2500)) {
            Ok(_) => true,
            Err(error) => error.kind() == ErrorKind::ConnectionRefused,
        };
    }
    let any = if target.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let socket = UdpSocket::bind(any).expect("a free port");
    socket
        .set_read_timeout(Some(Duration::from_millis(800)))
        .expect("above zero");
    socket.connect(address).expect("on the same network");
    (0..3).any(|_| {
        let refused = |error: std::io::Error| error.kind() == ErrorKind::ConnectionRefused;
        socket.send(b"?").is_err_and(refused) || socket.recv(&mut [0]).is_err_and(refused)
    })
}

/// Applies `formats` to the three machines and walks every pair, port and transport.
fn walk(test: &str, tag: &str, formats: &[(Format, &[&str])], needs: &[(&str, &str)]) {
    let mut all = vec![
        ("ip", "iproute2"),
        ("ping", "iputils-ping"),
        ("sysctl", "procps"),
    ];
    all.extend(needs);
    if !have(test, &all) {
        return;
    }
    let net = Net::new(tag);
    for (machine, fixture, _) in MACHINES {
        for (format, program) in formats.iter().filter(|_| fixture.is_some()) {
            net.exec(machine, program, &firewall(&node(machine), *format));
        }
    }
    let this = std::env::current_exe().expect("the running test");
    let this: &str = Path::to_str(&this).expect("a plain path");
    std::thread::scope(|scope| {
        for (from, from_policy, from_last) in MACHINES {
            let net = &net;
            scope.spawn(move || {
                let others = MACHINES
                    .into_iter()
                    .filter(|(machine, _, _)| *machine != from);
                let others: Vec<_> = others
                    .flat_map(|(to, policy, last)| [(to, policy, v4(last)), (to, policy, v6(last))])
                    .collect();
                let targets: Vec<&str> = others
                    .iter()
                    .map(|(_, _, address)| address.as_str())
                    .collect();
                let set = format!("SALLYPORT_TEST_PROBE={}", targets.join(" "));
                let program = ["env", &set, this, "--exact", "probe", "--nocapture"];
                let printed = net.exec(from, &program, "");
                let answered: BTreeSet<&str> = printed
                    .lines()
                    .filter_map(|line| line.split_once("ANSWERED "))
                    .map(|it| it.1)
                    .collect();
                for (to, to_policy, address) in &others {
                    let peer: IpAddr = address.parse().expect("an address");
                    let own = if peer.is_ipv4() {
                        v4(from_last)
                    } else {
                        v6(from_last)
                    };
                    let own: IpAddr = own.parse().expect("an address");
                    for flow in flows() {
                        let leaves = Packet {
                            side: Side::Out,
                            flow,
                            peer,
                        };
                        let enters = Packet {
                            side: Side::In,
                            flow,
                            peer: own,
                        };
                        let want = from_policy.is_none_or(|it| node(it).allows(&leaves))
                            && to_policy.is_none_or(|it| node(it).allows(&enters));
                        let got = answered.contains(format!("{address} {flow}").as_str());
                        assert_eq!(got, want, "{test}: {from} to {to} ({address}) {flow}");
                    }
                }
            });
        }
    });
}

#[test]
fn nftables_pass_exactly_what_the_policy_allows() {
    walk(
        "nftables_pass_exactly_what_the_policy_allows",
        "n",
        &[(Format::Nftables, &["nft", "-f", "-"])],
        &[("nft", "nftables")],
    );
}

#[test]
fn iptables_pass_exactly_what_the_policy_allows() {
    walk(
        "iptables_pass_exactly_what_the_policy_allows",
        "i",
        &[
            (Format::Iptables, &["iptables-restore"]),
            (Format::Ip6tables, &["ip6tables-restore"]),
        ],
        &[
            ("iptables-restore", "iptables"),
            ("ip6tables-restore", "iptables"),
        ],
    );
}

/// Somebody outside who looks for open ports finds those of the policy and no others: on every machine,
/// in both families, with the rules of nftables and with those of iptables.
#[test]
fn nmap_from_outside_sees_what_the_policy_allows() {
    let needs = [
        ("ip", "iproute2"),
        ("sysctl", "procps"),
        ("nft", "nftables"),
        ("iptables-restore", "iptables"),
        ("ip6tables-restore", "iptables"),
        ("nmap", "nmap"),
    ];
    if !have("nmap_from_outside_sees_what_the_policy_allows", &needs) {
        return;
    }
    let nftables: &[(Format, &[&str])] = &[(Format::Nftables, &["nft", "-f", "-"])];
    let iptables: &[(Format, &[&str])] = &[
        (Format::Iptables, &["iptables-restore"]),
        (Format::Ip6tables, &["ip6tables-restore"]),
    ];
    let ports: BTreeSet<u16> = flows()
        .into_iter()
        .filter_map(|flow| match flow {
            Flow::Port(it) if it.transport.as_str() == "tcp" => Some(it.port.get()),
            _ => None,
        })
        .collect();
    let list: Vec<String> = ports.iter().map(ToString::to_string).collect();
    let list = format!("-p{}", list.join(","));
    for (tag, formats) in [("s", nftables), ("r", iptables)] {
        let net = Net::new(tag);
        let machines = [("edge", 0x20), ("node1", 0x11), ("node2", 0x12)];
        for (machine, _) in machines {
            for (format, program) in formats {
                net.exec(machine, program, &firewall(&node(machine), *format));
            }
        }
        for (machine, last) in machines {
            for (target, peer) in [(v4(last), v4(0x77)), (v6(last), v6(0x77))] {
                let peer: IpAddr = peer.parse().expect("an address");
                let mut args = vec![
                    "nmap", "-Pn", "-n", "-sS", "--reason", "-T4", &list, "-oG", "-",
                ];
                if peer.is_ipv6() {
                    args.push("-6");
                }
                args.push(&target);
                let printed = net.exec("outside", &args, "");
                // Nobody listens, so a port that is let through answers as closed.
                let passed: BTreeSet<u16> = printed
                    .split([' ', '\t', ','])
                    .filter_map(|word| word.split_once("/closed/"))
                    .filter_map(|(port, _)| port.parse().ok())
                    .collect();
                let policy = node(machine);
                let allowed = |port: &u16| {
                    let flow = Flow::try_from(format!("{port}/tcp")).expect("a flow");
                    let side = Side::In;
                    policy.allows(&Packet { side, flow, peer })
                };
                let want: BTreeSet<u16> = ports.iter().copied().filter(allowed).collect();
                assert_eq!(passed, want, "{tag} {machine} {target}:\n{printed}");
                assert!(!want.is_empty());
            }
        }
    }
}

/// The matrix proves something only if both answers occur, in each direction and family.
#[test]
fn the_matrix_has_both_answers() {
    for (name, side, peer) in [
        ("edge", Side::In, "192.0.2.77"),
        ("edge", Side::In, "2001:db8::77"),
        ("edge", Side::Out, "192.0.2.11"),
        ("edge", Side::Out, "2001:db8::11"),
        ("node1", Side::In, "192.0.2.20"),
        ("node1", Side::In, "2001:db8::12"),
        ("node2", Side::Out, "192.0.2.11"),
    ] {
        let peer: IpAddr = peer.parse().expect("an address");
        let policy = node(name);
        let open = flows()
            .into_iter()
            .filter(|&flow| policy.allows(&Packet { side, flow, peer }));
        let open = open.count();
        assert!(
            open > 0 && open < flows().len(),
            "{name} {side:?} {peer}: {open} open"
        );
    }
}
