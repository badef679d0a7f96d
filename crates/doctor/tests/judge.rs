//! Observations and what they mean.

#![allow(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

use std::net::SocketAddr;

use proptest::prelude::*;
use sallyport_contract::Owner;
use sallyport_doctor::{
    Answer, Attempt, CertFault, Check, End, Handshake, Icmp, Outcome, Resolution, Seen, Shown,
    Small, Status, Talk, Talked, Target, Then, across, judge, report,
};

const NOW: i64 = 1_800_000_000;

fn a_check(talk: Talk) -> Check {
    Check {
        id: "row".to_owned(),
        title: "Row".to_owned(),
        owner: Owner::Installation,
        far: "control plane".to_owned(),
        flow: "443/tcp".to_owned().try_into().unwrap(),
        target: Target::Name("a.test".to_owned()),
        expected: Vec::new(),
        issuer_known: false,
        server_name: None,
        talk,
        via: None,
    }
}

fn tls(mutual: bool) -> Talk {
    Talk::Tls {
        mutual,
        then: if mutual {
            Then::Upgrade("/".to_owned())
        } else {
            Then::Http
        },
    }
}

fn seen(ends: impl IntoIterator<Item = End>) -> Seen {
    let address: SocketAddr = "192.0.2.1:443".parse().unwrap();
    let attempts: Vec<Attempt> = ends
        .into_iter()
        .map(|end| Attempt {
            address,
            end,
            took_ms: 3,
        })
        .collect();
    let resolution = Some(Resolution::Addresses(vec![address.ip()]));
    Seen {
        resolution,
        attempts,
    }
}

#[track_caller]
fn check(talk: Talk, ends: impl IntoIterator<Item = End>, status: Status, part: &str) {
    let verdict = judge(&a_check(talk), &seen(ends), NOW);
    assert_eq!(verdict.status, status, "{verdict:?}");
    let all = format!("{verdict:?}");
    assert!(all.contains(part), "no {part:?} in {all}");
}

fn talked(handshake: Option<Handshake>, answer: Option<Answer>) -> End {
    End::Connected(Talked {
        handshake,
        answer,
        ..Talked::default()
    })
}

fn shown(fault: Option<CertFault>) -> Shown {
    Shown {
        issuer: "\"CN=Example\"".to_owned(),
        names: vec!["a.test".to_owned()],
        not_before: NOW - 10,
        not_after: NOW - 86_400 * 3,
        self_signed: false,
        name_fits: true,
        fault,
    }
}

fn http(status: u16) -> Answer {
    Answer::Http {
        status,
        clock_ahead_secs: Some(0),
    }
}

fn web(fault: Option<CertFault>, answer: Option<Answer>) -> End {
    talked(Some(Handshake::Done(shown(fault))), answer)
}

#[test]
fn how_far_it_came() {
    check(
        tls(false),
        [End::Silent],
        Status::Filtered,
        "allow out tcp to 192.0.2.1 (a.test) port 443",
    );
    check(
        tls(false),
        [End::Refused],
        Status::Closed,
        "operator of this installation",
    );
    check(
        tls(false),
        [End::Unreachable("No route to host".to_owned())],
        Status::Unreachable,
        "No route",
    );
    check(
        tls(false),
        [End::NoRoute],
        Status::Unreachable,
        "no route there",
    );
    check(
        tls(false),
        [End::Forbidden],
        Status::Filtered,
        "own firewall",
    );
    check(
        Talk::Datagram,
        [End::Sent],
        Status::Unproven,
        "no answer is defined",
    );
    check(
        Talk::Echo,
        [End::Icmp(Icmp::Reply)],
        Status::Open,
        "answers",
    );
    check(
        Talk::Echo,
        [End::Icmp(Icmp::Silent)],
        Status::Filtered,
        "echo",
    );
    check(
        Talk::Echo,
        [End::Icmp(Icmp::NoRight { tcp_answers: false })],
        Status::Unproven,
        "no answer on TCP",
    );
    check(
        Talk::Nothing,
        [talked(None, None)],
        Status::Open,
        "open in 3 ms",
    );
}

#[test]
fn what_it_answers() {
    check(
        tls(false),
        [web(None, Some(http(200)))],
        Status::Open,
        "CN=Example",
    );
    check(
        tls(false),
        [web(None, Some(http(503)))],
        Status::Wrong,
        "itself is down",
    );
    check(
        tls(true),
        [web(None, Some(http(101)))],
        Status::Wrong,
        "without a client certificate",
    );
    let ours = End::Connected(Talked {
        handshake: Some(Handshake::Done(shown(None))),
        answer: Some(http(101)),
        ours_shown: true,
        ..Talked::default()
    });
    check(tls(true), [ours], Status::Open, "WebSocket");
    check(
        tls(true),
        [web(None, Some(http(403)))],
        Status::Wrong,
        "must be known to the control plane",
    );
    check(
        tls(true),
        [web(None, Some(http(404)))],
        Status::Wrong,
        "another service",
    );
    check(
        tls(true),
        [web(None, Some(Answer::CertificateRequired))],
        Status::Open,
        "as it must",
    );
    check(
        tls(false),
        [web(None, Some(Answer::CertificateRequired))],
        Status::Wrong,
        "the row needs none",
    );
    check(
        tls(true),
        [web(None, Some(Answer::Closed))],
        Status::Wrong,
        "does not know our certificate",
    );
    let skewed = Answer::Http {
        status: 200,
        clock_ahead_secs: Some(-300),
    };
    check(
        tls(false),
        [web(None, Some(skewed))],
        Status::Wrong,
        "5 minutes ahead of",
    );
    check(
        Talk::Dns("a".to_owned()),
        [End::Answered(Answer::Dns(5))],
        Status::Wrong,
        "refuses DNS",
    );
    check(
        Talk::Dns("a".to_owned()),
        [End::Answered(Answer::Dns(3))],
        Status::Open,
        "answers DNS",
    );
    check(
        Talk::Ntp,
        [End::Answered(Answer::Time(61))],
        Status::Wrong,
        "behind",
    );
    check(
        Talk::Ntp,
        [End::Answered(Answer::Time(-60))],
        Status::Open,
        "tells the time",
    );
    check(
        Talk::Http,
        [talked(None, Some(Answer::Garbage("x".to_owned())))],
        Status::Wrong,
        "something else",
    );
}

#[test]
fn what_is_wrong_with_the_certificate() {
    let with = |fault| [web(Some(fault), None)];
    check(
        tls(false),
        with(CertFault::Expired),
        Status::Wrong,
        "expired 3 days ago",
    );
    check(
        tls(false),
        with(CertFault::WrongName),
        Status::Wrong,
        "is for a.test",
    );
    check(
        tls(false),
        with(CertFault::UnknownIssuer),
        Status::Wrong,
        "--ca",
    );
    check(tls(false), with(CertFault::NotYet), Status::Wrong, "clock");
    check(
        tls(true),
        with(CertFault::NotPinned),
        Status::Intercepted,
        "CN=Example",
    );
}

#[track_caller]
fn check_intercepted(owner: Owner, issuer_known: bool, shown: Shown, want: Status) {
    let check = Check {
        owner,
        issuer_known,
        ..a_check(tls(false))
    };
    let end = talked(Some(Handshake::Done(shown)), None);
    assert_eq!(judge(&check, &seen([end]), NOW).status, want, "{check:?}");
}

#[test]
fn interception_is_told_only_for_certain() {
    let unknown = || shown(Some(CertFault::UnknownIssuer));
    check_intercepted(Owner::Installation, false, unknown(), Status::Wrong);
    check_intercepted(Owner::Installation, true, unknown(), Status::Intercepted);
    check_intercepted(Owner::ThirdParty, false, unknown(), Status::Intercepted);
    let own = Shown {
        self_signed: true,
        ..unknown()
    };
    check_intercepted(Owner::ThirdParty, true, own, Status::Wrong);
    let other = Shown {
        name_fits: false,
        ..unknown()
    };
    check_intercepted(Owner::ThirdParty, true, other, Status::Wrong);
    // Trusted, as the inspecting product's authority is installed here.
    let trusted = |issuer: &str| Shown {
        issuer: issuer.to_owned(),
        ..shown(None)
    };
    check_intercepted(
        Owner::Vendor,
        false,
        trusted("CN=Zscaler Intermediate Root CA"),
        Status::Intercepted,
    );
    check_intercepted(
        Owner::Vendor,
        false,
        trusted("C=US, O=DigiCert Inc, CN=DigiCert G2"),
        Status::Open,
    );
}

#[test]
fn one_authority_for_unrelated_names_intercepts() {
    let outcome = |name: &str| {
        let check = Check {
            target: Target::Name(name.to_owned()),
            ..a_check(tls(false))
        };
        let end = web(Some(CertFault::UnknownIssuer), None);
        let verdict = judge(&check, &seen([end]), NOW);
        Outcome {
            check,
            verdict,
            took_ms: 1,
            untrusted_issuer: Some("CN=Example".to_owned()),
        }
    };
    let mut related = [outcome("a.sally.test"), outcome("b.sally.test")];
    across(&mut related);
    assert!(related.iter().all(|it| it.verdict.status == Status::Wrong));
    let mut unrelated = [outcome("a.sally.test"), outcome("b.other.test")];
    across(&mut unrelated);
    assert!(
        unrelated
            .iter()
            .all(|it| it.verdict.status == Status::Intercepted)
    );
}

#[test]
fn what_happens_on_silence() {
    let silent = |small| {
        End::Connected(Talked {
            handshake: Some(Handshake::Silent),
            small: Some(small),
            ..Talked::default()
        })
    };
    check(
        tls(false),
        [silent(Small::SilentToo)],
        Status::Wrong,
        "half open",
    );
    check(
        tls(false),
        [silent(Small::Works(1220))],
        Status::Filtered,
        "clamp the MSS to 1220",
    );
    check(
        tls(false),
        [talked(Some(Handshake::Stalled), None)],
        Status::Wrong,
        "does not finish",
    );
}

#[test]
fn of_several_addresses_the_worst_counts() {
    let fine = || web(None, Some(http(200)));
    check(
        tls(false),
        [fine(), End::Silent, fine()],
        Status::Filtered,
        "2 of 3 addresses are fine",
    );
    check(tls(false), [fine(), End::NoRoute], Status::Open, "");
    check(tls(false), [], Status::Skipped, "no address");
}

#[test]
fn what_the_proxy_says() {
    let refused = |status| {
        [End::ProxyRefused {
            status,
            reason: "x".to_owned(),
        }]
    };
    let through = || Check {
        via: Some("http://p.test:3128".parse().unwrap()),
        ..a_check(tls(true))
    };
    for (status, want) in [
        (403, Status::Filtered),
        (407, Status::Wrong),
        (503, Status::Unreachable),
        (0, Status::Wrong),
        (200, Status::Wrong),
    ] {
        assert_eq!(
            judge(&through(), &seen(refused(status)), NOW).status,
            want,
            "{status}"
        );
    }
}

#[test]
fn names_must_be_where_they_should() {
    let expected = Check {
        expected: vec!["198.51.100.0/24".parse().unwrap()],
        ..a_check(tls(false))
    };
    let verdict = judge(&expected, &seen([web(None, Some(http(200)))]), NOW);
    assert_eq!(verdict.status, Status::Wrong);
    assert!(
        verdict.seen.contains("DNS says a.test is 192.0.2.1"),
        "{verdict:?}"
    );
    for (resolution, part) in [
        (Resolution::NoSuchName, "has no address"),
        (Resolution::Failed("SERVFAIL".to_owned()), "SERVFAIL"),
        (Resolution::Silent, "no answer from the resolver"),
    ] {
        let seen = Seen {
            resolution: Some(resolution),
            attempts: Vec::new(),
        };
        let verdict = judge(&a_check(tls(false)), &seen, NOW);
        assert_eq!(verdict.status, Status::Unresolved);
        assert!(verdict.seen.contains(part), "{verdict:?}");
    }
}

fn ends() -> impl Strategy<Value = End> {
    let text = || "\\PC{0,20}|.{0,20}";
    let fault = prop_oneof![
        Just(None),
        Just(Some(CertFault::Expired)),
        Just(Some(CertFault::UnknownIssuer)),
        text().prop_map(|it| Some(CertFault::Other(it))),
    ];
    let shown = (
        text(),
        any::<i64>(),
        any::<i64>(),
        any::<bool>(),
        any::<bool>(),
        fault,
    )
        .prop_map(
            |(issuer, not_before, not_after, self_signed, name_fits, fault)| Shown {
                issuer,
                names: Vec::new(),
                not_before: not_before / 4,
                not_after: not_after / 4,
                self_signed,
                name_fits,
                fault,
            },
        );
    let handshake = prop_oneof![
        shown.prop_map(Handshake::Done),
        Just(Handshake::Silent),
        text().prop_map(Handshake::NotTls),
        text().prop_map(Handshake::Refused),
    ];
    let answer = prop_oneof![
        (any::<u16>(), any::<i64>()).prop_map(|(status, ahead)| Answer::Http {
            status,
            clock_ahead_secs: Some(ahead / 4),
        }),
        text().prop_map(Answer::Garbage),
        text().prop_map(Answer::Unfinished),
        any::<i64>().prop_map(|it| Answer::Time(it / 4)),
        Just(Answer::Closed),
    ];
    prop_oneof![
        Just(End::Silent),
        Just(End::Refused),
        text().prop_map(End::Unreachable),
        (any::<u16>(), text()).prop_map(|(status, reason)| End::ProxyRefused { status, reason }),
        (
            proptest::option::of(handshake),
            proptest::option::of(answer)
        )
            .prop_map(|(handshake, answer)| talked(handshake, answer)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever was seen, a bad verdict says whom to ask, a good one asks nobody, and every report
    /// can be written.
    #[test]
    fn every_observation_has_a_verdict(ends in proptest::collection::vec(ends(), 0..4), mutual: bool) {
        let check = a_check(tls(mutual));
        let verdict = judge(&check, &seen(ends), NOW);
        prop_assert_eq!(verdict.status.is_bad(), verdict.fix.is_some());
        prop_assert!(!verdict.seen.is_empty());
        let outcomes = [Outcome { check, verdict, took_ms: 1, untrusted_issuer: None }];
        let json: serde_json::Value = serde_json::from_str(&report::json(&outcomes, &[])).unwrap();
        prop_assert_eq!(json["ok"] == false, outcomes[0].verdict.status.is_bad());
        report::text(&outcomes, &[]);
        let junit = report::junit(&outcomes, &[]);
        prop_assert_eq!(junit.matches("<testcase").count(), 1);
    }
}
