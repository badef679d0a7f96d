//! The published list: every node publishes what every node reports, with one history and one key.

use sallyport_testkit::{eventually, eventually_some, foreign};
use serde_json::{Value, json};

use crate::lab::{Lab, patience, sh};

const HOST: &str = "ip-addresses.origin.sallyport.localhost";
const DOCUMENTS: [&str; 5] = [
    "ip-addresses.json",
    "ip-addresses.json.sig",
    "ip-addresses.pem",
    "changes.json",
    "rss",
];

/// A document of a node, as a neighbour that trusts the cluster's authority gets it; base64, because
/// a signature is no text.
fn document(lab: &Lab, node: &str, path: &str) -> String {
    let (address, ca) = (lab.address(node), lab.path("n1/control/ca.crt"));
    lab.on(
        "nb",
        &format!(
            "curl -sS -m 30 --cacert {} --resolve {HOST}:443:{address} https://{HOST}/{path} | base64 -w0",
            ca.display()
        ),
    )
}

fn list(lab: &Lab, node: &str) -> Option<Value> {
    let text = sh(&format!(
        "echo {} | base64 -d",
        document(lab, node, DOCUMENTS[0])
    ));
    serde_json::from_str(&text).ok()
}

/// Waits until `of` all publish exactly these addresses; the list.
#[track_caller]
fn publish(lab: &Lab, of: &[&str], addresses: &Value) -> Value {
    eventually_some("all nodes publish the addresses", patience(), || {
        let mut lists: Vec<Value> = of.iter().filter_map(|node| list(lab, node)).collect();
        let all = lists.len() == of.len();
        lists.dedup();
        let [list] = lists.as_slice() else {
            return None;
        };
        (all && list["ingressIPs"]["us"] == *addresses).then(|| list.clone())
    })
}

#[test]
fn every_node_publishes_what_every_node_reports_until_one_is_removed() {
    if foreign("openssl", "Debian package openssl").is_none() {
        return;
    }
    let Some(mut lab) = Lab::new("i") else { return };
    lab.whole();
    let data = ["n1", "n2", "n3"];
    let three = json!(["10.254.0.1", "10.254.0.2", "10.254.0.3"]);
    let before = publish(&lab, &data, &three);
    for name in ["us.api", "*.us.cp0", "*.us.tp0"] {
        let name = format!("{name}.sallyport.localhost");
        assert_eq!(before["regions"]["us"][&name], three, "{before:#}");
    }
    assert_eq!(before["egressIPs"]["us"], three);

    // One version, one history, one feed, one key: a reader need not know which node it met.
    for path in DOCUMENTS {
        let mut all: Vec<String> = data.iter().map(|node| document(&lab, node, path)).collect();
        all.dedup();
        assert_eq!(all.len(), 1, "{path} differs between nodes");
    }
    let dir = lab.dir.path().display();
    for (name, node, path) in [
        ("list", "n1", DOCUMENTS[0]),
        ("signature", "n2", DOCUMENTS[1]),
        ("key.pem", "n3", DOCUMENTS[2]),
    ] {
        let bytes = document(&lab, node, path);
        sh(&format!("echo {bytes} | base64 -d > {dir}/{name}"));
    }
    sh(&format!(
        "cd {dir}; openssl pkeyutl -verify -pubin -inkey key.pem -rawin -in list -sigfile signature"
    ));

    // A node that is down may come back: its address stays.
    lab.running.get_mut("n3").unwrap().kill9();
    let rest = ["n1", "n2", "w1"];
    lab.sees("n1", &rest);
    assert_eq!(publish(&lab, &data[..2], &three), before);

    // Removed, it is withdrawn, and the history says so, on both that are left.
    lab.told("n1", &["remove", "n3"]).success();
    let two = json!(["10.254.0.1", "10.254.0.2"]);
    publish(&lab, &data[..2], &two);
    let since = before["updateDate"].as_str().unwrap();
    for node in ["n1", "n2"] {
        let changes = document(&lab, node, &format!("changes.json?since={since}"));
        let changes: Value =
            serde_json::from_str(&sh(&format!("echo {changes} | base64 -d"))).unwrap();
        let removed = &changes["versions"][0]["changes"][0]["removed"];
        assert_eq!(*removed, json!(["10.254.0.3"]), "{changes:#}");
    }

    // A node that is told another address says so when it starts anew; with a load balancer in
    // front of it, that one's.
    let file = lab.path("n2.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let told = "[control_planes]\ningress = [\"192.0.2.80\"]\n";
    std::fs::write(&file, format!("{text}{told}")).unwrap();
    lab.running.get_mut("n2").unwrap().terminate();
    assert!(
        lab.running
            .get_mut("n2")
            .unwrap()
            .wait(patience())
            .success()
    );
    lab.start("n2");
    publish(&lab, &data[..2], &json!(["10.254.0.1", "192.0.2.80"]));
    eventually("all are there again", patience(), || {
        lab.status("n1").is_some_and(|it| it["majority"] == true)
    });
}
