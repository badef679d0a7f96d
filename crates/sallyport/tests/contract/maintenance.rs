//! Maintenance over the system's OpenSSH: real servers and clients, by way of a jump host, in network
//! namespaces of the test's own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sallyport_testkit::{Deadline, Program, eventually, foreign};

const SUPPORT: &str = "10.254.1.2";
const JUMP: &str = "10.254.1.1";
const JUMP_INSIDE: &str = "10.254.2.1";
const NODE: &str = "10.254.2.2";
/// Not 22: the machine may have a server of its own.
const PORT: &str = "2022";

/// Three namespaces: support, jump host, node. Support reaches the node's network only through the
/// jump host, which routes as well, so that what is refused is refused by SSH.
struct Lab {
    tag: String,
    dir: tempfile::TempDir,
    servers: Vec<Program>,
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.servers.clear();
        for name in ["support", "jump", "node"] {
            let name = self.name(name);
            _ = Command::new("ip").args(["netns", "del", &name]).output();
        }
    }
}

fn soon() -> Deadline {
    Deadline::secs(60)
}

#[track_caller]
fn run(command: &mut Command) -> String {
    let done = command.output().unwrap();
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert!(
        done.status.success(),
        "{command:?}: {text}{}",
        String::from_utf8_lossy(&done.stderr)
    );
    text
}

impl Lab {
    fn new() -> Option<Lab> {
        for (program, package) in [
            ("ip", "iproute2"),
            ("ssh", "openssh-client"),
            ("ssh-keygen", "openssh-client"),
            ("/usr/sbin/sshd", "openssh-server"),
        ] {
            foreign(program, &format!("Debian package {package}"))?;
        }
        let allowed = Command::new("unshare").args(["-n", "true"]).output();
        if !allowed.is_ok_and(|it| it.status.success()) {
            return foreign("the-right-to-make-network-namespaces", "root").map(|_| unreachable!());
        }
        // Where sshd gives up its rights; Debian's unit makes it at each start.
        fs::create_dir_all("/run/sshd").unwrap();
        // sshd reads keys only below directories that nobody else can write to, so not in /tmp
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let lab = Lab {
            tag: format!("sm{}", std::process::id()),
            dir,
            servers: Vec::new(),
        };
        let [support, jump, node] = ["support", "jump", "node"].map(|it| lab.name(it));
        let script = format!(
            "for ns in {support} {jump} {node}; do ip netns add $ns; ip -n $ns link set lo up; done
             ip -n {support} link add out type veth peer name support netns {jump}
             ip -n {node} link add out type veth peer name node netns {jump}
             ip -n {support} addr add {SUPPORT}/24 dev out; ip -n {node} addr add {NODE}/24 dev out
             ip -n {jump} addr add {JUMP}/24 dev support; ip -n {jump} addr add {JUMP_INSIDE}/24 dev node
             for ns in {support} {node}; do ip -n $ns link set out up; done
             for link in support node; do ip -n {jump} link set $link up; done
             ip -n {support} route add default via {JUMP}; ip -n {node} route add default via {JUMP_INSIDE}
             ip netns exec {jump} sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'"
        );
        run(Command::new("sh").args(["-ec", &script]));
        Some(lab)
    }

    fn name(&self, of: &str) -> String {
        format!("{}{of}", self.tag)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    #[track_caller]
    fn key(&self, name: &str) -> String {
        let args = ["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"];
        run(Command::new("ssh-keygen").args(args).arg(self.path(name)));
        fs::read_to_string(self.path(&format!("{name}.pub"))).unwrap()
    }

    /// Runs the executable on the node.
    #[track_caller]
    fn maintenance(&self, args: &[&str]) -> Output {
        let directory = self.text("ssh");
        let mut command = Command::new("ip");
        command.args([
            "netns",
            "exec",
            &self.name("node"),
            env!("CARGO_BIN_EXE_sallyport"),
        ]);
        command
            .arg("maintenance")
            .arg(args[0])
            .args(["--directory", &directory]);
        command.args(&args[1..]).output().unwrap()
    }

    #[track_caller]
    fn succeeds(&self, args: &[&str]) -> String {
        let done = self.maintenance(args);
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        let errors = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{args:?}: {text}{errors}");
        text
    }

    #[track_caller]
    fn sshd(&mut self, namespace: &str, config: &Path) {
        let name = self.name(namespace);
        run(Command::new("/usr/sbin/sshd")
            .arg("-t")
            .arg("-f")
            .arg(config));
        let server = Program::new("ip")
            .args(["netns", "exec", &name, "/usr/sbin/sshd", "-D", "-e", "-f"])
            .arg(config)
            .start();
        server.wait_for_line("Server listening", soon());
        self.servers.push(server);
    }

    /// Runs `ssh` from a namespace.
    fn ssh(&self, from: &str, args: &[&str]) -> Output {
        let mut command = Command::new("ip");
        command.args([
            "netns",
            "exec",
            &self.name(from),
            "ssh",
            "-F",
            &self.text("client"),
        ]);
        command
            .args(args)
            .env("HOME", self.dir.path())
            .output()
            .unwrap()
    }
}

#[test]
fn support_gets_the_menu_by_way_of_the_jump_host_and_nothing_else() {
    let Some(mut lab) = Lab::new() else {
        return;
    };
    let (support_key, eve) = (lab.key("support"), lab.key("eve"));
    for host in ["host_jump", "host_node"] {
        lab.key(host);
    }
    let card = |name: &str, address: &str| {
        let host = lab.text("host_node.pub");
        lab.succeeds(&[
            "card",
            "--name",
            name,
            "--address",
            address,
            "--host-key",
            &host,
        ])
    };
    // This node's card, and a second node at the same server, reached from itself.
    let own = card("a0-1", NODE);
    assert!(
        own.starts_with(&format!("a0-1 {NODE} ssh-ed25519 AAAA")),
        "{own}"
    );
    fs::write(lab.path("cards"), &own).unwrap();
    fs::write(lab.path("people"), format!("# support\n{support_key}")).unwrap();
    let (cards, people, sshd) = (
        lab.text("cards"),
        lab.text("people"),
        lab.text("50-sallyport.conf"),
    );
    let setup = [
        "setup", "--sshd", &sshd, "--user", "root", "--cards", &cards, "--people", &people,
    ];
    let none = lab.maintenance(&setup);
    assert!(String::from_utf8_lossy(&none.stderr).contains("--jump-host"));
    let setup = [&setup[..], &["--jump-host", JUMP_INSIDE, "--port", PORT]].concat();
    lab.succeeds(&setup);
    let told = lab.succeeds(&setup);
    assert!(
        told.contains("1 nodes and 1 people may log in as root"),
        "{told}"
    );

    let base = |host: &str, address: &str| {
        format!(
            "Port {PORT}\nListenAddress {address}\nHostKey {}\nUsePAM no\nPidFile none\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nLogLevel VERBOSE\n",
            lab.text(host)
        )
    };
    let node = format!(
        "{}Include {}\n",
        base("host_node", NODE),
        lab.text("50-sallyport.conf")
    );
    let jump = format!(
        "{}AuthorizedKeysFile {}\nPermitRootLogin yes\nAllowTcpForwarding yes\n",
        base("host_jump", "0.0.0.0"),
        lab.text("support.pub")
    );
    fs::write(lab.path("sshd_node"), node).unwrap();
    fs::write(lab.path("sshd_jump"), jump).unwrap();
    lab.sshd("node", &lab.path("sshd_node"));
    lab.sshd("jump", &lab.path("sshd_jump"));
    let known = |host: &str| {
        let key = fs::read_to_string(lab.path(&format!("{host}.pub"))).unwrap();
        key.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    };
    let known = format!(
        "[{JUMP}]:{PORT} {}\n[{NODE}]:{PORT} {}\n",
        known("host_jump"),
        known("host_node")
    );
    fs::write(lab.path("known"), known).unwrap();
    let client = format!(
        "Host jump\n HostName {JUMP}\nHost node\n HostName {NODE}\n ProxyJump jump\nHost direct\n HostName {NODE}\n\
         Host *\n User root\n Port {PORT}\n IdentityFile {}\n IdentitiesOnly yes\n BatchMode yes\n \
         UserKnownHostsFile {}\n StrictHostKeyChecking yes\n ConnectTimeout 20\n",
        lab.text("support"),
        lab.text("known")
    );
    fs::write(lab.path("client"), client).unwrap();

    // by way of the jump host: the menu, and what is in it
    let version = lab.ssh("support", &["node", "version"]);
    let text = |done: &Output| {
        format!(
            "{}{}",
            String::from_utf8_lossy(&done.stdout),
            String::from_utf8_lossy(&done.stderr)
        )
    };
    assert!(version.status.success(), "{}", text(&version));
    assert!(text(&version).contains(&format!("sallyport {}", env!("CARGO_PKG_VERSION"))));
    let help = lab.ssh("support", &["node"]);
    assert!(text(&help).contains("Ask for one of"), "{}", text(&help));
    assert!(lab.ssh("support", &["node", "uptime"]).status.success());
    for asked in ["id", "cat /etc/shadow", "version; id", "$(id)", "log -f"] {
        let refused = lab.ssh("support", &["node", asked]);
        assert!(!refused.status.success(), "{asked}: {}", text(&refused));
        assert!(
            !text(&refused).contains("uid="),
            "{asked}: {}",
            text(&refused)
        );
    }
    // no terminal, no forwarding, no files
    let terminal = lab.ssh("support", &["-tt", "node", "version"]);
    assert!(
        text(&terminal).contains("PTY allocation request failed"),
        "{}",
        text(&terminal)
    );
    let through = lab.ssh("support", &["-W", &format!("{NODE}:{PORT}"), "node"]);
    assert!(!through.status.success(), "{}", text(&through));
    let subsystem = lab.ssh("support", &["-s", "node", "sftp"]);
    assert!(!subsystem.status.success(), "{}", text(&subsystem));
    // not from elsewhere, not with another key
    let direct = lab.ssh("support", &["direct", "version"]);
    assert!(
        text(&direct).contains("Permission denied"),
        "{}",
        text(&direct)
    );
    let config = fs::read_to_string(lab.path("client")).unwrap();
    fs::write(
        lab.path("client"),
        config.replace(&lab.text("support"), &lab.text("eve")),
    )
    .unwrap();
    let other = lab.ssh("jump", &["direct", "version"]);
    assert!(
        text(&other).contains("Permission denied"),
        "{}",
        text(&other)
    );
    fs::write(lab.path("client"), config).unwrap();

    // node to node, with the files that were written, as `check` does it
    let config = lab.text("sshd_node");
    let check = ["check", "--user", "root", "--sshd-config", &config];
    let checked = lab.succeeds(&check);
    assert!(checked.contains("ok    node a0-1: sallyport "), "{checked}");
    assert!(!checked.contains("FAIL"), "{checked}");
    // the doctor is asked the same
    let directory = lab.text("ssh");
    let doctor = Program::new("ip")
        .args(["netns", "exec", &lab.name("node")])
        .arg(env!("CARGO_BIN_EXE_sallyport"))
        .args(["doctor", "--maintenance", "--directory", &directory])
        .args(["--user", "root", "--sshd-config", &config])
        .run(soon());
    assert_eq!(doctor.success().stdout, checked);
    // a host that shows another key is not the node
    let hosts = lab.path("ssh/known_hosts");
    let right = fs::read_to_string(&hosts).unwrap();
    let wrong = eve.split_whitespace().nth(1).unwrap();
    let shown = right.split_whitespace().nth(2).unwrap().to_owned();
    fs::write(&hosts, right.replace(&shown, wrong)).unwrap();
    let changed = lab.maintenance(&check);
    assert!(
        text(&changed).contains("FAIL  node a0-1"),
        "{}",
        text(&changed)
    );
    fs::write(&hosts, right).unwrap();
    fs::set_permissions(
        lab.path("ssh/authorized_keys"),
        fs::Permissions::from_mode(0o666),
    )
    .unwrap();
    let open = lab.maintenance(&check);
    assert!(text(&open).contains("too open"), "{}", text(&open));
    lab.succeeds(&setup);

    // a key that is revoked is out at once, though it is still listed
    lab.succeeds(&["revoke", &lab.text("support.pub")]);
    eventually("the revoked key is refused", soon(), || {
        let revoked = lab.ssh("support", &["node", "version"]);
        text(&revoked).contains("Permission denied")
    });
    lab.succeeds(&setup);
    let revoked = lab.ssh("support", &["node", "version"]);
    assert!(
        !revoked.status.success(),
        "a new setup forgets no revocation"
    );
    lab.succeeds(&check);
}
