//! Rate limits on the nodes of a cluster: who counts together follows who is there. What is granted
//! is counted from outside.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::scope;
use std::time::{Duration, Instant};

use sallyport_appliance::rate_limit::owner_of;
use sallyport_testkit::{Program, eventually, foreign};
use serde_json::{Value, json};

use crate::lab::{Lab, NODES, enter, patience, within};
use crate::limitd_client::Client;

const DATA: [&str; 3] = ["n1", "n2", "n3"];
const SIZE: u64 = 1_000;
const RATE: u64 = 100;
/// Silence is answered with a refusal, so that a slow machine cannot make a promise look broken.
const BUCKETS: &str = "buckets:
  hot: {size: 1000, per_second: 100, when_unreachable: refuse}
  few: {size: 100, when_unreachable: refuse}
  open: {size: 100}
";

/// A cluster whose data nodes limit rates.
fn lab(tag: &str) -> Option<Lab> {
    let mut lab = Lab::new(tag)?;
    std::fs::write(lab.path("buckets.yml"), BUCKETS).unwrap();
    lab.more = format!(
        "[rate_limit]\nconf = \"{}\"\nanswer_ms = 1000\n",
        lab.path("buckets.yml").display()
    );
    lab.whole();
    for from in DATA {
        for to in DATA {
            reaches(&lab, from, 0, to);
        }
    }
    Some(lab)
}

/// Waits until a node forwards to another, passing over its first lines.
#[track_caller]
fn reaches(lab: &Lab, from: &str, lines: usize, to: &str) {
    if from != to {
        let pattern = format!("node reached node=\"{to}\"");
        lab.running[from].wait_for_line_after(lines, &pattern, patience());
    }
}

#[track_caller]
fn loses(lab: &Lab, from: &str, lines: usize, to: &str) {
    let pattern = format!("(node lost.*|takes no keys any more) node=\"{to}\"");
    lab.running[from].wait_for_line_after(lines, &pattern, patience());
}

fn lines(lab: &Lab, node: &str) -> usize {
    lab.running[node].lines()
}

fn owner(bucket: &str, key: &str, among: &[&'static str]) -> &'static str {
    let owner = owner_of(among, bucket.as_bytes(), key.as_bytes()).unwrap();
    NODES.into_iter().find(|it| *it == owner).unwrap()
}

fn without(node: &str) -> Vec<&'static str> {
    DATA.into_iter().filter(|it| *it != node).collect()
}

fn address(lab: &Lab, node: &str) -> SocketAddr {
    format!("{}:9001", lab.address(node)).parse().unwrap()
}

/// A client on the node's own machine, which reaches it whatever is cut.
fn client(lab: &Lab, node: &str) -> Client {
    let at = address(lab, node);
    within(lab, node, || Client::connect(at))
}

/// Takes through these nodes at once while `meanwhile` runs; how much was admitted and in what time.
fn count(
    lab: &mut Lab,
    nodes: &[&str],
    key: &str,
    meanwhile: impl FnOnce(&mut Lab, &AtomicU64),
) -> (u64, Duration) {
    let (stop, admitted) = (AtomicBool::new(false), AtomicU64::new(0));
    let began = Instant::now();
    scope(|scope| {
        for node in nodes {
            for window in [1, 32] {
                let (ns, address) = (lab.ns(node), address(lab, node));
                let (stop, admitted) = (&stop, &admitted);
                scope.spawn(move || {
                    enter(&ns);
                    Client::connect(address).load(key, window, stop, admitted);
                });
            }
        }
        meanwhile(lab, &admitted);
        stop.store(true, Ordering::Relaxed);
    });
    (admitted.load(Ordering::Relaxed), began.elapsed())
}

fn dripped(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap() * RATE / 1_000 + 1
}

/// Calls of limitd's own client from the neighbour; `None` where it is not installed.
fn calls(lab: &Lab, generation: u8, nodes: &[&str], calls: &Value) -> Option<Vec<Value>> {
    let program = foreign(
        "limitd-calls",
        "npm packages limitd-client 1.8.1 and 2.14.1, see .ci/run",
    )?;
    let urls: Vec<String> = nodes
        .iter()
        .map(|node| format!("limitd://{}:9001", lab.address(node)))
        .collect();
    let run = Program::new("ip")
        .args(["netns", "exec", &lab.ns("nb")])
        .arg(program)
        .args([&generation.to_string(), &urls.join(","), &calls.to_string()])
        .run(patience());
    let lines = run.success().stdout;
    Some(
        lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect(),
    )
}

#[test]
fn live_nodes_count_together_and_an_owner_that_dies_costs_one_bucket() {
    let Some(mut lab) = lab("q") else { return };

    // R1: what three nodes admit together is no more than one would.
    let (admitted, time) = count(&mut lab, &DATA, "r1", |_, admitted| {
        eventually("more than a bucket", patience(), || {
            admitted.load(Ordering::Relaxed) > SIZE * 6 / 5
        });
    });
    let bound = SIZE + dripped(time);
    assert!(admitted <= bound, "R1: {admitted} of {bound}");

    // limitd's clients of both generations, at one node and at three.
    for generation in [1, 2] {
        let one = json!([
            ["ping"],
            ["take", "open", "c"],
            ["wait", "open", "c", 2],
            ["status", "open", "c"],
            ["put", "open", "c"],
            ["take", "nope", "c"]
        ]);
        let Some(answers) = calls(&lab, generation, &["n2"], &one) else {
            break;
        };
        assert_eq!(
            answers[1]["result"]["remaining"], 99,
            "generation {generation}: {answers:?}"
        );
        assert_eq!(answers[2]["result"]["remaining"], 97);
        assert_eq!(answers[3]["result"]["items"][0]["remaining"], 97);
        assert_eq!(answers[4]["result"]["remaining"], 100);
        assert!(
            answers[5]["error"]
                .as_str()
                .is_some_and(|it| it.contains("valid") || it.contains("Invalid"))
        );
    }

    // R2: the owner dies under load.
    let dying = owner("hot", "r2", &DATA);
    let rest = without(dying);
    let (admitted, time) = count(&mut lab, &rest, "r2", |lab, admitted| {
        eventually("most of a bucket", patience(), || {
            admitted.load(Ordering::Relaxed) > SIZE / 2
        });
        lab.running.get_mut(dying).unwrap().kill9();
        let before = admitted.load(Ordering::Relaxed);
        eventually("more from the next owner", patience(), || {
            admitted.load(Ordering::Relaxed) > before + SIZE
        });
    });
    let bound = 2 * SIZE + dripped(time);
    assert!(admitted <= bound, "R2: {admitted} of {bound}");

    // The clients go on, with the dead one first on their list.
    for generation in [1, 2] {
        let asked: Vec<Value> = (0..6)
            .map(|n| json!(["take", "open", format!("d{generation}{n}")]))
            .collect();
        let hosts = [dying, rest[0], rest[1]];
        let Some(answers) = calls(&lab, generation, &hosts, &json!(asked)) else {
            break;
        };
        assert!(
            answers.iter().all(|it| it["result"]["conformant"] == true),
            "generation {generation}: {answers:?}"
        );
    }

    // It comes back, and owns its keys again: all three see one bucket.
    let before: Vec<usize> = rest.iter().map(|it| lines(&lab, it)).collect();
    lab.start(dying);
    for (node, lines) in rest.iter().zip(before) {
        reaches(&lab, node, lines, dying);
        reaches(&lab, dying, 0, node);
    }
    see_one_bucket(&lab, "back", dying);

    // A drained node owns nothing and still answers, from the others' buckets.
    let status = lab.told("n1", &["drain", "n3"]);
    status.success();
    lab.is("n1", "n3", "drained");
    for node in ["n1", "n2"] {
        loses(&lab, node, 0, "n3");
    }
    see_one_bucket(&lab, "drained", "n3");
}

/// Waits until all three count a key together that this node owns while it takes keys. With a new key
/// each time: a node that came back fast may be given up once more for its former life.
fn see_one_bucket(lab: &Lab, name: &str, by: &str) {
    let mut keys = (0..)
        .map(|n| format!("{name}-{n}"))
        .filter(|key| owner("few", key, &DATA) == by);
    eventually("all three see one bucket", patience(), || {
        let key = keys.next().unwrap();
        let remaining = DATA.map(|node| client(lab, node).take("few", &key).1);
        remaining == [99, 98, 97]
    });
}

#[test]
fn parted_silent_and_removed_nodes_count_as_promised() {
    let Some(mut lab) = lab("p") else { return };

    // R3: each side of a partition counts alone, and heals.
    let alone = owner("few", "r3", &DATA);
    let rest = without(alone);
    let before = DATA.map(|it| lines(&lab, it));
    lab.cable(alone, "down");
    for (at, node) in DATA.into_iter().enumerate() {
        if node == alone {
            for other in &rest {
                loses(&lab, node, before[at], other);
            }
        } else {
            loses(&lab, node, before[at], alone);
        }
    }
    let admitted = DATA.map(|node| {
        let mut client = client(&lab, node);
        (0..150).filter(|_| client.take("few", "r3").0).count()
    });
    let of = |node: &str| admitted[DATA.iter().position(|it| *it == node).unwrap()];
    assert!(of(alone) <= 100, "R3, one side: {admitted:?}");
    let left = owner("few", "r3", &[rest[0], rest[1]]);
    assert_eq!(of(rest[0]) + of(rest[1]), 100, "R3, {left}: {admitted:?}");
    let before = DATA.map(|it| lines(&lab, it));
    lab.cable(alone, "up");
    for (at, node) in DATA.into_iter().enumerate() {
        if node == alone {
            for other in &rest {
                reaches(&lab, node, before[at], other);
            }
        } else {
            reaches(&lab, node, before[at], alone);
        }
    }
    for node in DATA {
        assert!(!client(&lab, node).take("few", "r3").0, "healed, at {node}");
    }

    // R4: a silent owner is answered for as the bucket type says; then its keys move.
    let key = |bucket: &str| {
        let mut keys = (0..).map(|n| format!("r4-{n}"));
        keys.find(|key| owner(bucket, key, &DATA) == "n3").unwrap()
    };
    let (few, open) = (key("few"), key("open"));
    let mut asking = client(&lab, "n1");
    assert_eq!(asking.take("few", &few), (true, 99));
    let before = DATA.map(|it| lines(&lab, it));
    lab.signal("n3", "STOP");
    assert_eq!(asking.take("few", &few), (false, 0), "R4: refuse");
    assert!(asking.take("open", &open).0, "R4: local");
    for (at, node) in ["n1", "n2"].into_iter().enumerate() {
        loses(&lab, node, before[at], "n3");
    }
    eventually("another owner", patience(), || asking.take("few", &few).0);
    lab.signal("n3", "CONT");
    reaches(&lab, "n1", before[0], "n3");
    reaches(&lab, "n2", before[1], "n3");

    // A node that was removed is no member of this either, however often it tries.
    let before = DATA.map(|it| lines(&lab, it));
    lab.told("n1", &["remove", "n3"]).success();
    for (at, node) in ["n1", "n2"].into_iter().enumerate() {
        loses(&lab, node, before[at], "n3");
    }
    assert!(
        !lab.running
            .get_mut("n3")
            .unwrap()
            .wait(patience())
            .success()
    );
    assert!(asking.take("few", &few).0, "the others go on");
    // it may end before all know why
    let known = "node takes no keys any more.*node=\"n3\"";
    lab.running["n1"].wait_for_line_after(before[0], known, patience());
    let stranger = removed(&lab, "n3");
    assert!(stranger.is_empty(), "{stranger:?}");
    lab.running["n1"].wait_for_line(
        "was removed from the cluster.*|refused between nodes",
        patience(),
    );
}

/// What a node says to one that was removed and asks it as a node.
fn removed(lab: &Lab, node: &str) -> Vec<u8> {
    use std::io::{Read, Write};
    let text = std::fs::read_to_string(lab.path(node).join("identity.json")).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    let [cert, key] = ["certificate", "key"].map(|it| json[it].as_str().unwrap().to_owned());
    let identity = sallyport_runtime::tls::Identity::from_pem(&cert, &key).unwrap();
    let trust = sallyport_runtime::tls::ServerTrust::Anybody;
    let mut config = sallyport_runtime::tls::client_config(trust, Some(&identity)).unwrap();
    config.alpn_protocols = vec![sallyport_appliance::rate_limit::ALPN.to_vec()];
    let at = address(lab, "n1");
    let stream = within(lab, "nb", || std::net::TcpStream::connect(at).unwrap());
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let name = rustls::pki_types::ServerName::try_from("node.sallyport.internal").unwrap();
    let connection = rustls::ClientConnection::new(config.into(), name).unwrap();
    let mut stream = rustls::StreamOwned::new(connection, stream);
    let mut asked = Vec::new();
    crate::limitd_client::take("few", "k", 1).encode(&mut asked);
    let _ = stream.write_all(&asked).and_then(|()| stream.flush());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}
