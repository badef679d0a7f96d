use sallyport_testkit::{Deadline, foreign};
use serde_json::Value;

use crate::lab::{Line, check, doctor, doctor_within, hosts, network, rows, sallyport};
use crate::network::{FAR, FAR6, Network, WAY};
use crate::{check_refused, run};

const TROUBLES: &[Line] = &[
    ("good", "4001/tcp", "https", "tls", "installation"),
    ("six", "4001/tcp", "https", "tls", "installation"),
    ("plain", "4013/tcp", "http", "none", "installation"),
    ("mutual", "4005/tcp", "hybrid", "mtls", "installation"),
    ("not_mutual", "4001/tcp", "hybrid", "mtls", "installation"),
    ("refused", "4020/tcp", "https", "tls", "installation"),
    ("dropped", "4021/tcp", "https", "tls", "installation"),
    ("rejected", "4022/tcp", "https", "tls", "installation"),
    ("expired", "4002/tcp", "https", "tls", "installation"),
    ("other_name", "4003/tcp", "https", "tls", "installation"),
    ("self_signed", "4004/tcp", "https", "tls", "installation"),
    ("skewed", "4006/tcp", "https", "tls", "installation"),
    ("mute", "4007/tcp", "https", "tls", "installation"),
    ("intercepted", "4009/tcp", "https", "tls", "installation"),
    ("half_open", "4010/tcp", "https", "tls", "installation"),
    ("slow", "4011/tcp", "https", "tls", "installation"),
    ("slow_http", "4015/tcp", "http", "none", "installation"),
    ("slow_ssh", "4016/tcp", "ssh", "none", "site"),
    ("no_tls", "4012/tcp", "https", "tls", "installation"),
    ("ssh", "4012/tcp", "ssh", "none", "site"),
    ("ssh_mute", "4010/tcp", "ssh", "none", "site"),
    ("closes", "4014/tcp", "https", "tls", "third_party"),
    ("lie", "4001/tcp", "https", "tls", "installation"),
    ("nowhere", "4001/tcp", "https", "tls", "installation"),
    ("many", "4001/tcp", "https", "tls", "installation"),
    ("dns", "53/udp", "dns", "none", "site"),
    ("ntp", "123/udp", "ntp", "none", "site"),
    ("ntp_skewed", "1123/udp", "ntp", "none", "site"),
    ("ntp_silent", "8071/udp", "ntp", "none", "site"),
    ("log", "8071/udp", "cef", "none", "installation"),
    ("log_refused", "8072/udp", "cef", "none", "installation"),
    ("ping", "icmp", "icmp", "none", "installation"),
    ("ping_dropped", "icmp", "icmp", "none", "installation"),
];

#[test]
fn each_trouble_is_told_from_the_others() {
    let mut names = hosts(TROUBLES);
    names = names.replace(&format!("{FAR} nowhere.a.test\n"), "");
    names = names.replace(&format!("{FAR} six.a.test"), &format!("{FAR6} six.a.test"));
    names = names.replace(&format!("{FAR} ping-dropped"), "10.255.2.3 ping-dropped");
    let many: String = (0..500)
        .map(|it| format!("127.9.{}.{} many.a.test\n", it / 250, it % 250 + 1))
        .collect();
    names = names.replace(&format!("{FAR} many.a.test\n"), &many);
    let Some((network, _servers)) = network("t", TROUBLES, &names) else {
        return;
    };
    let _interceptor = network.serve("way", "interceptor");
    network.sh("far", "ip addr add 10.255.2.3/24 dev out");
    network.rules(
        "table inet t {
            chain forward { type filter hook forward priority 0;
                tcp dport 4021 drop
                tcp dport 4022 reject with icmpx type admin-prohibited
                ip daddr 10.255.2.3 icmp type echo-request drop; }
            chain nat { type nat hook prerouting priority -100;
                tcp dport 4009 redirect to :8888; } }",
    );
    std::fs::write(
        network.path("installation.toml"),
        "roles = [\"gateway\", \"control_plane\"]\n[peers]\n\"lie.a.test\" = [\"198.51.100.7\"]\n",
    )
    .unwrap();
    let installation = network.path("installation.toml");
    let more = ["--json", "--installation", installation.to_str().unwrap()];
    let done = doctor(&network, &more);
    let rows = rows(&done);
    let check = |id: &str, status: &str, parts: &[&str]| check(&rows, id, status, parts);
    check("good", "open", &["HTTP 404", "The right authority"]);
    check("six", "open", &["[fd00:2::2]:4001"]);
    check("plain", "open", &["HTTP 404"]);
    check("mutual", "open", &["asks for a client certificate"]);
    check("not_mutual", "wrong", &["without a client certificate"]);
    check(
        "refused",
        "closed",
        &[
            "nothing listens",
            "allow out tcp to 10.255.2.2 (refused.a.test) port 4020",
        ],
    );
    check(
        "dropped",
        "filtered",
        &["dropped on the way", "network team", "port 4021"],
    );
    check("rejected", "unreachable", &["No route to host"]);
    check("expired", "wrong", &["expired", "days ago", "renew"]);
    check(
        "other_name",
        "wrong",
        &["the certificate is for elsewhere.test"],
    );
    check("self_signed", "wrong", &["not trusted here", "--ca"]);
    check("skewed", "wrong", &["clock", "behind"]);
    check("mute", "wrong", &["says nothing"]);
    check(
        "intercepted",
        "intercepted",
        &["Example Inspection", "exempt intercepted.a.test"],
    );
    check("half_open", "wrong", &["half open"]);
    check("slow", "wrong", &["does not finish"]);
    check("slow_http", "wrong", &["does not finish"]);
    check("slow_ssh", "wrong", &["does not finish"]);
    check("no_tls", "wrong", &["SSH-2.0-OpenSSH"]);
    check("ssh", "open", &["SSH-2.0-OpenSSH"]);
    check("ssh_mute", "wrong", &["half open"]);
    check("closes", "wrong", &["closes the connection", "provider"]);
    check(
        "lie",
        "wrong",
        &["DNS says lie.a.test is 10.255.2.2", "198.51.100.7"],
    );
    check("nowhere", "unresolved", &["nowhere.a.test"]);
    check("many", "closed", &["127.9.0.1"]);
    check("dns", "open", &["DNS"]);
    check("ntp", "open", &["tells the time"]);
    check("ntp_skewed", "wrong", &["clock", "2 hours"]);
    check("ntp_silent", "filtered", &["does not answer"]);
    check("log", "unproven", &["no answer is defined"]);
    check("log_refused", "closed", &["refuses"]);
    check("ping", "open", &["answers"]);
    check("ping_dropped", "filtered", &["echo", "allow out icmp"]);
    assert_eq!(rows.len(), TROUBLES.len());
    assert!(
        done.stderr.contains("of 33 connections are not ok"),
        "{}",
        done.stderr
    );
}

const HEALTHY: &[Line] = &[
    ("good", "4001/tcp", "https", "tls", "installation"),
    ("mutual", "4005/tcp", "hybrid", "mtls", "installation"),
    ("plain", "4013/tcp", "http", "none", "installation"),
    ("ssh", "4012/tcp", "ssh", "none", "site"),
    ("dns", "53/udp", "dns", "none", "site"),
    ("ntp", "123/udp", "ntp", "none", "site"),
    ("ping", "icmp", "icmp", "none", "installation"),
];

#[test]
fn a_healthy_network_raises_no_alarm_in_a_hundred_runs() {
    let Some((network, _servers)) = network("h", HEALTHY, &hosts(HEALTHY)) else {
        return;
    };
    for at in 0..100 {
        let done = doctor_within("20", &network, &["--json"]);
        for (id, row) in rows(&done) {
            assert_eq!(row["status"], "open", "run {at}, {id}: {row:#}");
        }
    }
    let text = doctor_within("20", &network, &[]).success().stdout;
    assert!(
        text.contains("7 ok, 0 not ok, 0 without proof, 0 not tried"),
        "{text}"
    );
    let junit = doctor_within("20", &network, &["--junit"]).success().stdout;
    assert!(junit.contains("tests=\"7\" failures=\"0\""), "{junit}");
}

#[test]
fn a_hole_for_big_packets_is_recognised() {
    let lines: &[Line] = &[
        ("good", "4001/tcp", "https", "tls", "installation"),
        ("half_open", "4010/tcp", "https", "tls", "installation"),
    ];
    let Some((network, _servers)) = network("m", lines, &hosts(lines)) else {
        return;
    };
    // A link of 1280 bytes behind a router that says nothing about it.
    network.sh("way", "ip link set far mtu 1280; ip link set near mtu 1280");
    network.rules(
        "table inet t { chain output { type filter hook output priority 0;
            icmp type destination-unreachable drop; icmpv6 type packet-too-big drop; } }",
    );
    let rows = rows(&doctor(&network, &["--json"]));
    check(
        &rows,
        "good",
        "filtered",
        &["only small packets pass (1220 bytes", "path MTU"],
    );
    check(&rows, "half_open", "wrong", &["half open"]);
}

/// IPv6 has no links below 1280 bytes, so its holes are between that and the usual 1500.
#[test]
fn a_hole_for_big_packets_is_recognised_over_ipv6() {
    let lines: &[Line] = &[
        ("six", "4001/tcp", "https", "tls", "installation"),
        ("half_open_six", "4010/tcp", "https", "tls", "installation"),
        ("four", "4001/tcp", "https", "tls", "installation"),
    ];
    let names = hosts(lines)
        .replace(&format!("{FAR} six.a.test"), &format!("{FAR6} six.a.test"))
        .replace(
            &format!("{FAR} half-open-six"),
            &format!("{FAR6} half-open-six"),
        );
    let Some((network, _servers)) = network("v", lines, &names) else {
        return;
    };
    network.sh("way", "ip link set far mtu 1400; ip link set near mtu 1400");
    // Whoever filters "Packet Too Big" breaks IPv6; IPv4's message still comes through.
    network.rules(
        "table ip6 t { chain output { type filter hook output priority 0;
            icmpv6 type packet-too-big drop; } }",
    );
    let rows = rows(&doctor(&network, &["--json"]));
    let parts = ["only small packets pass (1220 bytes", "path MTU"];
    check(&rows, "six", "filtered", &parts);
    check(&rows, "half_open_six", "wrong", &["half open"]);
    check(&rows, "four", "open", &["HTTP 404"]);
}

#[test]
fn sslsplit_is_told_as_interception() {
    let lines: &[Line] = &[
        ("free", "4001/tcp", "https", "tls", "installation"),
        ("split", "4009/tcp", "https", "tls", "installation"),
        ("split_mutual", "4009/tcp", "hybrid", "mtls", "installation"),
    ];
    let Some(sslsplit) = foreign("sslsplit", "Debian package sslsplit") else {
        return;
    };
    let Some((network, _servers)) = network("x", lines, &hosts(lines)) else {
        return;
    };
    // Its certificates copy the names of the real ones, under an authority of its own.
    let [cert, key] = ["forger.crt", "forger.key"].map(|it| network.path(it));
    let args = [
        "-D",
        "-u",
        "root",
        "-c",
        cert.to_str().unwrap(),
        "-k",
        key.to_str().unwrap(),
        "ssl",
        "0.0.0.0",
        "8888",
        FAR,
        "4008",
    ];
    let proxy = network.program("way", &sslsplit, &args).start();
    proxy.wait_for_line("Starting main event loop", Deadline::secs(60));
    network.rules(
        "table inet t { chain nat { type nat hook prerouting priority -100;
            tcp dport 4009 redirect to :8888; } }",
    );
    let rows = rows(&doctor(&network, &["--json"]));
    check(&rows, "free", "open", &["The right authority"]);
    let parts = ["Example Inspection", "exempt split.a.test"];
    check(&rows, "split", "intercepted", &parts);
    check(
        &rows,
        "split_mutual",
        "intercepted",
        &["Example Inspection"],
    );
}

#[test]
fn mitmproxy_is_recognised_and_named() {
    let lines: &[Line] = &[
        ("free", "4001/tcp", "https", "tls", "installation"),
        ("inspected", "4009/tcp", "https", "tls", "installation"),
    ];
    let Some(mitmdump) = foreign("mitmdump", "mitmproxy of PyPI") else {
        return;
    };
    let Some((network, _servers)) = network("i", lines, &hosts(lines)) else {
        return;
    };
    let home = network.path("mitmproxy");
    let set = format!("confdir={}", home.display());
    let mode = format!("reverse:https://{FAR}:4008");
    let args = [
        "--mode",
        &mode,
        "--listen-port",
        "8888",
        "--ssl-insecure",
        "--set",
        &set,
    ];
    let proxy = network
        .program("way", &mitmdump, &args)
        .env("PYTHONUNBUFFERED", "1")
        .start();
    proxy.wait_for_line("listening at", Deadline::secs(60));
    network.rules(
        "table inet t { chain nat { type nat hook prerouting priority -100;
            tcp dport 4009 redirect to :8888; } }",
    );
    let untrusted = rows(&doctor(&network, &["--json"]));
    check(&untrusted, "free", "open", &["The right authority"]);
    check(
        &untrusted,
        "inspected",
        "intercepted",
        &["mitmproxy", "exempt inspected.a.test"],
    );
    // Where people installed its authority, the handshake is fine and the inspection still told.
    let ca = std::fs::read_to_string(network.path("ca.crt")).unwrap();
    let its = std::fs::read_to_string(home.join("mitmproxy-ca-cert.pem")).unwrap();
    std::fs::write(network.path("ca.crt"), ca + &its).unwrap();
    let trusted = rows(&doctor(&network, &["--json"]));
    check(&trusted, "inspected", "intercepted", &["mitmproxy"]);
}

#[test]
fn squid_lets_through_or_refuses() {
    let lines: &[Line] = &[
        ("allowed", "4005/tcp", "hybrid", "mtls", "installation"),
        ("denied", "4001/tcp", "hybrid", "mtls", "installation"),
        ("closed", "4020/tcp", "hybrid", "mtls", "installation"),
        ("unknown", "4005/tcp", "hybrid", "mtls", "installation"),
    ];
    let Some(squid) = foreign("squid", "Debian package squid") else {
        return;
    };
    let names = hosts(lines).replace(&format!("{FAR} unknown.a.test\n"), "");
    let Some((network, _servers)) = network("s", lines, &names) else {
        return;
    };
    let dir = network.dir.path();
    let conf = format!(
        "http_port {WAY}:3128\nacl denied port 4001\nhttp_access deny denied\nhttp_access allow all\n\
         pid_filename none\ncache_log /dev/null\naccess_log none\ncache deny all\n\
         hosts_file {}\ndns_nameservers 127.0.0.1\ndns_timeout 1 second\nconnect_timeout 1 second\n\
         shutdown_lifetime 0 seconds\ncache_effective_user proxy\nvisible_hostname way.test\ncoredump_dir {}\n",
        network.path("hosts").display(),
        dir.display()
    );
    std::fs::write(network.path("squid.conf"), conf).unwrap();
    network.let_others_read();
    let path = network.path("squid.conf");
    // squid's shared memory has a name of this service, and is cleared when it is stopped.
    let service = format!("sd{}", std::process::id());
    let args = [
        "-N",
        "-d",
        "1",
        "-n",
        &service,
        "-f",
        path.to_str().unwrap(),
    ];
    let mut proxy = network.program("way", &squid, &args).start();
    proxy.wait_for_line("Accepting HTTP Socket connections", Deadline::secs(60));
    let done = doctor(
        &network,
        &["--json", "--proxy", &format!("http://{WAY}:3128")],
    );
    let rows = rows(&done);
    check(&rows, "allowed", "open", &["asks for a client certificate"]);
    check(
        &rows,
        "denied",
        "filtered",
        &["ERR_ACCESS_DENIED", "allow CONNECT denied.a.test:4001"],
    );
    check(&rows, "closed", "unreachable", &["ERR_CONNECT_FAIL"]);
    check(&rows, "unknown", "unreachable", &["must resolve"]);
    proxy.terminate();
    proxy.wait(Deadline::secs(30));
    let rows = self::rows(&doctor(
        &network,
        &["--json", "--proxy", &format!("http://{WAY}:3128")],
    ));
    check(&rows, "allowed", "closed", &["forward proxy"]);
}

#[test]
fn without_the_right_to_icmp_it_says_so() {
    let lines: &[Line] = &[("ping", "icmp", "icmp", "none", "installation")];
    let Some((network, _servers)) = network("p", lines, &hosts(lines)) else {
        return;
    };
    let Some(setpriv) = foreign("setpriv", "Debian package util-linux") else {
        return;
    };
    // Somebody else must be able to read program and files.
    network.sh("near", "sysctl -qw net.ipv4.ping_group_range=\"1 0\"");
    let path = network.path("catalogue.toml");
    let program = network.path("sallyport");
    std::fs::copy(sallyport(), &program).unwrap();
    network.let_others_read();
    let nobody = [
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--bounding-set=-all",
        "--inh-caps=-all",
    ];
    let args = [
        "doctor",
        "--json",
        "--role",
        "gateway",
        "--catalogue",
        path.to_str().unwrap(),
    ];
    let all = [&nobody[..], &[program.to_str().unwrap()], &args].concat();
    let done = network
        .program("near", &setpriv, &all)
        .run(Deadline::secs(60));
    check(
        &rows(&done),
        "ping",
        "unproven",
        &["may not send ICMP", "the host answers on TCP"],
    );
}

#[test]
fn the_way_is_tried_before_the_product_is_there() {
    let Some(network) = Network::new("l", "") else {
        return;
    };
    let installation = format!(
        "base = \"sally.example\"\ngeos = [\"eu\"]\nfeatures = [\"monitoring\"]\nexposed = [\"status\"]\n\
         nodes = [{{ name = \"edge\", roles = [\"gateway\"], addresses = [\"{FAR}\"] }}]\n"
    );
    std::fs::write(network.path("installation.toml"), installation).unwrap();
    let path = network.path("installation.toml");
    let path = path.to_str().unwrap();
    let listen = [
        "doctor",
        "--listen",
        "--role",
        "gateway",
        "--installation",
        path,
        "--for",
        "60",
    ];
    let listening = network.program("far", sallyport(), &listen).start();
    listening.wait_for_line("now run `sallyport doctor`", Deadline::secs(30));
    network.rules(
        "table inet t { chain forward { type filter hook forward priority 0; tcp dport 8443 drop; } }",
    );
    let ask = |role: &str| {
        let args = [
            "doctor",
            "--json",
            "--timeout",
            "2",
            "--role",
            role,
            "--installation",
            path,
        ];
        rows(
            &network
                .program("near", sallyport(), &args)
                .run(Deadline::secs(60)),
        )
    };
    let rows = ask("client");
    check(&rows, "proxy.http", "open", &["the doctor listens there"]);
    check(&rows, "proxy.https", "filtered", &["dropped"]);
    check(
        &ask("monitor"),
        "status",
        "open",
        &["the doctor listens there"],
    );
    let surface = network.program(
        "far",
        sallyport(),
        &["doctor", "--surface", "--installation", path],
    );
    let surface = surface.run(Deadline::secs(30));
    assert!(
        surface.stdout.contains("8443/tcp") && surface.stdout.contains("proxy.https"),
        "{surface:?}"
    );
}

#[test]
fn bad_input_is_told_the_way_out() {
    check_refused(&["doctor"], &["--role", "--conf"]);
    check_refused(&["doctor", "--role", "gatewy"], &["gateway, control_plane"]);
    check_refused(
        &["doctor", "--role", "gateway", "--geo", "uk"],
        &["no geo `uk`", "au, eu"],
    );
    check_refused(
        &["doctor", "--role", "gateway", "--proxy", "ftp://x"],
        &["http://host:port"],
    );
    check_refused(
        &["doctor", "--role", "gateway", "--conf", "/none.conf"],
        &["/none.conf"],
    );
    check_refused(
        &["doctor", "--role", "gateway", "--timeout", "0"],
        &["1..=60"],
    );
    check_refused(&["doctor", "--listen"], &["--role"]);
    // Names that nobody told are not dialled.
    let done = run(&["doctor", "--role", "ingress-controller", "--json"]);
    let json: Value = serde_json::from_str(&done.stdout).unwrap();
    let skipped = json["skipped"].to_string();
    assert!(
        skipped.contains("config_sync") && skipped.contains("--base and --prefix"),
        "{skipped}"
    );
}

#[test]
fn a_firewall_that_forgets_silent_connections_is_recognised() {
    let lines: &[Line] = &[
        ("kept", "4001/tcp", "https", "tls", "installation"),
        ("forgotten", "4005/tcp", "hybrid", "mtls", "installation"),
        ("nobody", "4020/tcp", "https", "tls", "installation"),
    ];
    let Some((network, _servers)) = network("i", lines, &hosts(lines)) else {
        return;
    };
    network.rules(
        "table inet t { chain early { type filter hook prerouting priority -300;
            tcp dport 4001 notrack; tcp sport 4001 notrack; }
         chain through { type filter hook forward priority 0;
            ct state invalid drop; ct state new tcp flags & (syn | ack) != syn drop; } }",
    );
    network.sh(
        "way",
        "sysctl -qw net.netfilter.nf_conntrack_tcp_timeout_established=2 \
         net.netfilter.nf_conntrack_tcp_loose=0",
    );
    let rows = rows(&doctor(&network, &["--json", "--idle", "8"]));
    check(&rows, "kept", "open", &["8 s of silence are kept"]);
    check(
        &rows,
        "forgotten",
        "filtered",
        &["the connection is dropped without a word", "RFC 5382"],
    );
    check(&rows, "nobody", "unproven", &["could not be opened"]);
}
