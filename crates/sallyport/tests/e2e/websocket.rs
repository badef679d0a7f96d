//! WebSocket through a gateway, between clients and servers of other projects.

use std::collections::BTreeMap;

use sallyport_testkit::{Deadline, Program, foreign, free_port};
use serde_json::{Value, json};

use crate::lab::{Doors, python, soon, write};

fn gateway(port: u16) -> Doors {
    Doors::start(
        &format!(
            "_format_version: '3.0'\n\
             services:\n\
             - {{url: 'http://127.0.0.1:{port}', routes: [{{paths: [/ws]}}]}}\n"
        ),
        "",
    )
}

#[test]
fn messages_pass_both_ways() {
    let Some(python) = python("websockets.asyncio.server", "websockets of PyPI") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("websocket.py");
    write(&script, include_str!("websocket.py"));
    let port = free_port();
    let gateway = gateway(port);
    for url in [
        format!("ws://127.0.0.1:{}/ws", gateway.plain),
        format!("wss://localhost:{}/ws", gateway.tls),
    ] {
        let mut asked = Program::new(&python)
            .arg(&script)
            .arg(port.to_string())
            .arg(&url);
        if url.starts_with("wss") {
            asked = asked.arg(&gateway.cert);
        }
        let done = asked.run(Deadline::secs(120));
        let seen: Value = serde_json::from_str(&done.success().stdout).unwrap();
        assert_eq!(
            seen,
            json!({
                "subprotocol": "chat",
                "sizes": [true, true, true, true, true, true, true, true],
                "fragments": true,
                "pong": true,
                "burst": true,
                "close": [1000, ""],
                "closed": [4001, "go away"],
                "forbidden": [403, "not you\n"],
                "many": true,
            }),
            "{url}"
        );
    }
}

/// The cases of the Autobahn suite, by the runner that reads them with a Python of today, against a
/// server alone and with the gateway before it: each has the same verdict. Left out are those that
/// differ in size and number only; docs/conformance.md has them too.
#[test]
fn autobahns_cases_end_as_without_the_gateway() {
    let (Some(kosoku), Some(python)) = (
        foreign("kosoku", "kosoku of PyPI"),
        python("websockets.asyncio.server", "websockets of PyPI"),
    ) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("websocket_echo.py");
    write(&script, include_str!("websocket_echo.py"));
    let port = free_port();
    let server = Program::new(&python)
        .arg(&script)
        .arg(port.to_string())
        .start();
    server.wait_for_line("serving", soon());
    let gateway = gateway(port);
    let run = |name: &str, url: String| {
        let mut run = Program::new(&kosoku).args(["-p", "4", "-o", name]);
        for case in [
            "1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.1.1", "9.2.1", "9.7.1", "9.8.1",
            "10.*", "12.1.1", "12.1.2", "13.1.1", "13.7.1",
        ] {
            run = run.args(["-i", case]);
        }
        // it fails if a case does, and some do for the server's own sake
        let done = run.arg(url).dir(dir.path()).run(Deadline::secs(240));
        let index = std::fs::read(dir.path().join(name).join("index.json"));
        let index = index.unwrap_or_else(|error| panic!("{error}: {done:?}"));
        verdicts(&serde_json::from_slice(&index).unwrap())
    };
    let alone = run("alone", format!("ws://127.0.0.1:{port}/"));
    let through = run("through", format!("ws://127.0.0.1:{}/ws", gateway.plain));
    assert_eq!(alone.len(), 255);
    let differ: Vec<_> = alone
        .iter()
        .filter(|(case, verdict)| through.get(*case) != Some(verdict))
        .map(|(case, verdict)| (case, verdict, through.get(case)))
        .collect();
    assert!(differ.is_empty(), "{differ:?}");
    let passed = through
        .values()
        .filter(|verdict| !verdict.contains("FAILED"));
    assert!(passed.count() >= 254, "{through:?}");
}

/// How each case ended, by its number. A server may say the right thing a moment early or late.
fn verdicts(index: &Value) -> BTreeMap<String, String> {
    let servers = index.as_object().unwrap().values();
    let cases = servers.flat_map(|cases| cases.as_object().unwrap());
    let verdict = |case: &Value| {
        let text = |name: &str| case[name].as_str().unwrap_or_default().to_owned();
        format!("{} {}", text("behavior"), text("behaviorClose")).replace("NON-STRICT", "OK")
    };
    cases
        .map(|(name, case)| (name.clone(), verdict(case)))
        .collect()
}
