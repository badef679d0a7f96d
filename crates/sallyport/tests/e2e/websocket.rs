//! WebSocket through a gateway, between a client and a server of another project.

use sallyport_testkit::{Deadline, Program, free_port};
use serde_json::{Value, json};

use crate::lab::{Alone, python, write};

#[test]
fn messages_pass_both_ways() {
    let Some(python) = python("websockets.asyncio.server", "websockets of PyPI") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("websocket.py");
    write(&script, include_str!("websocket.py"));
    let port = free_port();
    let gateway = Alone::start(
        &format!(
            "_format_version: '3.0'\n\
             services:\n\
             - {{url: 'http://127.0.0.1:{port}', routes: [{{paths: [/ws]}}]}}\n"
        ),
        "",
    );
    let done = Program::new(&python)
        .arg(&script)
        .arg(port.to_string())
        .arg(format!("ws://127.0.0.1:{}/ws", gateway.port))
        .run(Deadline::secs(120));
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
        })
    );
}
