//! The audit log and two syslog daemons of other projects, in both directions.

use sallyport_runtime::certs::LocalCa;
use sallyport_testkit::{Deadline, eventually, foreign, free_port};
use serde_json::Value;

use super::collector::{rsyslog, start_rsyslog, syslog_ng};
use super::{change, newest, pulled};
use crate::lab::{Control, soon, write};

fn listening(port: u16) -> String {
    format!("[receive]\nlisten = \"127.0.0.1:{port}\"\n")
}

/// Waits for received records with these texts, in any order; returns them in the order asked for.
#[track_caller]
fn wait_for(control: &Control, texts: &[&str]) -> Vec<Value> {
    let mut found = Vec::new();
    eventually(&format!("{texts:?} are in the log"), soon(), || {
        let all = pulled(control, "&filter[type]=received");
        let one = |text: &&str| {
            let has = |it: &&Value| it["message"].as_str().is_some_and(|it| it.trim() == *text);
            all.iter().find(has).cloned()
        };
        found = texts.iter().filter_map(one).collect();
        found.len() == texts.len()
    });
    found
}

#[test]
fn rsyslog_sends_over_tcp_and_udp() {
    let port = free_port();
    let control = Control::start_with_audit_log(&listening(port));
    for (protocol, framing) in [
        ("tcp", "TCP_Framing=\"octet-counted\""),
        ("tcp", "TCP_Framing=\"traditional\""),
        ("udp", ""),
    ] {
        let conf = |dir: &std::path::Path| {
            format!(
                "global(workDirectory=\"{dir}\")\n\
                 module(load=\"imfile\")\n\
                 input(type=\"imfile\" File=\"{dir}/in.log\" Tag=\"audit\" Facility=\"local4\")\n\
                 action(type=\"omfwd\" target=\"127.0.0.1\" port=\"{port}\" protocol=\"{protocol}\" {framing} \
                 template=\"RSYSLOG_SyslogProtocol23Format\" action.resumeRetryCount=\"-1\")\n",
                dir = dir.display()
            )
        };
        let Some(daemon) = rsyslog(conf) else { return };
        let text = format!("user=alice via {protocol} {}", framing.len());
        daemon.send(&text);
        let got = wait_for(&control, &[&text]);
        assert_eq!(got[0]["transport"], protocol, "{got:?}");
        assert_eq!(got[0]["device_app"], "audit", "{got:?}");
    }
}

#[test]
fn syslog_ng_sends_over_tls_and_udp() {
    let port = free_port();
    let control = Control::start_with_audit_log(&listening(port));
    let ca = control.ca().display().to_string();
    for (transport, more) in [
        (
            "tls",
            format!("tls(ca-file(\"{ca}\") peer-verify(required-trusted))"),
        ),
        ("tcp", String::new()),
        ("udp", String::new()),
    ] {
        let conf = |dir: &std::path::Path| {
            format!(
                "source s {{ file(\"{}/in.log\" follow-freq(0.1) flags(no-parse)); }};\n\
                 destination d {{ syslog(\"localhost\" ip-protocol(4) port({port}) transport(\"{transport}\") {more}); }};\n\
                 log {{ source(s); destination(d); }};\n",
                dir.display()
            )
        };
        let Some(daemon) = syslog_ng(conf) else {
            return;
        };
        let texts = [
            format!("first via {transport}"),
            format!("d\u{e9}j\u{e0} vu via {transport}"),
        ];
        texts.iter().for_each(|text| daemon.send(text));
        let got = wait_for(&control, &[&texts[0], &texts[1]]);
        assert_eq!(got[0]["transport"], transport, "{got:?}");
        let data = got[1]["device_data"].as_str().unwrap();
        assert!(data.contains("sequenceId=\"2\""), "{data}");
    }
    let own = pulled(&control, "&filter[type]=audit_log");
    assert!(!own.iter().any(|it| it["name"] == "Log.Gap"), "{own:?}");
}

/// Waits until what the daemon wrote has every record up to the newest.
#[track_caller]
fn wait_for_whole_log(
    control: &Control,
    written: impl Fn() -> String,
    mark: impl Fn(u64) -> String,
) {
    let newest = newest(control);
    eventually("the whole log has arrived", Deadline::secs(120), || {
        let written = written();
        (1..=newest).all(|seq| written.contains(&mark(seq)))
    });
}

#[test]
fn rsyslog_receives_the_whole_log_across_its_own_restart() {
    let Some(program) = foreign("rsyslogd", "Debian package rsyslog, see .ci/run") else {
        return;
    };
    let port = free_port();
    let control = Control::start_with_audit_log(&format!(
        "[[forward]]\nto = \"tcp://127.0.0.1:{port}\"\n[[forward]]\nto = \"udp://127.0.0.1:{port}\"\nformat = \"json\"\n"
    ));
    change(&control, (0..20).map(|at| format!("before{at}")));
    let conf = |dir: &std::path::Path| {
        format!(
            "global(workDirectory=\"{dir}\" maxMessageSize=\"64k\")\n\
             module(load=\"imtcp\")\n\
             input(type=\"imtcp\" address=\"127.0.0.1\" port=\"{port}\" ruleset=\"r\")\n\
             module(load=\"imudp\")\n\
             input(type=\"imudp\" address=\"127.0.0.1\" port=\"{port}\" ruleset=\"u\")\n\
             template(name=\"t\" type=\"string\" string=\"%app-name% %msgid% %structured-data% %msg%\\n\")\n\
             ruleset(name=\"r\") {{ action(type=\"omfile\" file=\"{dir}/out.log\" template=\"t\") }}\n\
             ruleset(name=\"u\") {{ action(type=\"omfile\" file=\"{dir}/udp.log\" template=\"t\") }}\n",
            dir = dir.display()
        )
    };
    let mut daemon = rsyslog(conf).unwrap();
    let mark = |seq: u64| format!("[meta sequenceId=\"{seq}\"]");
    wait_for_whole_log(&control, || daemon.written(), mark);
    let text = daemon.written();
    assert!(text.contains("sallyport gateway_access [meta"), "{text}");
    assert!(
        text.contains("CEF:0|KongInc|Konnect|1.0|KongGateway|Ingress|1|"),
        "{text}"
    );
    // datagrams: what is sent while the receiver is there
    change(&control, ["datagram".to_owned()]);
    eventually("a datagram arrives", soon(), || {
        let udp = std::fs::read_to_string(daemon.dir.path().join("udp.log")).unwrap_or_default();
        udp.contains("core-entities/services/datagram") && udp.contains("\"event_vendor\"")
    });

    daemon.program.kill9();
    change(&control, (0..20).map(|at| format!("while{at}")));
    daemon.program = start_rsyslog(&program, daemon.dir.path());
    wait_for_whole_log(&control, || daemon.written(), mark);
    change(&control, ["after".to_owned()]);
    wait_for_whole_log(&control, || daemon.written(), mark);
}

#[test]
fn syslog_ng_receives_over_tls() {
    let dir = tempfile::tempdir().unwrap();
    let ca = LocalCa::create("collector authority", 30).unwrap();
    let pair = ca.issue_server(&["localhost"], 30).unwrap();
    for (name, text) in [
        ("ca.pem", &ca.pem().cert),
        ("cert.pem", &pair.cert),
        ("key.pem", &pair.key),
    ] {
        write(&dir.path().join(name), text);
    }
    let port = free_port();
    let file = |name: &str| dir.path().join(name).display().to_string();
    let conf = |own: &std::path::Path| {
        format!(
            "source s {{ syslog(ip(\"127.0.0.1\") port({port}) transport(\"tls\") \
             tls(key-file(\"{}\") cert-file(\"{}\") peer-verify(optional-untrusted))); }};\n\
             destination d {{ file(\"{}/out.log\" template(\"$FACILITY $HOST $PROGRAM #${{.SDATA.meta.sequenceId}}# $MSG\\n\")); }};\n\
             log {{ source(s); destination(d); }};\n",
            file("key.pem"),
            file("cert.pem"),
            own.display()
        )
    };
    let Some(daemon) = syslog_ng(conf) else {
        return;
    };
    let control = Control::start_with_audit_log(&format!(
        "[[forward]]\nto = \"tls://localhost:{port}\"\nformat = \"json\"\nca = [\"{}\"]\n",
        file("ca.pem")
    ));
    change(&control, (0..20).map(|at| format!("s{at}")));
    wait_for_whole_log(&control, || daemon.written(), |seq| format!("#{seq}# {{"));
    let text = daemon.written();
    assert!(
        text.contains("security sallyport.localhost sallyport #1# {\"cef_version\":0"),
        "{text}"
    );
}
