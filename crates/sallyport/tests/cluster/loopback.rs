//! The same faults where namespaces are not allowed: each node on an address of its own in
//! 127.0.0.0/8, and ways between them and to the database that break on demand.

use sallyport_testkit::{Fault, eventually};

use crate::chaos::{
    DATA, begin, data_without, kill_the_witness, kill_two, nothing_is_lost, one_leader_an_epoch,
    see_each_other, third, toggle,
};
use crate::lab::{Lab, NODES, patience};

#[test]
fn without_namespaces_faults_leave_one_leader_and_lose_nothing() {
    let Some(mut lab) = Lab::on_loopback() else {
        return;
    };
    let writer = begin(&mut lab);

    // Nothing reaches the leader; what it sends arrives. It is there for all, and goes on.
    let (leader, epoch) = lab.leader(&NODES, &DATA);
    lab.way_to(leader).set(Fault::Silent);
    let busy = data_without(leader)[0];
    toggle(&lab, busy, busy, "cordoned");
    see_each_other(&lab, &NODES);
    lab.way_to(leader).set(Fault::None);
    lab.way_to(leader).reset();
    toggle(&lab, busy, busy, "active");
    let (leader, same) = lab.leader(&NODES, &DATA);
    assert!(same >= epoch, "{same} is before {epoch}");

    // The leader loses the database and nothing else: another leads, and all stay members.
    lab.way_to_database(leader).set(Fault::Silent);
    let (next, later) = lab.leader(&data_without(leader), &data_without(leader));
    assert!(later > same, "{later} is not after {same}");
    lab.health_is(leader, "/testall", "503");
    lab.health_is(leader, "/status/db", "520");
    lab.health_is(leader, "/status/replicaset", "204");
    lab.health_is(next, "/testall", "200");
    see_each_other(&lab, &NODES);
    let busy = third(leader, next);
    toggle(&lab, next, busy, "cordoned");
    toggle(&lab, next, busy, "active");
    lab.way_to_database(leader).set(Fault::None);
    lab.way_to_database(leader).reset();
    lab.health_is(leader, "/testall", "200");

    kill_two(&mut lab);
    kill_the_witness(&mut lab);
    nothing_is_lost(&lab, writer);
    one_leader_an_epoch(&lab, 10);
}

#[test]
fn health_and_membership_do_without_the_database() {
    let Some(mut lab) = Lab::on_loopback() else {
        return;
    };
    lab.whole();
    for node in DATA {
        lab.health_is(node, "/testall", "200");
    }
    for node in DATA {
        lab.way_to_database(node).set(Fault::Cut);
    }
    for node in DATA {
        lab.health_is(node, "/testall", "503");
        lab.health_is(node, "/status/db", "520");
        for well in ["replicaset", "network", "services", "memory"] {
            lab.health_is(node, &format!("/status/{well}"), "204");
        }
    }
    eventually("nobody leads", patience(), || {
        lab.status("n1").is_some_and(|it| it["leader"].is_null())
    });
    // Who dies and comes back meanwhile is gone and there again, though it never saw the database.
    lab.running.get_mut("n2").unwrap().kill9();
    see_each_other(&lab, &["n1", "n3", "w1"]);
    lab.health_is("n1", "/status/replicaset", "520");
    lab.start("n2");
    see_each_other(&lab, &NODES);
    lab.health_is("n2", "/status/replicaset", "204");
    lab.health_is("n2", "/testall", "503");
    for node in DATA {
        lab.way_to_database(node).set(Fault::None);
    }
    for node in DATA {
        lab.health_is(node, "/testall", "200");
    }
    lab.leader(&NODES, &DATA);
}
