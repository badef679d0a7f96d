use crate::{INSTALLATION, check_refused, file, run};

#[test]
fn rules_of_a_role_without_any_file() {
    let args = [
        "firewall", "--format", "nftables", "--role", "gateway", "--geo", "eu",
    ];
    let done = run(&args).success();
    for part in [
        "table inet sallyport",
        "tcp dport { 8000 } accept",
        "tcp dport { 443 } accept",
    ] {
        assert!(
            done.stdout.contains(part),
            "no {part:?} in:\n{}",
            done.stdout
        );
    }
    assert!(
        done.stderr.contains("--base and --prefix"),
        "{}",
        done.stderr
    );
    let named = [&args[..], &["--base", "sally.example", "--prefix", "alpha"]].concat();
    let done = run(&named).success();
    assert!(
        done.stdout.contains("alpha.eu.cp0.sally.example"),
        "{}",
        done.stdout
    );
    assert_eq!(done.stderr, "");
}

#[test]
fn rules_of_a_node_have_its_neighbours_addresses() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "installation.toml", INSTALLATION);
    let args = [
        "firewall",
        "--format",
        "iptables",
        "--node",
        "edge",
        "--installation",
        &path,
    ];
    let done = run(&args).success();
    assert!(
        done.stdout.contains("-A OUTPUT -d 192.0.2.11/32 -p tcp"),
        "{}",
        done.stdout
    );
    assert!(
        done.stdout.contains("-A OUTPUT -d 192.0.2.53/32 -p udp"),
        "{}",
        done.stdout
    );
}

#[test]
fn every_format_and_catalogue_gives_rules() {
    for format in [
        "nftables",
        "iptables",
        "ip6tables",
        "firewalld",
        "ufw",
        "aws",
        "google",
        "azure",
        "kubernetes",
        "cilium",
        "squid",
        "aerleon",
        "allow-list",
        "json",
    ] {
        for (catalogue, role) in [
            ("own", "gateway"),
            ("hosted", "gateway"),
            ("appliance", "appliance"),
        ] {
            let args = [
                "firewall",
                "--format",
                format,
                "--role",
                role,
                "--catalogue",
                catalogue,
            ];
            let args = [&args[..], &["--base", "sally.example", "--prefix", "alpha"]].concat();
            let done = run(&args).success();
            assert!(done.stdout.len() > 100, "{args:?}: {}", done.stdout);
        }
    }
}

#[test]
fn a_change_is_printed_as_openings_to_add_and_remove() {
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, "installation.toml", INSTALLATION);
    let whose = ["--node", "edge", "--installation", &path];
    let old = run(&[&["firewall", "--format", "json"], &whose[..]].concat())
        .success()
        .stdout;
    let old = file(&dir, "old.json", &old);
    let compare = [&["firewall", "--diff", &old], &whose[..]].concat();
    let same = run(&compare).success();
    assert_eq!(
        (same.stdout.as_str(), same.stderr.trim()),
        ("", "nothing changes")
    );
    file(
        &dir,
        "installation.toml",
        &INSTALLATION.replace("192.0.2.53", "192.0.2.54"),
    );
    let changed = run(&compare).success().stdout;
    assert_eq!(
        changed,
        "- out to 192.0.2.53/32 53/tcp (dns)\n- out to 192.0.2.53/32 53/udp (dns)\n\
         + out to 192.0.2.54/32 53/tcp (dns)\n+ out to 192.0.2.54/32 53/udp (dns)\n"
    );
    let other = file(&dir, "other.json", "{\"rules\": 1}");
    check_refused(
        &[&["firewall", "--diff", &other], &whose[..]].concat(),
        &["other.json", "--format json"],
    );
}

#[test]
fn typing_errors_are_told_the_way_out() {
    let rest = ["--role", "gateway"];
    let with = |more: &[&'static str]| [&["firewall"], more, &rest[..]].concat();
    check_refused(
        &with(&["--format", "nft"]),
        &["nft", "nftables, iptables", "allow-list"],
    );
    check_refused(
        &with(&["--format", "nftables", "--geo", "uk"]),
        &["no geo `uk`", "au, eu, global, in, me, us"],
    );
    check_refused(
        &["firewall", "--format", "nftables", "--role", "gatway"],
        &["gatway", "gateway, control_plane"],
    );
    check_refused(&["firewall", "--format", "nftables"], &["--role"]);
    check_refused(
        &with(&["--format", "nftables", "--catalogue", "hosed"]),
        &["hosed", "own, hosted, appliance"],
    );
    check_refused(
        &with(&["--format", "nftables", "--feature", "decks"]),
        &["knows no `decks`"],
    );
    check_refused(
        &["firewall", "--format", "nftables", "--role", "monitor"],
        &["role monitor", "monitoring", "--feature"],
    );
    check_refused(
        &with(&["--format", "squid"]),
        &["by name", "--base and --prefix"],
    );
}

#[test]
fn broken_files_are_named_with_line_and_field() {
    let dir = tempfile::tempdir().unwrap();
    let bad = file(&dir, "bad.toml", "base = \"a.example\"\ngoes = [\"eu\"]\n");
    let args = ["firewall", "--format", "nftables", "--role", "gateway"];
    check_refused(
        &[&args[..], &["--installation", &bad]].concat(),
        &["bad.toml", "line 2", "goes"],
    );
    let catalogue =
        "format = 1\nname = \"x\"\ntitle = \"X\"\n[[entry]]\nid = \"a\"\nports = [\"0/tcp\"]\n";
    let bad = file(&dir, "catalogue.toml", catalogue);
    check_refused(
        &[&args[..], &["--catalogue", &bad]].concat(),
        &[
            "catalogue.toml",
            "line 6",
            "entry a",
            "field ports",
            "port 0",
        ],
    );
    // Rows that could mean the same traffic, and names that would match everybody's.
    let row = |id: &str, host: &str| {
        format!(
            "[[entry]]\nid = \"{id}\"\ntitle = \"{id}\"\nports = [\"443/tcp\"]\nfrom = [\"gateway\"]\n\
             to = [\"control_plane\"]\nprotocol = \"https\"\ntls = \"tls\"\nhosts = [\"{host}\"]\n\
             required = true\nowner = \"installation\"\nwhy = \"w\"\nsource = [\"product\"]\n"
        )
    };
    let head = "format = 1\nname = \"x\"\ntitle = \"X\"\nbase = \"a.test\"\ngeos = [\"eu\"]\n";
    for (rows, parts) in [
        (
            row("a", "<geo>.api.<base>") + &row("b", "eu.api.<base>"),
            ["entry b", "same port, acceptor and host as `a`"],
        ),
        (row("a", "<prefix>.<base>"), ["entry a", "matches too much"]),
        (row("a", "*.<base>"), ["entry a", "field hosts"]),
    ] {
        let bad = file(&dir, "catalogue.toml", &format!("{head}{rows}"));
        let args = [&args[..], &["--catalogue", &bad]].concat();
        check_refused(&args, &[&["catalogue.toml"], &parts[..]].concat());
    }
    let missing = dir.path().join("none.toml").to_str().unwrap().to_owned();
    check_refused(
        &[&args[..], &["--installation", &missing]].concat(),
        &["none.toml"],
    );
}

#[test]
fn a_gateways_settings_say_names_and_ports() {
    let dir = tempfile::tempdir().unwrap();
    let certs = dir.path().join("certs");
    let certs = certs.to_str().unwrap();
    run(&["certs", "--out", certs]).success();
    let conf = format!(
        "role = data_plane\ndatabase = off\nprefix = {}\nproxy_listen = 0.0.0.0:9080, 0.0.0.0:9443 ssl\n\
         admin_listen = off\ncluster_mtls = shared\ncluster_cert = {certs}/cluster.crt\n\
         cluster_cert_key = {certs}/cluster.key\n\
         cluster_control_plane = alpha.eu.cp0.sally.example:443\n",
        dir.path().join("prefix").display()
    );
    let path = file(&dir, "kong.conf", &conf);
    let args = [
        "firewall",
        "--role",
        "gateway",
        "--conf",
        &path,
        "--format",
        "allow-list",
    ];
    let done = run(&args).success();
    for part in [
        "alpha.eu.cp0.sally.example:443/tcp",
        "alpha.eu.tp0.sally.example:443/tcp",
    ] {
        assert!(done.stdout.contains(part), "{}", done.stdout);
    }
    let args = [
        "firewall", "--role", "gateway", "--conf", &path, "--format", "nftables",
    ];
    let rules = run(&args).success().stdout;
    assert!(
        rules.contains("dport { 9080 }") && rules.contains("dport { 9443 }"),
        "{rules}"
    );
    assert!(!rules.contains("8000"), "{rules}");
}
