//! A gateway whose control plane is behind a forward proxy: squid, tinyproxy, and one that inspects.

use std::path::Path;

use sallyport_testkit::{Deadline, Echo, Program, foreign, free_port};
use tempfile::TempDir;

use crate::lab::{Control, Gateway, Pair, after_reconnect, soon, write};

/// A gateway that has `proxy_server` and a pinned certificate.
fn behind(control: &Control, proxy: &str, more: &str) -> Gateway {
    let dir = tempfile::tempdir().unwrap();
    let pair = Pair::make(dir.path());
    control.pin(&pair.cert());
    let conf = format!("cluster_use_proxy = on\nproxy_server = {proxy}\n{more}");
    Gateway::start_set(control, dir, &pair, &conf)
}

/// A route that is made now arrives.
#[track_caller]
fn gets_changes(control: &Control, gateway: &Gateway) -> Echo {
    gateway
        .program
        .wait_for_line("control plane connected", soon());
    let echo = Echo::start();
    control.route_to("behind", echo.port());
    gateway.wait_for("/behind", 200, soon());
    echo
}

/// Files that a proxy without our rights can read.
pub(crate) fn readable() -> TempDir {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    dir
}

pub(crate) fn squid(program: &Path, dir: &Path, port: u16) -> Program {
    let hash = Program::new("openssl")
        .args(["passwd", "-apr1", "p@ss"])
        .run(soon())
        .success()
        .stdout;
    write(&dir.join("users"), format!("gate:{hash}"));
    let conf = dir.join("squid.conf");
    write(
        &conf,
        format!(
            "http_port 127.0.0.1:{port}\n\
             auth_param basic program /usr/lib/squid/basic_ncsa_auth {users}\n\
             acl known proxy_auth REQUIRED\nhttp_access allow known\nhttp_access deny all\n\
             pid_filename none\ncache_log /dev/null\naccess_log none\ncache deny all\n\
             shutdown_lifetime 0 seconds\nvisible_hostname way.test\ncoredump_dir {dir}\n",
            users = dir.join("users").display(),
            dir = dir.display(),
        ),
    );
    // squid's shared memory has a name of this service, and is cleared when it is stopped
    let service = format!("sf{}", std::process::id());
    let squid = Program::new(program)
        .args(["-N", "-d", "1", "-n", &service, "-f"])
        .arg(&conf)
        .start();
    squid.wait_for_line("Accepting HTTP Socket connections", Deadline::secs(60));
    squid
}

#[test]
fn squid_wants_credentials_and_passes_the_link() {
    let Some(program) = foreign("squid", "Debian package squid") else {
        return;
    };
    let dir = readable();
    let port = free_port();
    let mut proxy = squid(&program, dir.path(), port);
    let control = Control::start();
    let refused = behind(&control, &format!("http://gate:wrong@127.0.0.1:{port}"), "");
    refused.program.wait_for_line(
        "forward proxy.*wants other credentials.*proxy_server",
        soon(),
    );
    assert!(
        !refused.program.output().contains("wrong"),
        "a password is never shown"
    );
    let gateway = behind(
        &control,
        &format!("http://gate:p%40ss@127.0.0.1:{port}"),
        "",
    );
    let _echo = gets_changes(&control, &gateway);
    proxy.kill9();
    gateway
        .program
        .wait_for_line("the forward proxy: cannot connect", after_reconnect());
    assert_eq!(
        gateway.status_of("/behind"),
        200,
        "traffic does not need it"
    );
}

#[test]
fn what_no_proxy_lists_is_dialled_directly() {
    let control = Control::start();
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let mut gateway = behind(&control, &nobody, "");
    gateway
        .program
        .wait_for_line("the forward proxy: cannot connect", soon());
    gateway.kill9_and_start_with(&[("NO_PROXY", "other.example,127.0.0.0/8")]);
    gets_changes(&control, &gateway);
}

#[test]
fn tinyproxy_passes_the_link_or_refuses_the_port() {
    let Some(program) = foreign("tinyproxy", "Debian package tinyproxy") else {
        return;
    };
    let control = Control::start();
    let start = |dir: &Path, allowed: u16| {
        let port = free_port();
        let conf = dir.join("tinyproxy.conf");
        let text = format!("Port {port}\nListen 127.0.0.1\nConnectPort {allowed}\nLogLevel Info\n");
        write(&conf, text);
        let proxy = Program::new(&program)
            .arg("-d")
            .arg("-c")
            .arg(&conf)
            .start();
        proxy.wait_for_line("Accepting connections", soon());
        (proxy, format!("http://127.0.0.1:{port}"))
    };
    let dir = readable();
    let (_strict, url) = start(dir.path(), 1);
    let refused = behind(&control, &url, "");
    refused
        .program
        .wait_for_line("does not open a way to 127.0.0.1.*403", soon());
    let (_proxy, url) = start(dir.path(), control.port);
    gets_changes(&control, &behind(&control, &url, ""));
}

#[test]
fn a_proxy_over_tls_is_verified_and_one_that_inspects_is_named() {
    let Some(program) = foreign("mitmdump", "mitmproxy of PyPI") else {
        return;
    };
    let control = Control::start();
    let dir = readable();
    let start = |more: &[&str]| {
        let port = free_port();
        let proxy = Program::new(&program)
            .args(["--mode", "regular", "--listen-host", "127.0.0.1", "--set"])
            .arg(format!("confdir={}", dir.path().display()))
            .arg("--listen-port")
            .arg(port.to_string())
            .args(more.iter().copied())
            .start();
        proxy.wait_for_line("proxy listening", Deadline::secs(60));
        (proxy, port)
    };
    let (_honest, port) = start(&["--ignore-hosts", ".*"]);
    let unknown = behind(&control, &format!("https://127.0.0.1:{port}"), "");
    unknown
        .program
        .wait_for_line("the forward proxy https://127.0.0.1:.*mitmproxy", soon());
    let unverified = "proxy_server_ssl_verify = off";
    let gateway = behind(&control, &format!("https://127.0.0.1:{port}"), unverified);
    gets_changes(&control, &gateway);

    let (_inspecting, port) = start(&["--ssl-insecure"]);
    let inspected = behind(&control, &format!("http://127.0.0.1:{port}"), "");
    inspected
        .program
        .wait_for_line("(?i)intercept.*mitmproxy|mitmproxy.*intercept", soon());
}
