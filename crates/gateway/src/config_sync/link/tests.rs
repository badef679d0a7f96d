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

/// A link that is up since `start`, with hash `a`.
fn up(start: Instant) -> Link {
    let mut link = Link::new(start, Timings::default(), hash(b'a'), 7);
    assert_eq!(link.deadline(), Some(start));
    assert_eq!(link.step(start, Event::Tick), [Effect::Dial]);
    assert_eq!(link.deadline(), None);
    let first = link.step(start, Event::Connected);
    assert_eq!(first, [Effect::Send(Outgoing::Hello), ping(b'a')]);
    link
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
    let first = link.step(again, Event::Connected);
    assert_eq!(first, [Effect::Send(Outgoing::Hello), ping(b'b')]);
}

#[test]
fn pauses_are_spread_over_5_to_10_seconds() {
    let start = Instant::now();
    let mut link = Link::new(start, Timings::default(), ConfigHash::ZERO, 1);
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
        let mut link = Link::new(now, Timings::default(), ConfigHash::ZERO, seed);
        let (mut connected, mut dialling, mut applying) = (false, false, 0_i32);
        let mut newest = None;
        for (kind, seconds) in history {
            now += Duration::from_secs(seconds);
            let event = match kind {
                0 | 1 => Event::Tick,
                2 if dialling => Event::Connected,
                3 if connected => { newest = Some(vec![u8::try_from(seconds).unwrap()]); Event::Received(Frame::Payload(newest.clone().unwrap())) }
                4 if connected => Event::Received(Frame::Other),
                5 if connected || dialling => Event::Lost,
                6 if applying > 0 => Event::Applied(hash(b'x')),
                7 if applying > 0 => Event::Refused,
                _ => Event::Heard,
            };
            match &event {
                Event::Connected => (connected, dialling) = (true, false),
                Event::Lost => (connected, dialling) = (false, false),
                Event::Applied(_) | Event::Refused => applying -= 1,
                _ => {}
            }
            let first = event == Event::Connected;
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
                }
            }
            prop_assert!(applying <= 1);
            prop_assert!(link.deadline().is_none() == dialling);
        }
    }
}
