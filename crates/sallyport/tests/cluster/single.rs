//! One node alone: a file for a database, and no port for other nodes.

use std::net::TcpStream;
use std::path::Path;

use sallyport_testkit::{Finished, Launch, Program, eventually, free_ports, http};

use crate::lab::{patience, sallyport};

fn node(file: &Path, args: &[&str]) -> Launch {
    Program::new(sallyport())
        .args(["node", "--config", file.to_str().unwrap()])
        .args(args)
}

fn told(file: &Path, args: &[&str]) -> Finished {
    node(file, args).run(patience())
}

#[test]
fn a_single_node_opens_no_port_for_others_and_keeps_what_it_was_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("etc/node.toml");
    // The first start of a newcomer: there is nothing yet.
    let early = told(&file, &["run"]);
    assert!(
        early.stderr.contains("could not read the settings"),
        "{early:?}"
    );
    told(&file, &["init"]).success();
    let starter = std::fs::read_to_string(&file).unwrap();
    assert!(starter.contains("[control_planes]"), "{starter}");
    let again = told(&file, &["init"]);
    assert!(
        again.stderr.contains("this machine is a node already"),
        "{again:?}"
    );

    let [control, health, cluster] = free_ports();
    let text = format!(
        "[node]\n[node_control]\nlisten = \"127.0.0.1:{cluster}\"\n\
         [control_planes]\nlisten = \"127.0.0.1:{control}\"\nmore_geos = [\"eu\"]\n\
         [healthcheck]\nlisten = \"127.0.0.1:{health}\"\n"
    );
    std::fs::write(&file, text.replace("[node_control]", "[node_contrl]")).unwrap();
    let typo = told(&file, &["run"]);
    let words = [
        "node.toml:2:",
        "\"node_contrl\"",
        "did you mean \"node_control\"?",
    ];
    assert!(words.iter().all(|it| typo.stderr.contains(it)), "{typo:?}");
    std::fs::write(&file, &text).unwrap();

    let testall = format!("http://127.0.0.1:{health}/testall");
    let serves = |code: u16| {
        eventually(&format!("testall answers {code}"), patience(), || {
            http::get(&testall).send().is_ok_and(|it| it.status == code)
        });
    };
    let mut running = node(&file, &["run"]).start();
    serves(200);
    assert!(TcpStream::connect(("127.0.0.1", cluster)).is_err());
    let names = file.with_file_name("data/control/server.names");
    let names = std::fs::read_to_string(names).unwrap();
    for geo in ["us", "eu"] {
        let gateways = format!("*.{geo}.cp0.sallyport.localhost");
        assert!(names.contains(&gateways), "{names}");
    }
    let second = told(&file, &["run"]);
    assert!(
        second.stderr.contains("another process runs this node"),
        "{second:?}"
    );
    let token = told(&file, &["token"]);
    assert!(token.stderr.contains("[database] url"), "{token:?}");
    eventually("it leads itself", patience(), || {
        let list = told(&file, &["list"]).success().stdout;
        list.contains(" (leads)  data  active  yes")
    });
    // without a name of its own it has that of the machine
    let list = told(&file, &["list"]).success().stdout;
    let own = list.lines().find(|line| line.contains("(leads)"));
    let name = own.and_then(|line| line.split_whitespace().next()).unwrap();

    told(&file, &["drain", name]).success();
    serves(503);
    eventually("the control plane has stopped", patience(), || {
        TcpStream::connect(("127.0.0.1", control)).is_err()
    });
    running.terminate();
    assert!(running.wait(patience()).success());
    let away = told(&file, &["list"]);
    assert!(
        away.stderr.contains("does not run on this machine"),
        "{away:?}"
    );
    let _running = node(&file, &["run"]).start();
    serves(503);
    let list = told(&file, &["list"]).success().stdout;
    assert!(list.contains("drained"), "{list}");
    told(&file, &["uncordon", name]).success();
    serves(200);
}
