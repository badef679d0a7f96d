//! Network namespaces: the doctor's machine (`near`), a router (`way`) and the far end (`far`).

use std::path::{Path, PathBuf};
use std::process::Command;

use sallyport_testkit::{Launch, Program, foreign};

/// The far end's addresses.
pub(crate) const FAR: &str = "10.255.2.2";
pub(crate) const FAR6: &str = "fd00:2::2";
/// The router, as the doctor's machine sees it.
pub(crate) const WAY: &str = "10.255.1.1";

/// Namespaces; gone when dropped.
pub(crate) struct Network {
    tag: String,
    pub(crate) dir: tempfile::TempDir,
}

/// Runs a script of `sh`.
#[track_caller]
fn sh(script: &str) {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    assert!(
        output.status.success(),
        "{script}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

impl Network {
    /// `None`, with a word about it, where namespaces cannot be made. `hosts` is what the doctor's
    /// machine has in `/etc/hosts`.
    pub(crate) fn new(tag: &str, hosts: &str) -> Option<Network> {
        for (program, package) in [
            ("ip", "iproute2"),
            ("nft", "nftables"),
            ("sysctl", "procps"),
            ("mount", "mount"),
        ] {
            foreign(program, &format!("Debian package {package}"))?;
        }
        let allowed = Command::new("unshare").args(["-n", "true"]).output();
        if !allowed.is_ok_and(|it| it.status.success()) {
            // Says so, and fails where skipping is forbidden.
            return foreign("no-right-to-make-network-namespaces", "root").map(|_| unreachable!());
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join("hosts"),
            format!("127.0.0.1 localhost\n{hosts}"),
        )
        .unwrap();
        let network = Network {
            tag: format!("sd{}{tag}", std::process::id()),
            dir,
        };
        let [near, way, far] = ["near", "way", "far"].map(|it| network.name(it));
        sh(&format!(
            "for ns in {near} {way} {far}; do ip netns add $ns; ip -n $ns link set lo up; done
             ip -n {near} link add out type veth peer name near netns {way}
             ip -n {far} link add out type veth peer name far netns {way}
             ip -n {near} addr add 10.255.1.2/24 dev out
             ip -n {near} addr add fd00:1::2/64 dev out nodad
             ip -n {far} addr add {FAR}/24 dev out
             ip -n {far} addr add {FAR6}/64 dev out nodad
             ip -n {way} addr add {WAY}/24 dev near
             ip -n {way} addr add fd00:1::1/64 dev near nodad
             ip -n {way} addr add 10.255.2.1/24 dev far
             ip -n {way} addr add fd00:2::1/64 dev far nodad
             for ns in {near} {far}; do ip -n $ns link set out up; done
             for link in near far; do ip -n {way} link set $link up; done
             ip -n {near} route add default via {WAY}; ip -n {near} -6 route add default via fd00:1::1
             ip -n {far} route add default via 10.255.2.1; ip -n {far} -6 route add default via fd00:2::1
             ip netns exec {way} sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
             for ns in {way} {far}; do ip netns exec $ns sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0; done
             ip netns exec {near} ping -q -c 1 -w 20 {FAR} && ip netns exec {near} ping -q -c 1 -w 20 {FAR6}"
        ));
        Some(network)
    }

    pub(crate) fn name(&self, machine: &str) -> String {
        format!("{}-{machine}", self.tag)
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    /// Lets programs that run as somebody else read the folder.
    pub(crate) fn let_others_read(&self) {
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(self.dir.path(), open).unwrap();
    }

    /// Loads nftables rules on the router.
    pub(crate) fn rules(&self, text: &str) {
        let path = self.path("rules.nft");
        // nft wants a line end between two closing braces.
        std::fs::write(&path, text.replace("} }", "}\n}")).unwrap();
        sh(&format!(
            "ip netns exec {} nft -f {}",
            self.name("way"),
            path.display()
        ));
    }

    /// Runs a script on a machine.
    pub(crate) fn sh(&self, machine: &str, script: &str) {
        sh(&format!(
            "ip netns exec {} sh -ec '{script}'",
            self.name(machine)
        ));
    }

    /// A program on a machine, with the machine's own `/etc/hosts`.
    pub(crate) fn program(&self, machine: &str, program: &Path, args: &[&str]) -> Launch {
        let hosts = self.path("hosts");
        // `ip netns exec` has mounts of its own, so nothing of this machine changes.
        let script = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
        let name = self.name(machine);
        let shell = [
            "netns",
            "exec",
            &name,
            "sh",
            "-c",
            script,
            hosts.to_str().unwrap(),
        ];
        Program::new("ip").args(shell).arg(program).args(args)
    }

    /// The servers of `far_end.rs` on a machine, when they are ready.
    pub(crate) fn serve(&self, machine: &str, what: &str) -> Program {
        let this = std::env::current_exe().unwrap();
        let dir = self.dir.path().to_str().unwrap();
        let program = self
            .program(
                machine,
                &this,
                &["--exact", "far_end::serve", "--nocapture"],
            )
            .env("SALLYPORT_TEST_FAR_END", what)
            .env("SALLYPORT_TEST_FAR_DIR", dir)
            .start();
        program.wait_for_line("far end ready", sallyport_testkit::Deadline::secs(30));
        program
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for machine in ["near", "way", "far"] {
            let _ = Command::new("ip")
                .args(["netns", "del", &self.name(machine)])
                .output();
        }
    }
}
