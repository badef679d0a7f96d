//! Keys: of people who give commands to the whole cluster from outside, and the nodes' own.

use std::time::Duration;

use sallyport_testkit::{Finished, Program, eventually};
use serde_json::Value;

use crate::lab::{Lab, NODES, patience, sallyport};
use crate::life::open_ports;

/// The command line on the neighbour's machine.
fn remote(lab: &Lab, args: &[&str]) -> Finished {
    Program::new("ip")
        .args(["netns", "exec", &lab.ns("nb")])
        .arg(sallyport())
        .args(args)
        .env("SALLYPORT_KEYS", lab.path("own-keys"))
        .run(patience())
}

fn ask(lab: &Lab, node: &str, args: &[&str]) -> Finished {
    let address = lab.address(node);
    let target = ["--target", &address, "--accept-new", "--output", "json"];
    remote(lab, &[&target, args].concat())
}

fn identity(lab: &Lab, node: &str) -> Value {
    let text = std::fs::read_to_string(lab.path(node).join("identity.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// The records of a node's audit log.
fn recorded(lab: &Lab, node: &str) -> Vec<Value> {
    let done = Program::new(sallyport())
        .args(["audit", "export", "--data"])
        .arg(lab.path(node).join("control"))
        .run(patience());
    let lines = done.stdout.lines();
    lines
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

#[test]
fn a_key_is_allowed_once_for_all_and_every_call_is_recorded() {
    let Some(mut lab) = Lab::new("k") else { return };
    let buckets = lab.path("buckets.yml");
    std::fs::write(&buckets, "buckets:\n  ip: {size: 10}\n").unwrap();
    lab.more = format!(
        "[appliance_cli]\nlisten = \"0.0.0.0:10121\"\n[rate_limit]\nconf = \"{}\"\n",
        buckets.display()
    );
    lab.whole();
    for node in ["n1", "n2", "n3"] {
        lab.health_is(node, "/testall", "200");
    }
    // A neighbour sees the ports of the contract's entries that are in use, and on a witness, which
    // runs nothing, those of membership and health.
    let data = ["443", "7777", "9001", "9110", "10121"].map(|port| format!("{port}/tcp open"));
    assert_eq!(open_ports(&lab, "n2"), data);
    assert_eq!(open_ports(&lab, "w1"), ["7777/tcp open", "9110/tcp open"]);
    let public = remote(&lab, &["keys", "create", "--name", "ann"]).success();
    let public = public.stdout.trim().to_owned();
    let unknown = ask(&lab, "n2", &["ping"]);
    assert!(!unknown.status.success(), "{unknown:?}");
    lab.told("n1", &["allow-key", &public]).success();
    let listed = lab.told("n3", &["keys"]).success().stdout;
    assert!(listed.contains("ann"), "{listed}");
    for node in ["n1", "n2", "n3"] {
        eventually("the key is known", patience(), || {
            ask(&lab, node, &["ping"]).status.success()
        });
    }

    // The matrix of the doctor, from outside the cluster.
    let told = ask(&lab, "n2", &["doctor"]).success().stdout;
    let told: Value = serde_json::from_str(&told).unwrap();
    let ways = told["arguments"]["ways"].as_array().unwrap();
    let tried = |from: &str, to: &str| {
        let of = |it: &&Value| it["from"] == from && it["to"] == to && it["status"] == "open";
        ways.iter().filter(of).count()
    };
    assert!(tried("n1", "n3") > 0 && tried("w1", "n2") > 0, "{told:#}");
    let one = ask(&lab, "n2", &["doctor", "from=n3"]).success().stdout;
    let one: Value = serde_json::from_str(&one).unwrap();
    let ways = one["arguments"]["ways"].as_array().unwrap();
    assert!(ways.iter().all(|it| it["from"] == "n3"), "{one:#}");
    let typo = ask(&lab, "n2", &["doctor", "n7"]);
    assert!(
        !typo.status.success() && typo.stdout.contains("n7"),
        "{typo:?}"
    );
    lab.cable("n3", "down");
    lab.sees("n1", &["n1", "n2", "w1"]);
    let closed = ask(&lab, "n1", &["doctor", "n1"]);
    assert!(!closed.status.success(), "{closed:?}");
    assert!(
        closed.stdout.contains("n1 to n3: node_control"),
        "{closed:?}"
    );
    lab.cable("n3", "up");
    lab.sees("n1", &NODES);

    // Commands for nodes are in the audit log, with the key that gave them.
    ask(&lab, "n2", &["cordon", "n3"]).success();
    lab.is("n1", "n3", "cordoned");
    ask(&lab, "n2", &["uncordon", "n3"]).success();
    lab.is("n1", "n3", "active");
    let audit = Program::new(sallyport())
        .args(["audit", "export", "--data"])
        .arg(lab.path("n2").join("control"))
        .run(patience())
        .stdout;
    for part in [
        "appliance_cli/cordon",
        "name=n3",
        "appliance_cli/doctor",
        "ann",
    ] {
        assert!(audit.contains(part), "no {part} in\n{audit}");
    }

    // So are commands that are given on a node itself, and none is there twice.
    lab.told("n2", &["cordon", "n1"]).success();
    lab.is("n3", "n1", "cordoned");
    lab.told("n2", &["uncordon", "n1"]).success();
    lab.told("n2", &["token", "--role", "witness"]).success();
    let typo = lab.told("n2", &["drain", "n7"]);
    assert!(typo.stderr.contains("no node \"n7\""), "{typo:?}");
    let audit = recorded(&lab, "n2");
    let given = |request: &str, query: &str, status: u16| {
        let of = |it: &&Value| {
            it["request"] == request
                && it["act"] == "COMMAND"
                && it["query"].as_str().is_some_and(|it| it.starts_with(query))
                && it["status"] == status
                && it["principal_name"] == "operator of the node"
        };
        audit.iter().filter(of).count()
    };
    assert_eq!(given("node/want", "name=n1&wanted=cordoned", 200), 1);
    assert_eq!(given("node/want", "name=n1&wanted=active", 200), 1);
    assert_eq!(given("node/want", "name=n7&wanted=drained", 404), 1);
    assert_eq!(given("node/token", "role=witness&secs=", 200), 1);
    // what came by way of port 10121 is its record only
    assert_eq!(given("node/want", "name=n3", 200), 0);

    // Out on all nodes, also while the database is away from one of them.
    lab.told("n2", &["revoke-key", "ann"]).success();
    for node in ["n1", "n2", "n3"] {
        eventually("the key is refused", patience(), || {
            !ask(&lab, node, &["ping"]).status.success()
        });
    }
    let twice = lab.told("n2", &["revoke-key", "ann"]);
    assert!(twice.stderr.contains("no key of the cluster"), "{twice:?}");
}

#[test]
fn nodes_change_their_keys_while_they_run_and_the_former_are_worthless() {
    let Some(mut lab) = Lab::new("r") else { return };
    lab.whole();
    let mut former = Vec::new();
    for node in ["n2", "w1"] {
        let before = identity(&lab, node);
        eventually("a data node reaches the database", patience(), || {
            let status = lab.status("n1").unwrap();
            status["database"] == true
        });
        lab.told(node, &["rotate-key"]).success();
        let after = identity(&lab, node);
        assert_ne!(before["key"], after["key"]);
        assert_eq!(before["id"], after["id"]);
        lab.running[node].wait_for_line("former key of this node is nobody", patience());
        former.push((node, before));
    }
    // They are there, in old connections and in new ones.
    for node in NODES {
        lab.sees(node, &NODES);
    }
    lab.doctor("n1", &[]).success();
    lab.running.get_mut("n2").unwrap().kill9();
    lab.sees("n1", &["n1", "n3", "w1"]);
    lab.start("n2");
    for node in NODES {
        lab.sees(node, &NODES);
    }
    // Whoever has a copy of the former key is nobody.
    let before = lab.running["n1"].lines();
    lab.running.get_mut("n2").unwrap().kill9();
    let (_, old) = &former[0];
    let own = identity(&lab, "n2");
    let file = lab.path("n2").join("identity.json");
    std::fs::write(&file, old.to_string()).unwrap();
    let stale = lab.node("n2", &["run"]).start();
    lab.running["n1"].wait_for_line_after(
        before,
        "its key is of no node of this cluster",
        patience(),
    );
    drop(stale);
    std::fs::write(&file, own.to_string()).unwrap();
    std::thread::sleep(Duration::ZERO);
    lab.start("n2");
    for node in NODES {
        lab.sees(node, &NODES);
    }
}
