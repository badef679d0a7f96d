use super::*;
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);

fn hash(fill: u8) -> ConfigHash {
    ConfigHash::try_from(&[fill; 32][..]).unwrap()
}

fn ping(fill: u8) -> Effect {
    Effect::Send(Outgoing::Ping(hash(fill)))
}

fn payload(byte: u8) -> Event {
    Event::Received(Frame::Payload(vec![byte]))
}

/// To who takes no errors.
const CONNECTED: Event = Event::Connected {
    takes_errors: false,
};

/// A link that is up since `start`, with hash `a`.
fn up(start: Instant) -> Link {
    let mut link = Link::new(
        start,
        Timings::default(),
        (hash(b'a'), SyncVersion::NONE),
        7,
    );
    assert_eq!(link.deadline(), Some(start));
    assert_eq!(link.step(start, Event::Tick), [Effect::Dial]);
    assert_eq!(link.deadline(), None);
    let first = link.step(start, CONNECTED);
    assert_eq!(first, [Effect::Send(Outgoing::Hello), ping(b'a')]);
    link
}

#[test]
fn what_is_refused_is_told_on_v1_to_who_takes_it_and_to_nobody_else() {
    let start = Instant::now();
    let report = || Box::new(ErrorReport::on_all(hash(b'c'), "no"));
    let told = [Effect::Send(Outgoing::Error(report()))];
    let mut link = up(start);
    assert_eq!(link.step(start, Event::Objected(report())), []);
    link.step(start, Event::Lost);
    // what comes of an apply that outlived its link is told with the next one
    assert_eq!(link.step(start, Event::Objected(report())), []);
    link.step(link.deadline().unwrap(), Event::Tick);
    link.step(start, Event::Connected { takes_errors: true });
    assert_eq!(link.step(start, Event::Objected(report())), told);
    link.step(start, Event::Lost);
    link.step(link.deadline().unwrap(), Event::Tick);
    link.step(start, Event::ConnectedRpc { own: true });
    assert_eq!(link.step(start, Event::Objected(report())), []);
}

#[test]
fn pings_go_out_every_30_seconds_and_after_each_apply() {
    let start = Instant::now();
    let mut link = up(start);
    assert_eq!(link.deadline(), Some(start + 30 * SECOND));
    assert_eq!(link.step(start + 29 * SECOND, Event::Tick), []);
    assert_eq!(
        link.step(start + 29 * SECOND, Event::Received(Frame::Other)),
        []
    );
    assert_eq!(link.step(start + 30 * SECOND, Event::Tick), [ping(b'a')]);
    assert_eq!(
        link.step(start + 40 * SECOND, payload(1)),
        [Effect::Apply(vec![1])]
    );
    assert_eq!(
        link.step(start + 41 * SECOND, Event::Applied(hash(b'b'))),
        [ping(b'b')]
    );
    assert_eq!(link.deadline(), Some(start + 71 * SECOND));
}

#[test]
fn silence_ends_the_link_after_45_seconds() {
    let start = Instant::now();
    let mut link = up(start);
    assert_eq!(link.step(start + 30 * SECOND, Event::Tick), [ping(b'a')]);
    assert_eq!(link.deadline(), Some(start + 45 * SECOND));
    assert_eq!(
        link.step(start + 45 * SECOND, Event::Tick),
        [Effect::HangUp]
    );
    let again = link.deadline().unwrap() - (start + 45 * SECOND);
    assert!((5 * SECOND..=10 * SECOND).contains(&again), "{again:?}");
    // Bytes of a large payload are no silence.
    let mut link = up(start);
    link.step(start + 30 * SECOND, Event::Tick);
    link.step(start + 40 * SECOND, Event::Heard);
    assert_eq!(link.step(start + 45 * SECOND, Event::Tick), []);
}

#[test]
fn only_the_newest_of_waiting_payloads_is_applied() {
    let start = Instant::now();
    let mut link = up(start);
    assert_eq!(link.step(start, payload(1)), [Effect::Apply(vec![1])]);
    assert_eq!(link.step(start, payload(2)), []);
    assert_eq!(link.step(start, payload(3)), []);
    let after = link.step(start, Event::Applied(hash(b'b')));
    assert_eq!(after, [ping(b'b'), Effect::Apply(vec![3])]);
    assert_eq!(link.step(start, Event::Refused), []);
    assert_eq!(link.hash(), hash(b'b'));
}

#[test]
fn an_apply_that_outlives_the_link_still_counts() {
    let start = Instant::now();
    let mut link = up(start);
    link.step(start, payload(1));
    assert_eq!(link.step(start, Event::Lost), []);
    assert_eq!(link.step(start, Event::Applied(hash(b'b'))), []);
    let again = link.deadline().unwrap();
    assert_eq!(link.step(again, Event::Tick), [Effect::Dial]);
    let first = link.step(again, CONNECTED);
    assert_eq!(first, [Effect::Send(Outgoing::Hello), ping(b'b')]);
}

#[test]
fn pauses_are_spread_over_5_to_10_seconds() {
    let start = Instant::now();
    let mut link = Link::new(
        start,
        Timings::default(),
        (ConfigHash::ZERO, SyncVersion::NONE),
        1,
    );
    let mut seconds = [0_u32; 6];
    for _ in 0..600 {
        link.step(start, Event::Lost);
        let pause = link.deadline().unwrap() - start;
        assert!((5 * SECOND..=10 * SECOND).contains(&pause), "{pause:?}");
        seconds[usize::try_from(pause.as_secs() - 5).unwrap()] += 1;
    }
    assert!(seconds[..5].iter().all(|count| *count > 60), "{seconds:?}");
}

proptest! {
    /// Whatever happens: frames go out only while connected, hello first; one apply at a time.
    #[test]
    fn the_rules_hold_for_any_history(
        history in proptest::collection::vec((0_u8..8, 0_u64..50), 0..200),
        seed in any::<u64>(),
    ) {
        let mut now = Instant::now();
        let mut link = Link::new(now, Timings::default(), (ConfigHash::ZERO, SyncVersion::NONE), seed);
        let (mut connected, mut dialling, mut applying) = (false, false, 0_i32);
        let mut newest = None;
        for (kind, seconds) in history {
            now += Duration::from_secs(seconds);
            let event = match kind {
                0 | 1 => Event::Tick,
                2 if dialling => CONNECTED,
                3 if connected => { newest = Some(vec![u8::try_from(seconds).unwrap()]); Event::Received(Frame::Payload(newest.clone().unwrap())) }
                4 if connected => Event::Received(Frame::Other),
                5 if connected || dialling => Event::Lost,
                6 if applying > 0 => Event::Applied(hash(b'x')),
                7 if applying > 0 => Event::Refused,
                _ => Event::Heard,
            };
            match &event {
                Event::Connected { .. } => (connected, dialling) = (true, false),
                Event::Lost => (connected, dialling) = (false, false),
                Event::Applied(_) | Event::Refused => applying -= 1,
                _ => {}
            }
            let first = event == CONNECTED;
            let effects = link.step(now, event);
            if first {
                prop_assert_eq!(&effects[0], &Effect::Send(Outgoing::Hello));
            }
            for effect in effects {
                match effect {
                    Effect::Dial => { prop_assert!(!connected && !dialling); dialling = true; }
                    Effect::Send(Outgoing::Hello) => prop_assert!(first),
                    Effect::Send(Outgoing::Ping(hash)) => { prop_assert!(connected); prop_assert_eq!(hash, link.hash()); }
                    Effect::Apply(frame) => { applying += 1; prop_assert_eq!(Some(&frame), newest.as_ref()); }
                    Effect::HangUp => { prop_assert!(connected); connected = false; }
                    Effect::Send(_) | Effect::ApplyChanges(_) => prop_assert!(false, "not on v1"),
                }
            }
            prop_assert!(applying <= 1);
            prop_assert!(link.deadline().is_none() == dialling);
        }
    }
}

mod rpc {
    use sallyport_wire::config_sync::delta::{NOTIFY, PUSH, REPORT, Report};
    use sallyport_wire::config_sync::rpc::raw;
    use serde_json::{Value, json};

    use super::*;

    fn version(revision: u64) -> SyncVersion {
        SyncVersion::new(1, revision)
    }

    /// The messages among effects, as method and first param, or id and result.
    fn said(effects: &[Effect]) -> Vec<(String, Value)> {
        let text = |effect: &Effect| match effect {
            Effect::Send(Outgoing::Rpc(text)) => Some(Message::from_json(text).unwrap()),
            _ => None,
        };
        let one = |message| match message {
            Message::Call { method, params, .. } | Message::Notification { method, params } => {
                let params: Value = serde_json::from_str(params.get()).unwrap();
                (method, params[0].clone())
            }
            Message::Answer { result, .. } => (
                "answer".to_owned(),
                serde_json::from_str(result.get()).unwrap(),
            ),
            Message::Failure { message, .. } => ("failure".to_owned(), json!(message)),
        };
        effects.iter().filter_map(text).map(one).collect()
    }

    fn asks(from: SyncVersion) -> (String, Value) {
        let params = json!({"default": {"version": from}});
        ("kong.sync.v2.get_delta".to_owned(), params)
    }

    fn reports(revision: u64, fill: u8) -> (String, Value) {
        let report =
            json!({"version": version(revision), "config_hash": hash(fill), "refused": []});
        (REPORT.to_owned(), report)
    }

    fn up_rpc(now: Instant, own: bool) -> Link {
        let start = (hash(b'a'), version(1));
        let mut link = Link::new(now, Timings::default(), start, 7);
        assert_eq!(link.step(now, Event::Tick), [Effect::Dial]);
        let said = said(&link.step(now, Event::ConnectedRpc { own }));
        let asks = asks(version(1));
        match own {
            true => assert_eq!(said, [reports(1, b'a'), asks]),
            false => assert_eq!(said, [asks]),
        }
        link
    }

    fn frame(message: Message) -> Event {
        Event::Received(Frame::Rpc(vec![Ok(message)]))
    }

    fn answer(id: u64) -> Event {
        let result = raw(&json!({"default": {}}));
        frame(Message::Answer { id, result })
    }

    fn push() -> Event {
        let (method, params) = (PUSH.to_owned(), raw(&json!([{}])));
        frame(Message::Notification { method, params })
    }

    fn done(revision: u64, fill: u8) -> Event {
        Event::Synced(Synced::Done(Report {
            version: version(revision),
            config_hash: hash(fill),
            refused: Vec::new(),
        }))
    }

    fn applies(effects: &[Effect]) -> bool {
        matches!(effects, [Effect::ApplyChanges(_)])
    }

    #[test]
    fn what_is_pushed_is_applied_and_reported() {
        let now = Instant::now();
        let mut link = up_rpc(now, true);
        assert!(applies(&link.step(now, answer(0))));
        assert_eq!(said(&link.step(now, done(1, b'a'))), [reports(1, b'a')]);
        assert!(applies(&link.step(now, push())));
        // one that comes meanwhile is not lost: what is newer is asked for afterwards
        assert_eq!(link.step(now, push()), []);
        let after = said(&link.step(now, done(2, b'b')));
        assert_eq!(after, [reports(2, b'b'), asks(version(2))]);
        assert_eq!(link.hash(), hash(b'b'));
    }

    #[test]
    fn what_is_in_force_is_reported_when_it_is_kept_and_holds_up_nothing() {
        let now = Instant::now();
        let mut link = up_rpc(now, true);
        link.step(now, answer(0));
        link.step(now, done(1, b'a'));
        let in_force = |revision, fill| {
            Event::Synced(Synced::InForce {
                version: version(revision),
                config_hash: hash(fill),
                settles: true,
            })
        };
        let settled = |revision, fill| {
            Event::Settled(Report {
                version: version(revision),
                config_hash: hash(fill),
                refused: Vec::new(),
            })
        };
        for (revision, fill) in [(2, b'b'), (3, b'c')] {
            assert!(applies(&link.step(now, push())));
            assert_eq!(link.step(now, in_force(revision, fill)), []);
            assert_eq!(link.hash(), hash(fill));
        }
        assert_eq!(said(&link.step(now, settled(3, b'c'))), [reports(3, b'c')]);
        assert_eq!(link.step(now, settled(2, b'b')), [], "overtaken");
        // what comes of an earlier version is told all the same if that runs now
        link.step(now, push());
        assert_eq!(said(&link.step(now, done(1, b'a'))), [reports(1, b'a')]);
        link.step(now, Event::Lost);
        assert_eq!(link.step(now, settled(1, b'a')), [], "nobody is there");
    }

    #[test]
    fn what_does_not_fit_is_asked_for_anew_and_what_diverges_from_the_start() {
        let now = Instant::now();
        let mut link = up_rpc(now, true);
        link.step(now, answer(0));
        link.step(now, done(1, b'a'));
        link.step(now, push());
        assert_eq!(
            said(&link.step(now, Event::Synced(Synced::Elsewhere))),
            [asks(version(1))]
        );
        assert!(applies(&link.step(now, answer(1))));
        let diverged = || Event::Synced(Synced::Diverged);
        assert_eq!(said(&link.step(now, diverged())), [asks(SyncVersion::NONE)]);
        assert!(applies(&link.step(now, answer(2))));
        // and if everything diverges as well, that is said once and not asked for ever
        let told = said(&link.step(now, diverged()));
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].0, REPORT);
        assert_eq!(
            told[0].1["refused"][0]["message"],
            "what was published has another hash"
        );
        assert_eq!(told[0].1["config_hash"], json!(hash(b'a')));
    }

    #[test]
    fn kongs_control_plane_reads_the_version_off_the_next_question() {
        let now = Instant::now();
        let mut link = up_rpc(now, false);
        link.step(now, answer(0));
        assert_eq!(said(&link.step(now, done(2, b'b'))), [asks(version(2))]);
        link.step(now, answer(1));
        assert_eq!(
            said(&link.step(now, done(2, b'b'))),
            [],
            "and then there is quiet"
        );
        // until the next heartbeat, which its own data planes give in this form
        let half = now + Timings::default().ping / 2;
        link.step(half, Event::Received(Frame::Other));
        assert_eq!(link.step(half, Event::Tick), []);
        let now = now + Timings::default().ping;
        let effects = link.step(now, Event::Tick);
        assert!(matches!(effects[0], Effect::Send(Outgoing::Ping(_))));
        assert_eq!(said(&effects), [asks(version(2))]);
        link.step(now, answer(2));
        assert_eq!(said(&link.step(now, done(2, b'b'))), []);
        let params = raw(&json!([{"default": {"new_version": version(3)}}]));
        let method = NOTIFY.to_owned();
        let said = said(&link.step(
            now,
            frame(Message::Call {
                id: 9,
                method,
                params,
            }),
        ));
        assert_eq!(said, [("answer".to_owned(), json!(true)), asks(version(2))]);
    }

    #[test]
    fn an_answer_that_does_not_come_ends_the_link() {
        let now = Instant::now();
        let mut link = up_rpc(now, true);
        for tick in 1..=6 {
            let at = now + tick * 20 * SECOND;
            link.step(at, Event::Received(Frame::Other));
            let effects = link.step(at, Event::Tick);
            assert_eq!(effects.contains(&Effect::HangUp), tick == 6, "{tick}");
        }
    }

    #[test]
    fn pings_are_answered_and_rubbish_is_named() {
        let now = Instant::now();
        let mut link = up_rpc(now, true);
        let pong = [Effect::Send(Outgoing::Pong)];
        assert_eq!(link.step(now, Event::Received(Frame::Ping)), pong);
        let (method, params) = ("kong.debug.v1.x".to_owned(), raw(&json!([])));
        let said = said(&link.step(
            now,
            frame(Message::Call {
                id: 1,
                method,
                params,
            }),
        ));
        assert_eq!(
            said,
            [(
                "failure".to_owned(),
                json!("no method \"kong.debug.v1.x\" here")
            )]
        );
    }

    #[test]
    fn a_whole_configuration_has_no_version_that_changes_could_start_from() {
        let now = Instant::now();
        let mut link = up_rpc(now, true);
        link.step(now, Event::Lost);
        let again = link.deadline().unwrap();
        assert_eq!(link.step(again, Event::Tick), [Effect::Dial]);
        link.step(again, CONNECTED);
        assert_eq!(link.step(again, payload(1)), [Effect::Apply(vec![1])]);
        link.step(again, Event::Applied(hash(b'w')));
        // what was asked on the link before is not waited for on this one
        for tick in 1..=8 {
            let at = again + tick * 20 * SECOND;
            link.step(at, Event::Received(Frame::Other));
            assert!(
                !link.step(at, Event::Tick).contains(&Effect::HangUp),
                "{tick}"
            );
        }
        link.step(again, Event::Lost);
        let again = link.deadline().unwrap();
        link.step(again, Event::Tick);
        let said = said(&link.step(again, Event::ConnectedRpc { own: true }));
        assert_eq!(said[1], asks(SyncVersion::NONE));
        assert_eq!(said[0].1["version"], json!(SyncVersion::NONE));
    }

    #[test]
    fn only_the_answer_to_what_was_asked_counts_and_a_failure_is_an_end() {
        let now = Instant::now();
        let mut link = up_rpc(now, true);
        assert_eq!(link.step(now, answer(7)), []);
        let failure = |id| {
            let message = "busy".to_owned();
            frame(Message::Failure {
                id: Some(id),
                code: -32_000,
                message,
            })
        };
        // of something else
        assert_eq!(link.step(now, failure(7)), []);
        let notice = || {
            let params = raw(&json!([{"default": {"new_version": version(3)}}]));
            frame(Message::Notification {
                method: NOTIFY.to_owned(),
                params,
            })
        };
        assert_eq!(
            link.step(now, notice()),
            [],
            "there is a question under way"
        );
        assert_eq!(link.step(now, failure(0)), []);
        assert_eq!(said(&link.step(now, notice())), [asks(version(1))]);
        assert_eq!(link.step(now, answer(0)), [], "that one is over");
        assert!(applies(&link.step(now, answer(1))));
    }

    #[test]
    fn everything_is_asked_for_once_in_a_row_and_again_after_something_went_well() {
        let now = Instant::now();
        let mut link = up_rpc(now, true);
        let diverged = || Event::Synced(Synced::Diverged);
        let mut asked = 0;
        for _ in 0..3 {
            link.step(now, answer(asked));
            assert_eq!(said(&link.step(now, diverged())), [asks(SyncVersion::NONE)]);
            asked += 1;
            link.step(now, answer(asked));
            assert_eq!(said(&link.step(now, done(2, b'b'))), [reports(2, b'b')]);
            link.step(now, push());
            assert_eq!(
                said(&link.step(now, Event::Synced(Synced::Elsewhere))),
                [asks(version(2))]
            );
            asked += 1;
        }
    }

    #[test]
    fn a_heartbeat_asks_nothing_while_something_is_asked() {
        let start = Instant::now();
        let mut link = up_rpc(start, false);
        let now = start + Timings::default().ping;
        link.step(now, Event::Received(Frame::Other));
        let effects = link.step(now, Event::Tick);
        assert_eq!(effects, [Effect::Send(Outgoing::Ping(hash(b'a')))]);
        link.step(now, answer(0));
        // neither then nor afterwards
        assert_eq!(said(&link.step(now, done(1, b'a'))), []);
    }
}
