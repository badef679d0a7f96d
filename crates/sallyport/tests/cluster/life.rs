//! A cluster's ordinary life: it is founded, grows, works, and loses a node on purpose.

use crate::lab::{KEY, Lab, NODES, patience};

#[test]
fn three_nodes_and_a_witness_are_founded_asked_drained_and_parted() {
    let Some(mut lab) = Lab::new("l") else { return };
    lab.whole();
    let (leader, _) = lab.leader(&NODES, &["n1", "n2", "n3"]);

    // A neighbour sees the contract's ports and no others.
    let data = ["443/tcp open", "7777/tcp open", "9110/tcp open"];
    assert_eq!(open_ports(&lab, "n2"), data);
    assert_eq!(open_ports(&lab, "w1"), data[1..]);

    // Gateways and operators trust one authority, whichever node they meet.
    let authority = |node: &str| std::fs::read(lab.path(node).join("control/ca.crt")).unwrap();
    assert_eq!(authority("n1"), authority("n3"));

    // Health.
    for node in ["n1", "n2", "n3"] {
        lab.health_is(node, "/testall", "200");
    }
    assert_eq!(lab.health("w1", "/testall", None), "503");
    let body = lab.on(
        "nb",
        &format!("curl -s -i http://{}:9110/testall", lab.address("n1")),
    );
    assert!(
        body.contains("content-type: text/plain") && body.ends_with("\r\n\r\nOK"),
        "{body}"
    );
    for check in [
        "memory",
        "services",
        "network",
        "internet",
        "email",
        "db",
        "replicaset",
    ] {
        lab.health_is("n1", &format!("/status/{check}"), "204");
    }
    assert_eq!(lab.health("n1", "/status/cpu", None), "401");
    assert_eq!(
        lab.health("n1", "/health/status/cpu", Some("another-key-than-that")),
        "401"
    );
    assert_eq!(lab.health("n1", "/status/everything", Some(KEY)), "404");
    let codes = lab.on(
        "nb",
        &format!(
            "curl -s -o /dev/null -w \"%{{http_code}}\\n\" -u api_keys_health:{KEY} \
             \"http://{}:9110/status/memory?[1-100]\"",
            lab.address("n1")
        ),
    );
    assert!(codes.contains("429") && codes.contains("204"), "{codes}");
    let metrics = lab.on(
        "nb",
        &format!(
            "curl -s -u api_keys_health:{KEY} http://{}:9110/metrics",
            lab.address("n1")
        ),
    );
    for line in [
        "sallyport_healthcheck_serving 1",
        "sallyport_healthcheck_node_live{node=\"w1\",role=\"witness\"} 1",
        "sallyport_healthcheck_data_nodes 3",
    ] {
        assert!(metrics.contains(line), "no {line} in\n{metrics}");
    }

    // The doctor: every node tries every other one, over the control channel.
    let matrix = lab.doctor("n1", &[]).success().stdout;
    let words: Vec<Vec<&str>> = matrix
        .lines()
        .map(|it| it.split_whitespace().collect())
        .collect();
    assert_eq!(words[0], ["from", "n1", "n2", "n3", "w1"]);
    assert_eq!(words[2], ["n2", "ok", "-", "ok", "ok"]);
    assert_eq!(words.len(), 6, "{matrix}");
    assert_eq!(words[5][0], "tried:", "{matrix}");
    let json = lab
        .doctor("w1", &["--from", "n3", "--json"])
        .success()
        .stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        json["matrix"][0]["rows"].as_array().unwrap().len(),
        6,
        "{json:#}"
    );
    let typo = lab.doctor("n1", &["--from", "n7"]);
    assert!(
        typo.stderr.contains("no node \"n7\"; there are: n1"),
        "{typo:?}"
    );

    // What is wanted of a node is done, by way of the database, whoever is asked.
    lab.told("n2", &["drain", "n3"]).success();
    lab.is("w1", "n3", "drained");
    lab.health_is("n3", "/testall", "503");
    assert_eq!(open_ports(&lab, "n3"), data[1..]);
    lab.told("n3", &["cordon", leader]).success();
    lab.is("n1", leader, "cordoned");
    let others: Vec<&str> = ["n1", "n2"]
        .into_iter()
        .filter(|it| *it != leader)
        .collect();
    let (leader, _) = lab.leader(&NODES, &others);
    for node in ["n1", "n2", "n3"] {
        lab.told("n1", &["uncordon", node]).success();
    }
    for node in ["n1", "n2", "n3"] {
        lab.is("w1", node, "active");
        lab.health_is(node, "/testall", "200");
    }
    let typo = lab.told("n1", &["drain", "n4"]);
    assert!(
        typo.stderr
            .contains("no node \"n4\"; there are: n1, n2, n3, w1"),
        "{typo:?}"
    );
    let witness = lab.told("w1", &["drain", "n1"]);
    assert!(witness.stderr.contains("ask another node"), "{witness:?}");

    // A removed node stops, and is refused however often it tries.
    let removed = if leader == "n3" { "n2" } else { "n3" };
    let rest: Vec<&str> = NODES.into_iter().filter(|it| *it != removed).collect();
    lab.told(leader, &["remove", removed]).success();
    let program = lab.running.get_mut(removed).unwrap();
    program.wait_for_line("was removed from the cluster", patience());
    assert!(!program.wait(patience()).success());
    for node in &rest {
        lab.sees(node, &rest);
    }
    let again = lab.told(removed, &["run"]);
    assert!(
        again.stderr.contains("was removed from the cluster"),
        "{again:?}"
    );

    // Its name is free again.
    let other = if removed == "n3" { "n3" } else { "n2" };
    std::fs::remove_dir_all(lab.path(other)).unwrap();
    lab.join(other, leader, "data");
    lab.start(other);
    for node in NODES {
        lab.sees(node, &NODES);
    }
}

/// Every TCP port that the neighbour finds open.
pub(crate) fn open_ports(lab: &Lab, node: &str) -> Vec<String> {
    let found = lab.on(
        "nb",
        &format!("nmap -n -Pn -sT -p- --min-rate 3000 {}", lab.address(node)),
    );
    let lines = found
        .lines()
        .filter(|line| line.contains("/tcp") && line.contains("open"));
    lines
        .map(|line| {
            line.split_whitespace()
                .take(2)
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect()
}
