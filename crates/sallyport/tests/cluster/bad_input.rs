//! What comes to port 7777 without belonging there.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use sallyport_runtime::tls::{Identity, ServerTrust, client_config};
use sallyport_testkit::{
    Finished, Launch, Postgres, Program, eventually, eventually_some, foreign, free_ports,
};
use sallyport_wire::node_control::{COMMANDS, GOSSIP, JOIN, JoinToken};

use crate::lab::{patience, sallyport};

/// Nodes on loopback with a database of their own.
struct Nodes {
    dir: tempfile::TempDir,
    server: Arc<Postgres>,
    database: String,
}

impl Nodes {
    fn new() -> Option<Nodes> {
        let server = Postgres::shared()?;
        Some(Nodes {
            dir: tempfile::tempdir().unwrap(),
            database: server.database(),
            server,
        })
    }

    #[track_caller]
    fn sql(&self, sql: &str) -> String {
        let name = self.database.rsplit('/').next().unwrap();
        self.server.psql(name, sql).trim().to_owned()
    }

    /// Leader and epoch, as a node knows them.
    fn leads(&self, file: &str) -> (Option<String>, u64) {
        let done = self.told(file, &["list", "--output", "json"]);
        let status: serde_json::Value = serde_json::from_str(&done.stdout).unwrap_or_default();
        let leader = status["leader"].as_str().map(str::to_owned);
        (leader, status["epoch"].as_u64().unwrap_or(0))
    }

    /// Settings of a node; its port for other nodes.
    fn settings(&self, file: &str, name: &str) -> u16 {
        let [cluster, control] = free_ports();
        let data = self.dir.path().join(file);
        let text = format!(
            "[node]\nname = \"{name}\"\ndata = \"{}\"\n[database]\nurl = \"{}\"\n\
             [node_control]\nlisten = \"127.0.0.1:{cluster}\"\n\
             [control_planes]\nlisten = \"127.0.0.1:{control}\"\n",
            data.display(),
            self.database
        );
        std::fs::write(self.file(file), text).unwrap();
        cluster
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.toml"))
    }

    fn node(&self, file: &str, args: &[&str]) -> Launch {
        Program::new(sallyport())
            .args(["node", "--config", self.file(file).to_str().unwrap()])
            .args(args)
    }

    fn told(&self, file: &str, args: &[&str]) -> Finished {
        self.node(file, args).run(patience())
    }

    fn first(&self) -> (Program, u16) {
        let port = self.settings("n1", "n1");
        self.told("n1", &["init"]).success();
        let running = self.node("n1", &["run"]).start();
        running.wait_for_line("database reached", patience());
        (running, port)
    }

    fn token(&self) -> String {
        let done = self.told("n1", &["token", "--minutes", "5"]).success();
        done.stdout.trim().to_owned()
    }

    /// The certificate and key of a node.
    fn identity(&self, file: &str) -> Identity {
        let text = std::fs::read_to_string(self.dir.path().join(file).join("identity.json"));
        let json: serde_json::Value = serde_json::from_str(&text.unwrap()).unwrap();
        let [cert, key] = ["certificate", "key"].map(|it| json[it].as_str().unwrap().to_owned());
        Identity::from_pem(&cert, &key).unwrap()
    }
}

/// A TLS connection that believes anybody.
fn secure(
    port: u16,
    alpn: &[u8],
    identity: Option<&Identity>,
) -> StreamOwned<ClientConnection, TcpStream> {
    let mut config = client_config(ServerTrust::Anybody, identity).unwrap();
    config.alpn_protocols = vec![alpn.to_vec()];
    let name = ServerName::try_from("node.sallyport.internal").unwrap();
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    StreamOwned::new(
        ClientConnection::new(Arc::new(config), name).unwrap(),
        stream,
    )
}

/// Sends, and reads until the node closes.
fn answer(mut stream: impl Read + Write, bytes: &[u8]) -> String {
    let _ = stream.write_all(bytes).and_then(|()| stream.flush());
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn garbage_on_the_control_port_closes_that_connection_only() {
    let Some(nodes) = Nodes::new() else { return };
    let (mut running, port) = nodes.first();
    let raw = || {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        stream
    };
    // Slow ones stay open meanwhile: half a hello, and nothing at all.
    let mut slow: Vec<TcpStream> = (0..40).map(|_| raw()).collect();
    for stream in &mut slow {
        stream.write_all(&[0x16, 0x03, 0x01, 0x02]).unwrap();
    }
    answer(raw(), b"GET / HTTP/1.1\r\nhost: x\r\n\r\n");
    answer(raw(), &[0xff; 4096]);
    answer(raw(), &[0x16, 0x03, 0x01, 0xff, 0xff, 0x01]);

    // Without a certificate nobody gets past the handshake, whatever they ask for.
    for alpn in [GOSSIP, COMMANDS, b"h2"] {
        let told = answer(
            secure(port, alpn, None),
            b"GET /ping HTTP/1.1\r\nhost: x\r\n\r\n",
        );
        assert_eq!(told, "");
    }
    // Who only may join gets nothing else.
    let command = b"POST /apply HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}";
    let told = answer(secure(port, JOIN, None), command);
    assert!(told.starts_with("HTTP/1.1 404"), "{told}");
    let join = |body: &str| {
        let request = format!(
            "POST /join HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        answer(secure(port, JOIN, None), request.as_bytes())
    };
    assert!(join("{\"secret\": ").starts_with("HTTP/1.1 400"));
    let long = join(&"x".repeat(20_000));
    // The answer may be lost: the node closes while the rest is on its way.
    assert!(
        long.is_empty() || long.starts_with("HTTP/1.1 413"),
        "{long}"
    );
    let body = "{\"secret\":\"00\",\"name\":\"x\",\"address\":\"127.0.0.1:1\",\"request\":\"\"}";
    assert!(join(body).contains("32 hexadecimal digits"));

    // A node that speaks nonsense loses its connection, not the cluster.
    let identity = nodes.identity("n1");
    for bytes in [
        &b"\xff\xff\xff\xff"[..],
        &[0, 0, 0, 0],
        &[0, 0, 0, 3, 1, 2, 3],
        &[0, 0, 0, 9, 0x53, 0xb0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff],
    ] {
        assert_eq!(answer(secure(port, GOSSIP, Some(&identity)), bytes), "");
    }
    running.wait_for_line("at most 65507 are allowed", patience());
    running.wait_for_line("an empty frame", patience());
    let old = "{\"epoch\":0,\"wanted\":\"drained\"}";
    let request = format!(
        "POST /apply HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{old}",
        old.len()
    );
    nodes.told("n1", &["list"]).success();
    running.wait_for_line("this node leads", patience());
    nodes.told("n1", &["cordon", "n1"]).success();
    running.wait_for_line("step node=\"n1\" wanted=cordoned", patience());
    let told = answer(secure(port, COMMANDS, Some(&identity)), request.as_bytes());
    assert!(
        told.starts_with("HTTP/1.1 409") && told.contains("later epoch"),
        "{told}"
    );

    assert!(running.is_running());
    let list = nodes.told("n1", &["list"]).success().stdout;
    assert!(list.contains("cordoned"), "{list}");
    // the slow ones are not waited for any longer; one that stays open is a time-out here
    for stream in &mut slow {
        let ended = match stream.read(&mut [0; 64]) {
            Ok(_) => true,
            Err(error) => error.kind() == ErrorKind::ConnectionReset,
        };
        assert!(ended, "a slow handshake stays open");
    }
}

#[test]
fn tokens_work_once_and_names_and_identities_are_one_machines() {
    let Some(nodes) = Nodes::new() else { return };
    let (mut first, port) = nodes.first();
    let token = nodes.token();
    for file in ["n2", "n3"] {
        nodes.settings(file, file);
    }
    let damaged = nodes.told("n2", &["join", "--token", &token[..token.len() - 3]]);
    assert!(damaged.stderr.contains("damaged"), "{damaged:?}");
    let other = JoinToken {
        authority: [9; 32],
        secret: [9; 16],
        address: format!("127.0.0.1:{port}"),
    };
    let elsewhere = nodes.told("n2", &["join", "--token", &other.text()]);
    assert!(
        elsewhere
            .stderr
            .contains("does not belong to the authority"),
        "{elsewhere:?}"
    );
    let mut unknown = JoinToken::parse(&token).unwrap();
    unknown.secret = [9; 16];
    let unknown = nodes.told("n2", &["join", "--token", &unknown.text()]);
    assert!(unknown.stderr.contains("not known here"), "{unknown:?}");

    // Two with one name: the second is told, and its token is not lost.
    nodes.settings("n2", "n1");
    let same = nodes.told("n2", &["join", "--token", &token]);
    assert!(same.stderr.contains("has the name \"n1\""), "{same:?}");
    nodes.settings("n2", "n2");
    nodes.told("n2", &["join", "--token", &token]).success();
    let replayed = nodes.told("n3", &["join", "--token", &token]);
    assert!(replayed.stderr.contains("used up already"), "{replayed:?}");
    let already = nodes.told("n2", &["join", "--token", &nodes.token()]);
    assert!(already.stderr.contains("a node already"), "{already:?}");

    // A copy of a node's disk: the later process is the node, the earlier one stops.
    let copy = nodes.dir.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    for name in ["identity.json", "roster.json"] {
        std::fs::copy(nodes.dir.path().join("n1").join(name), copy.join(name)).unwrap();
    }
    nodes.settings("copy", "n1");
    let clone = nodes.node("copy", &["run"]).start();
    clone.wait_for_line("database reached", patience());
    first.wait_for_line("another process has started as this node", patience());
    assert!(!first.wait(patience()).success());
}

#[test]
fn a_node_with_a_wrong_clock_is_told_and_harms_nobody() {
    let Some(_) = foreign("faketime", "Debian package faketime") else {
        return;
    };
    // The library itself: the program would stay between us and the node.
    let library = ["x86_64", "aarch64"]
        .map(|it| format!("/usr/lib/{it}-linux-gnu/faketime/libfaketime.so.1"))
        .into_iter()
        .find(|path| std::path::Path::new(path).exists())
        .unwrap();
    let Some(nodes) = Nodes::new() else { return };
    let (first, _) = nodes.first();
    nodes.settings("n2", "n2");
    nodes
        .told("n2", &["join", "--token", &nodes.token()])
        .success();
    let with_clock = |shift: &str| {
        nodes
            .node("n2", &["run"])
            .env("LD_PRELOAD", &library)
            .env("FAKETIME", shift)
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .start()
    };
    // Days behind: certificates are of the future there.
    let behind = with_clock("-3d");
    behind.wait_for_line("check the clocks", patience());
    let list = nodes.told("n1", &["list"]).success().stdout;
    assert!(
        list.lines()
            .any(|it| it.starts_with("n2") && it.contains("gone")),
        "{list}"
    );
    drop(behind);
    // An hour ahead: it is a member, and leases go by the database's clock.
    let mut ahead = with_clock("+1h");
    ahead.wait_for_line("node is there node=\"n1\"", patience());
    first.wait_for_line("node is there node=\"n2\"", patience());
    nodes.told("n1", &["cordon", "n2"]).success();
    ahead.wait_for_line("does not serve why=\"the node is cordoned", patience());
    ahead.kill9();
}

#[test]
fn a_jump_of_the_databases_clock_leaves_one_holder_an_epoch() {
    let Some(nodes) = Nodes::new() else { return };
    // A clock that the test can set, found before the system's.
    nodes.sql(
        "CREATE TABLE ahead (seconds BIGINT NOT NULL); INSERT INTO ahead VALUES (0);
         CREATE FUNCTION clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS
         $$ SELECT pg_catalog.clock_timestamp()
            + make_interval(secs => (SELECT seconds FROM public.ahead)::float8) $$;
         DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = public, pg_catalog',
            current_database()); END $$",
    );
    let (first, _) = nodes.first();
    let mut running = vec![("n1", first)];
    for file in ["n2", "n3"] {
        nodes.settings(file, file);
        nodes
            .told(file, &["join", "--token", &nodes.token()])
            .success();
        let node = nodes.node(file, &["run"]).start();
        node.wait_for_line("node is there node=\"n1\"", patience());
        running.push((file, node));
    }
    let led = |file: &str, after: u64| {
        eventually_some("somebody leads", patience(), || {
            // What a node knows may be of before the jump; the lease that runs is not.
            let running = "SELECT epoch FROM cluster_lease
                           WHERE until_us > extract(epoch FROM clock_timestamp()) * 1000000";
            let running = nodes.sql(running).parse().ok();
            let (leader, epoch) = nodes.leads(file);
            let leader = leader.filter(|_| epoch >= after && running == Some(epoch));
            leader.map(|it| (it, epoch))
        })
    };
    let works = |wanted: &str, state: &str| {
        nodes.told("n1", &[wanted, "n2"]).success();
        eventually(&format!("n2 is {state}"), patience(), || {
            let list = nodes.told("n1", &["list"]).stdout;
            list.lines()
                .any(|it| it.starts_with("n2") && it.contains(state))
        });
    };
    let (_, epoch) = led("n1", 1);
    works("cordon", "cordoned");

    // An hour forward: every lease is over at once. Somebody leads, and steps are made.
    nodes.sql("UPDATE ahead SET seconds = 3600");
    led("n1", epoch);
    works("uncordon", "active");

    // The leader dies and the clock is set back: its lease lasts as much longer, and nobody leads.
    let (leader, epoch) = led("n1", epoch);
    let at = running
        .iter()
        .position(|(name, _)| *name == leader)
        .unwrap();
    running[at].1.kill9();
    nodes.sql("UPDATE ahead SET seconds = 0");
    let left = if leader == "n1" { "n2" } else { "n1" };
    eventually("it is gone", patience(), || {
        let list = nodes.told(left, &["list"]).stdout;
        list.lines()
            .any(|it| it.starts_with(leader.as_str()) && it.contains("gone"))
    });
    assert_eq!(
        nodes.leads(left).1,
        epoch,
        "a lease that lasts is nobody else's"
    );
    nodes.sql("UPDATE ahead SET seconds = 10800");
    let (next, later) = led(left, epoch + 1);
    assert!(next != leader && later > epoch, "{next} in {later}");

    let strangers =
        "SELECT count(*) FROM cluster_step s LEFT JOIN cluster_term t ON t.epoch = s.epoch
                     WHERE t.holder IS DISTINCT FROM s.holder";
    assert_eq!(nodes.sql(strangers), "0");
}
