//! What faults are judged by, wherever the nodes run: who writes meanwhile, and what must hold then.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sallyport_testkit::eventually;

use crate::lab::{Lab, NODES, patience, sh};

pub(crate) const DATA: [&str; 3] = ["n1", "n2", "n3"];

/// Writes to whichever node takes it, and remembers what was acknowledged.
pub(crate) struct Writer {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Vec<String>>,
}

impl Writer {
    pub(crate) fn start(lab: &Lab) -> Writer {
        let stop = Arc::new(AtomicBool::new(false));
        let prefix = lab.prefix("nb");
        let targets: Vec<(String, String)> = DATA
            .iter()
            .map(|node| (lab.api(node), token(lab, node)))
            .collect();
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut acknowledged = Vec::new();
            // Bounded: the test ends long before.
            for at in 0..3_000 {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let (api, token) = &targets[at % targets.len()];
                let name = format!("written-{at}");
                let code = sh(&format!(
                    "{prefix} curl -sk -m 2 -o /dev/null -w %{{http_code}} \
                     -H 'Authorization: Bearer {token}' -H 'Content-Type: application/json' \
                     -d '{{\"name\":\"{name}\"}}' {api}/v2/control-planes || true"
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

    /// Ends it; the names that were acknowledged.
    pub(crate) fn finish(self) -> Vec<String> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}

/// The token of a node's API.
#[track_caller]
pub(crate) fn token(lab: &Lab, node: &str) -> String {
    let text = std::fs::read_to_string(lab.path(node).join("control/token")).unwrap();
    text.trim().to_owned()
}

/// Keeps the leader at work: one node is wanted cordoned and active by turns.
#[track_caller]
pub(crate) fn toggle(lab: &Lab, by: &str, node: &str, wanted: &str) {
    let verb = if wanted == "active" {
        "uncordon"
    } else {
        "cordon"
    };
    lab.told(by, &[verb, node]).success();
    lab.is(by, node, wanted);
}

pub(crate) fn without(node: &str) -> Vec<&'static str> {
    NODES.into_iter().filter(|it| *it != node).collect()
}

pub(crate) fn data_without(node: &str) -> Vec<&'static str> {
    DATA.into_iter().filter(|it| *it != node).collect()
}

/// One of the data nodes that is neither.
pub(crate) fn third(one: &str, other: &str) -> &'static str {
    data_without(one)
        .into_iter()
        .find(|it| *it != other)
        .unwrap()
}

/// Waits until each of these sees exactly these.
#[track_caller]
pub(crate) fn see_each_other(lab: &Lab, nodes: &[&str]) {
    for node in nodes {
        lab.sees(node, nodes);
    }
}

/// A whole cluster that is written to, whose leader was killed once and frozen once.
pub(crate) fn begin(lab: &mut Lab) -> Writer {
    lab.whole();
    for node in DATA {
        lab.health_is(node, "/testall", "200");
    }
    let writer = Writer::start(lab);
    kill_the_leader(lab);
    freeze_the_leader(lab);
    writer
}

/// The leader dies and comes back; another leads meanwhile.
#[track_caller]
pub(crate) fn kill_the_leader(lab: &mut Lab) {
    let (first, epoch) = lab.leader(&NODES, &DATA);
    lab.running.get_mut(first).unwrap().kill9();
    let rest = without(first);
    see_each_other(lab, &rest);
    let (second, later) = lab.leader(&rest, &data_without(first));
    assert!(later > epoch, "{later} is not after {epoch}");
    lab.health_is(second, "/status/replicaset", "520");
    lab.health_is(second, "/status/network", "204"); // the machine is there, its process is not
    let busy = third(first, second);
    toggle(lab, second, busy, "cordoned");
    lab.health_is(busy, "/testall", "503");
    toggle(lab, second, busy, "active");
    lab.start(first);
    see_each_other(lab, &NODES);
    lab.health_is(second, "/status/replicaset", "204");
}

/// The leader is paused beyond its lease and wakes; another leads from then on.
#[track_caller]
pub(crate) fn freeze_the_leader(lab: &mut Lab) {
    let (first, epoch) = lab.leader(&NODES, &DATA);
    lab.signal(first, "STOP");
    let rest = without(first);
    see_each_other(lab, &rest);
    let (second, later) = lab.leader(&rest, &data_without(first));
    assert!(later > epoch, "{later} is not after {epoch}");
    let busy = third(first, second);
    toggle(lab, second, busy, "cordoned");
    lab.signal(first, "CONT");
    toggle(lab, second, busy, "active");
    see_each_other(lab, &NODES);
    lab.leader(&NODES, &DATA);
}

/// While the leader's death is mended another node dies: two of four are no majority. Both come back.
#[track_caller]
pub(crate) fn kill_two(lab: &mut Lab) {
    let (leader, before) = lab.leader(&NODES, &DATA);
    let next = data_without(leader)[0];
    let left = third(leader, next);
    lab.running.get_mut(leader).unwrap().kill9();
    lab.running.get_mut(next).unwrap().kill9();
    let mut two = [left, "w1"];
    two.sort_unstable();
    lab.sees(left, &two);
    eventually("nobody leads", patience(), || {
        lab.status(left)
            .is_some_and(|status| status["majority"] == false && status["leader"].is_null())
    });
    lab.health_is(left, "/testall", "200"); // it serves: the database is there
    lab.start(next);
    let three = without(leader);
    see_each_other(lab, &three);
    let (_, again) = lab.leader(&three, &data_without(leader));
    assert!(again >= before);
    lab.start(leader);
    see_each_other(lab, &NODES);
}

/// The witness dies, which nobody minds, and comes back.
#[track_caller]
pub(crate) fn kill_the_witness(lab: &mut Lab) {
    lab.running.get_mut("w1").unwrap().kill9();
    for node in DATA {
        lab.sees(node, &DATA);
        lab.health_is(node, "/testall", "200");
    }
    lab.leader(&DATA, &DATA);
    lab.start("w1");
    see_each_other(lab, &NODES);
}

/// Every acknowledged write is there.
#[track_caller]
pub(crate) fn nothing_is_lost(lab: &Lab, writer: Writer) {
    let acknowledged = writer.finish();
    let writes = acknowledged.len();
    assert!(writes > 20, "only {writes} writes");
    let stored = lab.sql("SELECT name FROM control_plane");
    let stored: HashSet<&str> = stored.lines().collect();
    let lost: Vec<_> = acknowledged
        .iter()
        .filter(|it| !stored.contains(it.as_str()))
        .collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
}

/// One holder an epoch, no step of an epoch after the next one has begun, and so many steps.
#[track_caller]
pub(crate) fn one_leader_an_epoch(lab: &Lab, steps_min: u64) {
    let steps = lab.sql("SELECT count(*) FROM cluster_step");
    assert!(steps.parse::<u64>().unwrap() >= steps_min, "{steps} steps");
    let strangers =
        "SELECT count(*) FROM cluster_step s LEFT JOIN cluster_term t ON t.epoch = s.epoch
                     WHERE t.holder IS DISTINCT FROM s.holder";
    assert_eq!(lab.sql(strangers), "0");
    let late = "SELECT count(*) FROM cluster_step s JOIN cluster_term t ON t.epoch = s.epoch + 1
                WHERE s.at_us >= t.since_us";
    assert_eq!(lab.sql(late), "0");
}
