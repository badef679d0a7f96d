//! The doctor's matrix: each node tries each other one on every row between nodes that is in use.

use std::collections::BTreeSet;

use sallyport_testkit::{Program, eventually, foreign};
use serde_json::Value;

use crate::lab::{Lab, NODES, patience, sh};

/// What the doctor says as JSON, asked on `node`.
fn matrix(lab: &Lab, node: &str, args: &[&str]) -> Value {
    let done = lab.doctor(node, &[args, &["--json"]].concat());
    let json: Value = serde_json::from_str(&done.stdout).unwrap_or_else(|_| panic!("{done:?}"));
    let lines = json["matrix"].as_array().unwrap();
    let all_ok = lines.iter().all(|it| it["ok"] == true);
    assert_eq!(done.status.success(), all_ok, "{done:?}");
    json
}

/// Each row as `n1 n2 rate_limit 9001/tcp open`.
fn rows(json: &Value) -> BTreeSet<String> {
    let mut rows = BTreeSet::new();
    for line in json["matrix"].as_array().unwrap() {
        let from = line["from"].as_str().unwrap();
        assert!(line["error"].is_null(), "{line:#}");
        for row in line["rows"].as_array().unwrap() {
            let [node, id, flow, status] =
                ["node", "id", "flow", "status"].map(|key| row[key].as_str().unwrap());
            rows.insert(format!("{from} {node} {id} {flow} {status}"));
            assert_eq!(row["ok"] == false, row["fix"].is_object(), "{row:#}");
        }
    }
    rows
}

fn not_ok(json: &Value) -> BTreeSet<String> {
    let mut rows = rows(json);
    rows.retain(|it| !it.ends_with(" open"));
    rows
}

fn set(rows: &[&str]) -> BTreeSet<String> {
    rows.iter().map(|it| (*it).to_owned()).collect()
}

/// Loads a chain of nftables on a machine, in the place of the one before.
#[track_caller]
fn rules(lab: &Lab, machine: &str, hook: &str, rules: &str) {
    let path = lab.path("cut.nft");
    let text = format!(
        "table ip cut\ndelete table ip cut\ntable ip cut {{\nchain c {{\ntype {hook};\n{rules}\n}}\n}}\n"
    );
    std::fs::write(&path, text).unwrap();
    lab.on(machine, &format!("nft -f {}", path.display()));
}

#[test]
fn a_port_that_is_dropped_between_two_nodes_is_the_one_cell_that_is_named() {
    let there = |program, package| foreign(program, package).is_some();
    if !there("openssl", "Debian package openssl") || !there("python3", "Debian package python3") {
        return;
    }
    let Some(mut lab) = Lab::new("m") else { return };
    let buckets = lab.path("buckets.yml");
    std::fs::write(
        &buckets,
        "buckets:\n  ip:\n    size: 10\n    per_second: 5\n",
    )
    .unwrap();
    lab.more = format!("[rate_limit]\nconf = \"{}\"\n", buckets.display());
    lab.whole();

    // Every row between nodes that is in use, and no other: witnesses run no rate limiter.
    let mut expected = BTreeSet::new();
    for from in NODES {
        for to in NODES.into_iter().filter(|it| *it != from) {
            expected.insert(format!("{from} {to} node_control 7777/tcp open"));
            expected.insert(format!("{from} {to} healthcheck.icmp icmp open"));
            if to != "w1" {
                expected.insert(format!("{from} {to} rate_limit 9001/tcp open"));
            }
        }
    }
    eventually("gossip tells where all listen", patience(), || {
        rows(&matrix(&lab, "n1", &[])) == expected
    });

    // One port, one direction, two nodes.
    let cut = |from: &str, port: &str, what: &str| {
        let from = lab.address(from);
        format!("ip saddr {from} tcp dport {port} {what}")
    };
    let input = "filter hook input priority 0";
    rules(&lab, "n3", input, &cut("n1", "9001", "drop"));
    let json = matrix(&lab, "n2", &[]);
    assert_eq!(not_ok(&json), set(&["n1 n3 rate_limit 9001/tcp filtered"]));
    assert_eq!(rows(&json).len(), expected.len());
    let table = lab.doctor("w1", &[]);
    assert!(!table.status.success());
    let lines: Vec<&str> = table.stdout.lines().collect();
    let cells = |at: usize| {
        lines[at]
            .split("  ")
            .map(str::trim)
            .filter(|it| !it.is_empty())
    };
    assert_eq!(
        cells(0).collect::<Vec<_>>(),
        ["from", "n1", "n2", "n3", "w1"]
    );
    let bad = ["n1", "-", "ok", "9001/tcp filtered", "ok"];
    assert_eq!(cells(1).collect::<Vec<_>>(), bad);
    assert_eq!(
        table.stdout.matches("filtered").count(),
        2,
        "{}",
        table.stdout
    );
    for line in [
        "n1 to n3: rate_limit 9001/tcp: filtered: 10.254.0.3:9001 does not answer",
        "        ask ",
        "        rule: allow out tcp to 10.254.0.3 port 9001",
        "tried: healthcheck.icmp icmp, node_control 7777/tcp, rate_limit 9001/tcp",
    ] {
        assert!(
            table.stdout.contains(line),
            "no {line:?} in {}",
            table.stdout
        );
    }
    let junit = lab.doctor("n1", &["--junit"]).stdout;
    std::fs::write(lab.path("junit.xml"), &junit).unwrap();
    let script = "import sys, xml.etree.ElementTree as e; s = e.parse(sys.argv[1]).getroot(); \
        print(s.get(\"tests\"), s.get(\"failures\"), [c.get(\"name\") for c in s if len(c)])";
    let python = Program::new("python3")
        .args(["-c", script])
        .arg(lab.path("junit.xml"));
    let read = python.run(patience()).success().stdout;
    let count = expected.len();
    assert_eq!(
        read.trim(),
        format!("{count} 1 ['n1 to n3: rate_limit 9001/tcp']")
    );

    // Rejected is not dropped.
    rules(
        &lab,
        "n3",
        input,
        &cut("n2", "9001", "reject with tcp reset"),
    );
    let json = matrix(&lab, "n1", &[]);
    assert_eq!(not_ok(&json), set(&["n2 n3 rate_limit 9001/tcp closed"]));

    // The control port itself: the node behind it is asked by way of another one.
    rules(&lab, "n3", input, &cut("n1", "7777", "drop"));
    let json = matrix(&lab, "n1", &[]);
    assert_eq!(
        not_ok(&json),
        set(&["n1 n3 node_control 7777/tcp filtered"])
    );
    assert_eq!(rows(&json).len(), expected.len());
    lab.on("n3", "nft delete table ip cut");

    // Somebody in between, who has a certificate by another authority for the right name; and
    // somebody else who speaks no TLS.
    let id = |node: &str| {
        let status = lab.status(node).unwrap();
        let nodes = status["nodes"].as_array().unwrap().iter();
        let own = nodes.clone().find(|it| it["name"] == node).unwrap();
        own["id"].as_str().unwrap().to_owned()
    };
    let name = format!("{}.node.sallyport.internal", id("n3"));
    let dir = lab.dir.path().display();
    sh(&format!(
        "cd {dir}
         openssl req -x509 -newkey rsa:2048 -nodes -days 9 -keyout in.key -out in.crt -subj '/CN=Inspector' 2>&1
         openssl req -newkey rsa:2048 -nodes -keyout it.key -out it.csr -subj '/CN=it' 2>&1
         echo 'subjectAltName=DNS:{name}' > it.ext
         openssl x509 -req -in it.csr -CA in.crt -CAkey in.key -CAcreateserial -days 9 -extfile it.ext -out it.crt 2>&1"
    ));
    let ns = lab.ns("n2");
    let inspector = Program::new("ip")
        .args([
            "netns", "exec", &ns, "openssl", "s_server", "-quiet", "-accept", "4443",
        ])
        .arg("-key")
        .arg(lab.path("it.key"))
        .arg("-cert")
        .arg(lab.path("it.crt"))
        .start();
    let plain = Program::new("ip")
        .args(["netns", "exec", &ns, "python3", "-u", "-c"])
        .arg(
            "import socket\ns = socket.create_server((\"0.0.0.0\", 4444))\nprint(\"ready\")\n\
             while True:\n c, _ = s.accept()\n c.sendall(b\"220 a mail server\\r\\n\")\n c.close()",
        )
        .start();
    plain.wait_for_line("ready", patience());
    let nat = "nat hook output priority -100";
    let divert = |port: &str| {
        format!(
            "ip daddr {} tcp dport 7777 redirect to :{port}",
            lab.address("n3")
        )
    };
    rules(&lab, "n2", nat, &divert("4443"));
    eventually("the inspector is noticed", patience(), || {
        let json = matrix(&lab, "n1", &[]);
        not_ok(&json) == set(&["n2 n3 node_control 7777/tcp intercepted"])
    });
    assert!(lab.doctor("n1", &[]).stdout.contains("Inspector"));
    drop(inspector);
    rules(&lab, "n2", nat, &divert("4444"));
    let json = matrix(&lab, "n1", &[]);
    assert_eq!(not_ok(&json), set(&["n2 n3 node_control 7777/tcp wrong"]));
    lab.on("n2", "nft delete table ip cut");

    // What no node shows is tried when it is asked for.
    let asked = ["--feature", "maintenance", "--from", "n2"];
    let json = matrix(&lab, "n1", &asked);
    let closed = ["n1", "n3", "w1"].map(|to| format!("n2 {to} maintenance 22/tcp closed"));
    assert_eq!(not_ok(&json), closed.into_iter().collect());
    let typo = lab.doctor("n1", &["--feature", "maintainance"]);
    assert!(
        typo.stderr
            .contains("no feature \"maintainance\"; there are: "),
        "{typo:?}"
    );
    assert!(typo.stderr.contains("maintenance"), "{typo:?}");
}
