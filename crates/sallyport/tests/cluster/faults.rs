//! Nodes that die, freeze and are cut off: at most one leader's writes in an epoch, the right
//! members, no acknowledged write lost, truthful health.

use crate::chaos::{
    DATA, begin, data_without, kill_the_witness, kill_two, nothing_is_lost, one_leader_an_epoch,
    see_each_other, third, toggle, without,
};
use crate::lab::{Lab, NODES};

#[test]
fn killed_frozen_and_cut_off_nodes_leave_one_leader_and_lose_nothing() {
    let Some(mut lab) = Lab::new("f") else { return };
    let writer = begin(&mut lab);

    // The leader's cable is pulled; it reaches the database, but no majority
    let (leader, _) = lab.leader(&NODES, &DATA);
    lab.cable(leader, "down");
    let rest = without(leader);
    see_each_other(&lab, &rest);
    lab.sees(leader, &[leader]);
    let (next, _) = lab.leader(&rest, &data_without(leader));
    lab.health_is(next, "/status/network", "520");
    let busy = third(leader, next);
    toggle(&lab, next, busy, "cordoned");
    lab.cable(leader, "up");
    toggle(&lab, next, busy, "active");
    see_each_other(&lab, &NODES);

    one_way_cut(&lab);
    kill_two(&mut lab);
    kill_the_witness(&mut lab);
    nothing_is_lost(&lab, writer);
    one_leader_an_epoch(&lab, 12);
}

/// A cut in one direction: what n1 sends does not reach n2. Others know both.
fn one_way_cut(lab: &Lab) {
    let ban = format!(
        "table inet cut {{ chain c {{ type filter hook input priority 0; ip saddr {} drop; }} }}",
        lab.address("n1")
    );
    std::fs::write(lab.path("cut.nft"), ban.replace("} }", "}\n}")).unwrap();
    lab.on("n2", &format!("nft -f {}", lab.path("cut.nft").display()));
    lab.health_is("n1", "/status/network", "520");
    lab.health_is("n3", "/status/network", "204");
    see_each_other(lab, &NODES);
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
}
