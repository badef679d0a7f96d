//! Nodes that die, freeze and are cut off: at most one leader's writes in an epoch, the right
//! members, no acknowledged write lost, truthful health.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sallyport_testkit::eventually;

use crate::lab::{Lab, NODES, patience, sh};

const DATA: [&str; 3] = ["n1", "n2", "n3"];

/// Writes to whichever node takes it, and remembers what was acknowledged.
struct Writer {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Vec<String>>,
}

impl Writer {
    fn start(lab: &Lab) -> Writer {
        let stop = Arc::new(AtomicBool::new(false));
        let ns = lab.ns("nb");
        let targets: Vec<(String, String)> = DATA
            .iter()
            .map(|node| {
                let token = std::fs::read_to_string(lab.path(node).join("control/token")).unwrap();
                (lab.address(node), token.trim().to_owned())
            })
            .collect();
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut acknowledged = Vec::new();
            // Bounded: the test ends long before.
            for at in 0..3_000 {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let (address, token) = &targets[at % targets.len()];
                let name = format!("written-{at}");
                let code = sh(&format!(
                    "ip netns exec {ns} curl -sk -m 2 -o /dev/null -w %{{http_code}} \
                     -H 'Authorization: Bearer {token}' -H 'Content-Type: application/json' \
                     -d '{{\"name\":\"{name}\"}}' https://{address}/v2/control-planes || true"
                ));
                if code == "201" {
                    acknowledged.push(name);
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            acknowledged
        });
        Writer { stop, thread }
    }

    fn finish(self) -> Vec<String> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}

/// Keeps the leader at work: one node is wanted cordoned and active by turns.
fn toggle(lab: &Lab, by: &str, node: &str, wanted: &str) {
    let verb = if wanted == "active" {
        "uncordon"
    } else {
        "cordon"
    };
    lab.told(by, &[verb, node]).success();
    lab.is(by, node, wanted);
}

fn without(node: &str) -> Vec<&'static str> {
    NODES.into_iter().filter(|it| *it != node).collect()
}

fn data_without(node: &str) -> Vec<&'static str> {
    DATA.into_iter().filter(|it| *it != node).collect()
}

#[test]
fn killed_frozen_and_cut_off_nodes_leave_one_leader_and_lose_nothing() {
    let Some(mut lab) = Lab::new("f") else { return };
    lab.whole();
    for node in DATA {
        lab.health_is(node, "/testall", "200");
    }
    let writer = Writer::start(&lab);
    let (first, epoch) = lab.leader(&NODES, &DATA);

    // kill -9 of the leader, and its return
    lab.running.get_mut(first).unwrap().kill9();
    let rest = without(first);
    for node in &rest {
        lab.sees(node, &rest);
    }
    let (second, later) = lab.leader(&rest, &data_without(first));
    assert!(later > epoch, "{later} is not after {epoch}");
    lab.health_is(second, "/status/replicaset", "520");
    lab.health_is(second, "/status/network", "204"); // the machine is there, its process is not
    let busy = data_without(first)
        .into_iter()
        .find(|it| *it != second)
        .unwrap();
    toggle(&lab, second, busy, "cordoned");
    lab.health_is(busy, "/testall", "503");
    toggle(&lab, second, busy, "active");
    lab.start(first);
    for node in NODES {
        lab.sees(node, &NODES);
    }
    lab.health_is(second, "/status/replicaset", "204");

    // SIGSTOP of the leader beyond its lease, and its waking
    lab.signal(second, "STOP");
    let rest = without(second);
    for node in &rest {
        lab.sees(node, &rest);
    }
    let (third, after) = lab.leader(&rest, &data_without(second));
    assert!(after > later, "{after} is not after {later}");
    let busy = data_without(second)
        .into_iter()
        .find(|it| *it != third)
        .unwrap();
    toggle(&lab, third, busy, "cordoned");
    lab.signal(second, "CONT");
    toggle(&lab, third, busy, "active");
    for node in NODES {
        lab.sees(node, &NODES);
    }
    let (leader, _) = lab.leader(&NODES, &DATA);

    // The leader's cable is pulled; it reaches the database, but no majority
    lab.cable(leader, "down");
    let rest = without(leader);
    for node in &rest {
        lab.sees(node, &rest);
    }
    lab.sees(leader, &[leader]);
    let (next, _) = lab.leader(&rest, &data_without(leader));
    lab.health_is(next, "/status/network", "520");
    let busy = data_without(leader)
        .into_iter()
        .find(|it| *it != next)
        .unwrap();
    toggle(&lab, next, busy, "cordoned");
    lab.cable(leader, "up");
    toggle(&lab, next, busy, "active");
    for node in NODES {
        lab.sees(node, &NODES);
    }

    // A cut in one direction: what n1 sends does not reach n2. Others know both
    let ban = format!(
        "table inet cut {{ chain c {{ type filter hook input priority 0; ip saddr {} drop; }} }}",
        lab.address("n1")
    );
    std::fs::write(lab.path("cut.nft"), ban.replace("} }", "}\n}")).unwrap();
    lab.on("n2", &format!("nft -f {}", lab.path("cut.nft").display()));
    lab.health_is("n1", "/status/network", "520");
    lab.health_is("n3", "/status/network", "204");
    for node in NODES {
        lab.sees(node, &NODES);
    }
    lab.leader(&NODES, &DATA);
    let matrix = lab.doctor("n3", &[]);
    assert!(!matrix.status.success(), "{matrix:?}");
    for line in [
        "n1 to n2: node_control 7777/tcp: filtered",
        "n2 to n1: healthcheck.icmp icmp: filtered",
    ] {
        assert!(
            matrix.stdout.contains(line),
            "no {line:?} in\n{}",
            matrix.stdout
        );
    }
    assert!(!matrix.stdout.contains("n3 to"), "{}", matrix.stdout);
    lab.on("n2", "nft delete table inet cut");
    lab.health_is("n1", "/status/network", "204");

    // A second fault during the recovery from the first: two of four are no majority
    let (leader, before) = lab.leader(&NODES, &DATA);
    let next = data_without(leader)[0];
    lab.running.get_mut(leader).unwrap().kill9();
    lab.running.get_mut(next).unwrap().kill9();
    let left = data_without(leader)
        .into_iter()
        .find(|it| *it != next)
        .unwrap();
    lab.sees(left, &{
        let mut two = vec![left, "w1"];
        two.sort_unstable();
        two
    });
    eventually("nobody leads", patience(), || {
        let status = lab.status(left).unwrap();
        status["majority"] == false && status["leader"].is_null()
    });
    lab.health_is(left, "/testall", "200"); // it serves: the database is there
    lab.start(next);
    let three: Vec<&str> = without(leader);
    for node in &three {
        lab.sees(node, &three);
    }
    let (_, again) = lab.leader(&three, &data_without(leader));
    assert!(again >= before);
    lab.start(leader);
    for node in NODES {
        lab.sees(node, &NODES);
    }

    // The witness dies: nobody minds
    lab.running.get_mut("w1").unwrap().kill9();
    for node in DATA {
        lab.sees(node, &DATA);
        lab.health_is(node, "/testall", "200");
    }
    lab.leader(&DATA, &DATA);

    let acknowledged = writer.finish();
    assert!(
        acknowledged.len() > 20,
        "only {} writes",
        acknowledged.len()
    );
    let stored = lab.sql("SELECT name FROM control_plane");
    let stored: std::collections::HashSet<&str> = stored.lines().collect();
    let lost: Vec<_> = acknowledged
        .iter()
        .filter(|it| !stored.contains(it.as_str()))
        .collect();
    assert!(lost.is_empty(), "lost: {lost:?}");

    // One holder an epoch, and no step of an epoch after the next one has begun.
    let steps = lab.sql("SELECT count(*) FROM cluster_step");
    assert!(steps.parse::<u64>().unwrap() >= 12, "{steps} steps");
    let strangers =
        "SELECT count(*) FROM cluster_step s LEFT JOIN cluster_term t ON t.epoch = s.epoch
                     WHERE t.holder IS DISTINCT FROM s.holder";
    assert_eq!(lab.sql(strangers), "0");
    let late = "SELECT count(*) FROM cluster_step s JOIN cluster_term t ON t.epoch = s.epoch + 1
                WHERE s.at_us >= t.since_us";
    assert_eq!(lab.sql(late), "0");
}
