//! WebSocket through a gateway, between a client and a server of another project.

use sallyport_testkit::{Deadline, Program, foreign, free_port};
use serde_json::{Value, json};

use crate::lab::{Alone, write};

#[test]
fn messages_pass_both_ways() {
    let Some(python) = foreign("python3", "Debian package python3") else {
        return;
    };
    let has_library = Program::new(&python)
        .args(["-c", "import websockets.asyncio.server"])
        .run(Deadline::secs(60));
    if !has_library.status.success() {
        // Says so, and fails where skipping is forbidden.
        assert_eq!(foreign("python3-websockets", "websockets of PyPI"), None);
        return;
    }
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
