use crate::{check_refused, run};

#[track_caller]
fn check(what: &[&str], parts: &[&str]) {
    let done = run(&[&["ports", "explain"], what].concat()).success();
    for part in parts {
        assert!(
            done.stdout.contains(part),
            "{what:?}: no {part:?} in:\n{}",
            done.stdout
        );
    }
}

#[test]
fn explains_ports_ids_and_names() {
    check(&["8721"], &["webtask.logs", "appliance → appliance"]);
    check(&["8071/udp"], &["audit_log"]);
    check(&["icmp"], &["healthcheck.icmp"]);
    check(&["config_sync"], &["443/tcp", "yes, on both ends"]);
    check(&["alpha.eu.cp0.sally.example"], &["config_sync"]);
    check(
        &["alpha.eu.cp0.konghq.com", "--catalogue", "hosted"],
        &["443/tcp"],
    );
    check(&["27017", "--catalogue", "appliance"], &["database"]);
}

#[test]
fn says_what_else_there_is() {
    check_refused(
        &["ports", "explain", "4711"],
        &["4711", "`sallyport ports` lists"],
    );
    check_refused(
        &["ports", "explain", "proxy.htt"],
        &["did you mean", "proxy.http"],
    );
}
