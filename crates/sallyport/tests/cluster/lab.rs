//! A cluster of `n1`, `n2`, `n3` and the witness `w1`, and a neighbour `nb`: each in a namespace, on one
//! switch; or, where namespaces are not allowed, each on an address of its own in 127.0.0.0/8.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::thread::scope;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use sallyport_testkit::{
    Deadline, FaultProxy, Finished, Launch, Postgres, Program, eventually_some, foreign,
};
use serde_json::Value;

pub(crate) const NODES: [&str; 4] = ["n1", "n2", "n3", "w1"];
pub(crate) const KEY: &str = "a-key-for-monitoring";

pub(crate) fn sallyport() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_sallyport"))
}

pub(crate) fn patience() -> Deadline {
    Deadline::secs(90)
}

#[track_caller]
pub(crate) fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}\n{stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// Where the machines are.
enum Ground {
    /// Each in a namespace, whose name begins with this.
    Namespaces(String),
    Loopback(Loopback),
}

/// Addresses of this machine, and the ways to them that a test can break.
struct Loopback {
    /// The first three bytes, and the last one of the first machine.
    net: (u8, u8, u8),
    /// Ways of the others to a node's control port.
    control: BTreeMap<&'static str, FaultProxy>,
    /// Ways of a node to the database.
    database: BTreeMap<&'static str, FaultProxy>,
}

/// The machines; gone when dropped.
pub(crate) struct Lab {
    ground: Ground,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) server: Arc<Postgres>,
    pub(crate) database: String,
    pub(crate) running: BTreeMap<&'static str, Program>,
    /// What data nodes have in their settings beside the rest.
    pub(crate) more: String,
}

impl Lab {
    /// `None`, with a word about it, where namespaces or PostgreSQL are missing.
    pub(crate) fn new(tag: &str) -> Option<Lab> {
        for (program, package) in [
            ("ip", "iproute2"),
            ("nft", "nftables"),
            ("curl", "curl"),
            ("nmap", "nmap"),
        ] {
            foreign(program, &format!("Debian package {package}"))?;
        }
        let allowed = Command::new("unshare").args(["-n", "true"]).output();
        if !allowed.is_ok_and(|it| it.status.success()) {
            // Says so, and fails where skipping is forbidden.
            return foreign("the-right-to-make-network-namespaces", "root").map(|_| unreachable!());
        }
        let server = Postgres::shared()?;
        let name = server.database();
        let name = name.rsplit('/').next().unwrap();
        let lab = Lab {
            ground: Ground::Namespaces(format!("sc{}{tag}", std::process::id())),
            dir: tempfile::tempdir().unwrap(),
            // The nodes' network has no way to the server: they use its socket.
            database: server.local_url(name),
            server,
            running: BTreeMap::new(),
            more: String::new(),
        };
        let switch = lab.ns("sw");
        sh(&format!(
            "ip netns add {switch}; ip -n {switch} link add name lan0 type bridge; ip -n {switch} link set lan0 up"
        ));
        for (at, machine) in NODES.iter().chain(&["nb"]).enumerate() {
            let ns = lab.ns(machine);
            sh(&format!(
                "ip netns add {ns}; ip -n {ns} link set lo up
                 ip -n {ns} link add eth type veth peer name p{machine} netns {switch}
                 ip -n {ns} addr add 10.254.0.{}/24 dev eth; ip -n {ns} link set eth up
                 ip -n {switch} link set p{machine} master lan0 up",
                at + 1
            ));
        }
        Some(lab)
    }

    /// On loopback, for who may not make namespaces. `None` where PostgreSQL is missing.
    pub(crate) fn on_loopback() -> Option<Lab> {
        static LABS: AtomicU8 = AtomicU8::new(0);
        foreign("curl", "Debian package curl")?;
        let server = Postgres::shared()?;
        let database = server.database();
        let [_, .., high, low] = std::process::id().to_be_bytes();
        let first = 1 + 10 * LABS.fetch_add(1, Ordering::Relaxed);
        let mut ways = Loopback {
            // not 127.0, where programs of the machine are
            net: (64 | (high & 0x3f), low, first),
            control: BTreeMap::new(),
            database: BTreeMap::new(),
        };
        for node in NODES {
            let at = format!("{}:7777", ways.address(node)).parse().unwrap();
            ways.control.insert(node, FaultProxy::start_to(at));
            ways.database.insert(node, FaultProxy::start(server.port()));
        }
        Some(Lab {
            ground: Ground::Loopback(ways),
            dir: tempfile::tempdir().unwrap(),
            server,
            database,
            running: BTreeMap::new(),
            more: String::new(),
        })
    }

    pub(crate) fn ns(&self, machine: &str) -> String {
        match &self.ground {
            Ground::Namespaces(tag) => format!("{tag}{machine}"),
            Ground::Loopback(_) => panic!("there are no namespaces"),
        }
    }

    fn loopback(&self) -> &Loopback {
        match &self.ground {
            Ground::Namespaces(_) => panic!("there are namespaces"),
            Ground::Loopback(ways) => ways,
        }
    }

    /// The way of the other nodes to a node, on loopback.
    pub(crate) fn way_to(&self, node: &str) -> &FaultProxy {
        &self.loopback().control[node]
    }

    /// The way of a node to the database, on loopback.
    pub(crate) fn way_to_database(&self, node: &str) -> &FaultProxy {
        &self.loopback().database[node]
    }

    pub(crate) fn address(&self, node: &str) -> String {
        match &self.ground {
            Ground::Namespaces(_) => {
                let at = NODES.iter().position(|it| *it == node).unwrap();
                format!("10.254.0.{}", at + 1)
            }
            Ground::Loopback(ways) => ways.address(node),
        }
    }

    /// Where a node's control plane is.
    pub(crate) fn api(&self, node: &str) -> String {
        match &self.ground {
            Ground::Namespaces(_) => format!("https://{}", self.address(node)),
            Ground::Loopback(_) => format!("https://{}:8443", self.address(node)),
        }
    }

    /// The words that begin a command which a machine runs.
    pub(crate) fn prefix(&self, machine: &str) -> String {
        match &self.ground {
            Ground::Namespaces(_) => format!("ip netns exec {}", self.ns(machine)),
            Ground::Loopback(_) => "env".to_owned(),
        }
    }

    /// A program on a machine.
    pub(crate) fn program(&self, machine: &str, program: impl AsRef<OsStr>) -> Launch {
        let prefix = self.prefix(machine);
        let mut words = prefix.split(' ');
        Program::new(words.next().unwrap()).args(words).arg(program)
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    /// Runs a script on a machine; what it printed.
    #[track_caller]
    pub(crate) fn on(&self, machine: &str, script: &str) -> String {
        sh(&format!("{} sh -ec '{script}'", self.prefix(machine)))
    }

    /// Writes a node's settings.
    pub(crate) fn settings(&self, node: &str, named: &str) {
        let address = self.address(node);
        let (mut database, mut advertise) = (self.database.clone(), String::new());
        let (mut control, mut health) = (String::new(), String::new());
        if let Ground::Loopback(ways) = &self.ground {
            let (mine, there) = (ways.database[node].port(), self.server.port());
            database = database.replace(&format!(":{there}/"), &format!(":{mine}/"));
            let port = ways.control[node].port();
            advertise = format!("advertise = \"127.0.0.1:{port}\"\n");
            control = format!("[control_planes]\nlisten = \"{address}:8443\"\n");
            health = format!("listen = \"{address}:9110\"\n");
        }
        let database = match node {
            "w1" => String::new(),
            _ => format!("[database]\nurl = \"{database}\"\n{control}{}", self.more),
        };
        let text = format!(
            "[node]\nname = \"{named}\"\ndata = \"{}\"\n{database}\
             [node_control]\nlisten = \"{address}:7777\"\n{advertise}\
             [healthcheck]\nkey = \"{KEY}\"\n{health}",
            self.path(node).display()
        );
        std::fs::write(self.path(&format!("{node}.toml")), text).unwrap();
    }

    /// `sallyport node …` on a machine.
    pub(crate) fn node(&self, node: &str, args: &[&str]) -> Launch {
        let file = self.path(&format!("{node}.toml"));
        self.program(node, sallyport())
            .args(["node", "--config", file.to_str().unwrap()])
            .args(args)
    }

    pub(crate) fn told(&self, node: &str, args: &[&str]) -> Finished {
        self.node(node, args).run(patience())
    }

    /// What the doctor says of the cluster, asked on a machine.
    pub(crate) fn doctor(&self, node: &str, args: &[&str]) -> Finished {
        let file = self.path(&format!("{node}.toml"));
        self.program(node, sallyport())
            .args(["doctor", "--cluster", "--config", file.to_str().unwrap()])
            .args(args)
            .run(patience())
    }

    pub(crate) fn start(&mut self, node: &'static str) {
        let program = self.node(node, &["run"]).start();
        program.wait_for_line("node started", patience());
        self.running.insert(node, program);
    }

    /// Takes a machine into the cluster by a token of `by`.
    #[track_caller]
    pub(crate) fn join(&self, node: &str, by: &str, role: &str) -> String {
        let token = self.told(by, &["token", "--role", role]).success().stdout;
        self.told(node, &["join", "--token", token.trim()])
            .success();
        token.trim().to_owned()
    }

    /// Founds a cluster of three nodes and a witness, and waits until all see all.
    #[track_caller]
    pub(crate) fn whole(&mut self) {
        for node in NODES {
            self.settings(node, node);
        }
        self.told("n1", &["init"]).success();
        self.start("n1");
        self.running["n1"].wait_for_line("database reached", patience());
        for node in ["n2", "n3", "w1"] {
            let role = if node == "w1" { "witness" } else { "data" };
            self.join(node, "n1", role);
            self.start(node);
        }
        for node in NODES {
            self.sees(node, &NODES);
        }
    }

    /// What a node knows of the cluster.
    pub(crate) fn status(&self, node: &str) -> Option<Value> {
        let done = self.told(node, &["list", "--output", "json"]);
        serde_json::from_str(&done.stdout).ok()
    }

    /// Waits until exactly these nodes are there for `node`.
    #[track_caller]
    pub(crate) fn sees(&self, node: &str, live: &[&str]) {
        let mut last = Value::Null;
        let found = Deadline::secs(90);
        loop {
            if let Some(status) = self.status(node) {
                if names(&status) == live {
                    return;
                }
                last = status;
            }
            assert!(!found.passed(), "{node} does not see {live:?}: {last:#}");
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    }

    /// Waits until these nodes agree on a leader that is one of `among`; its name and epoch.
    #[track_caller]
    pub(crate) fn leader(&self, of: &[&str], among: &[&str]) -> (&'static str, u64) {
        eventually_some("the nodes agree on a leader", patience(), || {
            let mut said: Vec<(String, u64)> = of
                .iter()
                .map(|node| {
                    let status = self.status(node)?;
                    let leader = status["leader"].as_str()?.to_owned();
                    Some((leader, status["epoch"].as_u64()?))
                })
                .collect::<Option<_>>()?;
            said.dedup();
            let [(leader, epoch)] = said.as_slice() else {
                return None;
            };
            let leader = NODES.iter().find(|it| **it == leader.as_str())?;
            among.contains(leader).then_some((*leader, *epoch))
        })
    }

    /// Waits until `of` says that `node` is in this state.
    #[track_caller]
    pub(crate) fn is(&self, of: &str, node: &str, state: &str) {
        let mut last = Value::Null;
        let until = patience();
        loop {
            if let Some(status) = self.status(of) {
                let nodes = status["nodes"].as_array().unwrap();
                let found = nodes.iter().find(|it| it["name"] == node);
                if found.is_some_and(|it| it["state"] == state) {
                    return;
                }
                last = status;
            }
            assert!(!until.passed(), "{node} is not {state} for {of}: {last:#}");
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    }

    /// The status code of a health endpoint, asked by the neighbour.
    pub(crate) fn health(&self, node: &str, path: &str, key: Option<&str>) -> String {
        let user = key
            .map(|key| format!("-u api_keys_health:{key}"))
            .unwrap_or_default();
        let url = format!("http://{}:9110{path}", self.address(node));
        self.on(
            "nb",
            &format!("curl -s -m 30 -o /dev/null -w %{{http_code}} {user} {url} || true"),
        )
    }

    #[track_caller]
    pub(crate) fn health_is(&self, node: &str, path: &str, code: &str) {
        let mut last = String::new();
        let until = patience();
        while last != code {
            assert!(!until.passed(), "{node} {path}: {last}, not {code}");
            last = self.health(node, path, Some(KEY));
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }

    /// Pulls or plugs a machine's cable.
    pub(crate) fn cable(&self, machine: &str, state: &str) {
        sh(&format!(
            "ip -n {} link set p{machine} {state}",
            self.ns("sw")
        ));
    }

    /// One value of the database.
    #[track_caller]
    pub(crate) fn sql(&self, sql: &str) -> String {
        let name = self.database.rsplit('/').next().unwrap();
        self.server.psql(name, sql).trim().to_owned()
    }

    #[track_caller]
    pub(crate) fn signal(&mut self, node: &str, name: &str) {
        self.running.get_mut(node).unwrap().signal(name);
    }
}

impl Loopback {
    fn address(&self, machine: &str) -> String {
        let at = NODES.iter().position(|it| *it == machine).unwrap();
        let (a, b, first) = self.net;
        format!("127.{a}.{b}.{}", usize::from(first) + at)
    }
}

/// Runs something in the network of a machine, in a thread of its own.
pub(crate) fn within<T: Send>(lab: &Lab, machine: &str, run: impl FnOnce() -> T + Send) -> T {
    scope(|scope| {
        scope
            .spawn(|| {
                enter(&lab.ns(machine));
                run()
            })
            .join()
            .unwrap()
    })
}

/// Puts this thread, and those that it makes, into the network of a namespace.
pub(crate) fn enter(ns: &str) {
    let ns = std::fs::File::open(format!("/run/netns/{ns}")).unwrap();
    move_into_link_name_space(ns.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

/// Nodes that are there, by name.
fn names(status: &Value) -> Vec<&str> {
    let nodes = status["nodes"].as_array().unwrap().iter();
    nodes
        .filter(|it| it["live"] == true)
        .map(|it| it["name"].as_str().unwrap())
        .collect()
}

impl Drop for Lab {
    fn drop(&mut self) {
        for program in self.running.values_mut() {
            program.kill9();
        }
        if matches!(self.ground, Ground::Loopback(_)) {
            return;
        }
        for machine in NODES.iter().chain(&["nb", "sw"]) {
            let _ = Command::new("ip")
                .args(["netns", "del", &self.ns(machine)])
                .output();
        }
    }
}
