//! What comes back: a node with a blank disk that reaches nobody, a leader that was away longer than its
//! lease, a fault in the middle of another one's mending, a database that fails over.

use std::fs;
use std::sync::Arc;

use sallyport_testkit::{Fault, Postgres, PostgresSetup, eventually};

use crate::chaos::{
    DATA, Writer, data_without, nothing_is_lost, one_leader_an_epoch, see_each_other, third,
    toggle, without,
};
use crate::lab::{Lab, NODES, patience};

#[test]
fn a_blank_disk_that_reaches_nobody_makes_no_second_cluster() {
    let Some(mut lab) = Lab::on_loopback() else {
        return;
    };
    lab.whole();
    lab.leader(&NODES, &DATA);
    let reach = |lab: &Lab, fault: Fault| {
        for node in ["n1", "n2"] {
            lab.way_to(node).set(fault);
            if fault == Fault::None {
                lab.way_to(node).reset();
            }
        }
    };

    // The disk of n3 is new, its settings are the old ones, and it reaches the database only.
    lab.running.get_mut("n3").unwrap().kill9();
    fs::remove_dir_all(lab.path("n3")).unwrap();
    let rest = without("n3");
    see_each_other(&lab, &rest);
    lab.leader(&rest, &["n1", "n2"]);
    lab.told("n1", &["remove", "n3"]).success();
    let token = lab.told("n1", &["token"]).success().stdout;
    reach(&lab, Fault::Silent);
    let alone = lab.told("n3", &["run"]);
    assert!(
        !alone.status.success() && alone.stderr.contains("node join"),
        "{alone:?}"
    );
    let founded = lab.told("n3", &["init"]);
    assert!(
        !founded.status.success() && founded.stderr.contains("cluster"),
        "{founded:?}"
    );
    let joined = lab.told("n3", &["join", "--token", token.trim()]);
    assert!(!joined.status.success(), "{joined:?}");
    assert!(!lab.told("n3", &["run"]).status.success());
    assert_eq!(lab.sql("SELECT count(*) FROM cluster"), "1");

    // With the others in reach the same token, which nobody has used, lets it in.
    reach(&lab, Fault::None);
    lab.told("n3", &["join", "--token", token.trim()]).success();
    lab.start("n3");
    see_each_other(&lab, &NODES);

    // A data node that has lost what it knew of the others learns it from the database.
    lab.running.get_mut("n2").unwrap().kill9();
    fs::remove_file(lab.path("n2").join("roster.json")).unwrap();
    lab.start("n2");
    see_each_other(&lab, &NODES);
    // A witness has none: it says so, and votes for nobody.
    lab.running.get_mut("w1").unwrap().kill9();
    fs::remove_file(lab.path("w1").join("roster.json")).unwrap();
    let lost = lab.told("w1", &["run"]);
    assert!(
        !lost.status.success() && lost.stderr.contains("roster.json is gone"),
        "{lost:?}"
    );
    see_each_other(&lab, &DATA);
    lab.told("n1", &["remove", "w1"]).success();
    fs::remove_dir_all(lab.path("w1")).unwrap();
    lab.join("w1", "n2", "witness");
    lab.start("w1");
    see_each_other(&lab, &NODES);
    lab.leader(&NODES, &DATA);
    one_leader_an_epoch(&lab, 0);
}

#[test]
fn a_leader_that_was_away_longer_than_its_lease_heals_into_one_cluster() {
    let Some(mut lab) = Lab::new("h") else { return };
    lab.whole();
    let writer = Writer::start(&lab);
    for _ in 0..2 {
        // Frozen and cut off, until another one leads.
        let (away, epoch) = lab.leader(&NODES, &DATA);
        lab.signal(away, "STOP");
        lab.cable(away, "down");
        let rest = without(away);
        see_each_other(&lab, &rest);
        let (next, later) = lab.leader(&rest, &data_without(away));
        assert!(later > epoch, "{later} is not after {epoch}");
        let busy = third(away, next);
        toggle(&lab, next, busy, "cordoned");
        // It wakes alone, with the database in reach, and leads nobody.
        lab.signal(away, "CONT");
        lab.sees(away, &[away]);
        eventually("it knows that it does not lead", patience(), || {
            lab.status(away)
                .is_some_and(|it| it["majority"] == false && it["leader"] != away)
        });
        toggle(&lab, next, busy, "active");
        let (same, _) = lab.leader(&rest, &data_without(away));
        assert_ne!(same, away);
        lab.cable(away, "up");
        see_each_other(&lab, &NODES);
        let (_, healed) = lab.leader(&NODES, &DATA);
        assert!(healed >= later, "{healed} is before {later}");
        lab.health_is(away, "/testall", "200");
    }
    nothing_is_lost(&lab, writer);
    one_leader_an_epoch(&lab, 4);
}

#[test]
fn a_second_fault_while_a_node_recovers_is_mended_as_well() {
    let Some(mut lab) = Lab::on_loopback() else {
        return;
    };
    lab.whole();
    let writer = Writer::start(&lab);
    let (leader, _) = lab.leader(&NODES, &DATA);
    let other = data_without(leader)[0];
    // Who comes back dies again at once, and while it comes back once more another one freezes.
    lab.running.get_mut(leader).unwrap().kill9();
    lab.start(leader);
    lab.running.get_mut(leader).unwrap().kill9();
    lab.signal(other, "STOP");
    lab.start(leader);
    let three = without(other);
    see_each_other(&lab, &three);
    let (now, epoch) = lab.leader(&three, &data_without(other));
    // The one that woke dies on its way back, and the witness with it: two of four.
    lab.signal(other, "CONT");
    lab.running.get_mut(other).unwrap().kill9();
    lab.running.get_mut("w1").unwrap().kill9();
    eventually("nobody has a majority", patience(), || {
        lab.status(now)
            .is_some_and(|it| it["majority"] == false && it["leader"].is_null())
    });
    lab.start("w1");
    lab.start(other);
    see_each_other(&lab, &NODES);
    let (_, later) = lab.leader(&NODES, &DATA);
    assert!(later >= epoch, "{later} is before {epoch}");
    for node in DATA {
        lab.health_is(node, "/testall", "200");
    }
    toggle(&lab, "n1", "n2", "cordoned");
    toggle(&lab, "n1", "n2", "active");
    nothing_is_lost(&lab, writer);
    one_leader_an_epoch(&lab, 2);
}

#[test]
fn a_database_that_fails_over_takes_no_acknowledged_write_with_it() {
    let setup = PostgresSetup {
        hba: vec!["host replication all 127.0.0.1/32 scram-sha-256".to_owned()],
        ..PostgresSetup::default()
    };
    let (Some(mut lab), Some(mut first)) = (Lab::on_loopback(), Postgres::custom(setup)) else {
        return;
    };
    let name = first.database().rsplit('/').next().unwrap().to_owned();
    let second = first.standby();
    // From now on a write is acknowledged when the standby has it.
    first.psql(
        "postgres",
        "ALTER SYSTEM SET synchronous_standby_names = '*'",
    );
    first.psql("postgres", "SELECT pg_reload_conf()");
    // The standby is named first, as nobody knows which of them leads.
    let (one, two) = (second.port(), first.port());
    let url = first.url(&name);
    lab.database = url.replace(
        &format!("127.0.0.1:{two}/"),
        &format!("127.0.0.1:{one},127.0.0.1:{two}/"),
    );
    lab.whole();
    for node in DATA {
        lab.health_is(node, "/testall", "200");
    }
    let writer = Writer::start(&lab);
    toggle(&lab, "n1", "n2", "cordoned");
    let (_, epoch) = lab.leader(&NODES, &DATA);
    first.kill9();
    lab.health_is("n1", "/testall", "503");
    second.promote();
    for node in ["n1", "n3"] {
        lab.health_is(node, "/testall", "200");
    }
    lab.server = Arc::new(second);
    let (_, later) = lab.leader(&NODES, &DATA);
    assert!(later >= epoch, "{later} is before {epoch}");
    toggle(&lab, "n3", "n2", "active");
    let written = || lab.sql("SELECT count(*) FROM control_plane").parse::<u64>();
    let before = written().unwrap();
    eventually("writes are taken", patience(), || {
        written().unwrap() > before + 10
    });
    nothing_is_lost(&lab, writer);
    one_leader_an_epoch(&lab, 2);
}
