use proptest::prelude::*;

use super::bucket::{Bucket, Now, Refill, Rule, WAIT_MS_MAX, Waiting};

const IP: Rule = Rule {
    size: 10,
    refill: Refill::Drip {
        tokens: 5,
        every_ms: 1000,
    },
};
const FIXED: Rule = Rule {
    size: 3,
    refill: Refill::Never,
};
const WINDOW: Rule = Rule {
    size: 5,
    refill: Refill::Window {
        tokens: 5,
        every_ms: 60_000,
    },
};

fn at(ms: u64) -> Now {
    Now {
        ms,
        unix_ms: 1_795_310_788_000 + ms,
    }
}

/// A TAKE of `count` after `ms`: conformant, remaining, reset beyond the second 1795310788.
#[track_caller]
fn take(bucket: &mut Bucket, rule: &Rule, count: u32, ms: u64, wanted: (bool, u32, u64)) {
    let taken = bucket.take(rule, count, at(ms));
    let reset = taken.level.reset.saturating_sub(1_795_310_788);
    assert_eq!((taken.conformant, taken.level.remaining, reset), wanted);
}

#[test]
fn a_dripping_bucket_counts_as_limitd_does() {
    let mut bucket = Bucket::full(&IP, at(0));
    take(&mut bucket, &IP, 1, 0, (true, 9, 1));
    take(&mut bucket, &IP, 3, 0, (true, 6, 1));
    take(&mut bucket, &IP, 1, 0, (true, 5, 1));
    take(&mut bucket, &IP, 11, 0, (false, 5, 1));
    take(&mut bucket, &IP, 5, 0, (true, 0, 2));
    take(&mut bucket, &IP, 1, 199, (false, 0, 2));
    take(&mut bucket, &IP, 1, 200, (true, 0, 3));
    take(&mut bucket, &IP, 1, 100_000, (true, 9, 101));
}

#[test]
fn only_a_put_fills_a_fixed_bucket() {
    let mut bucket = Bucket::full(&FIXED, at(0));
    take(&mut bucket, &FIXED, 2, 0, (true, 1, 0));
    take(&mut bucket, &FIXED, 2, 1 << 40, (false, 1, 0));
    let put = bucket.put(&FIXED, Some(1), at(0));
    assert_eq!((put.remaining, put.reset, put.limit), (2, 0, 3));
    assert_eq!(
        bucket.put(&FIXED, Some(9), at(0)).remaining,
        3,
        "never above its size"
    );
    bucket.take(&FIXED, 3, at(0));
    assert_eq!(bucket.put(&FIXED, None, at(0)).remaining, 3);
    bucket.take(&FIXED, 3, at(0));
    let Waiting::Never(level) = bucket.wait(&FIXED, 1, at(0)) else {
        panic!("nobody will put anything back")
    };
    assert_eq!(level.remaining, 0);
}

#[test]
fn a_window_refills_at_once() {
    let mut bucket = Bucket::full(&WINDOW, at(7_000));
    take(&mut bucket, &WINDOW, 5, 7_000, (true, 0, 67));
    take(&mut bucket, &WINDOW, 1, 66_999, (false, 0, 67));
    take(&mut bucket, &WINDOW, 1, 67_000, (true, 4, 127));
    // unused for long: the next window begins with its use, not in between
    take(&mut bucket, &WINDOW, 1, 1_000_001, (true, 4, 1_061));
    take(&mut bucket, &WINDOW, 4, 1_060_000, (true, 0, 1_061));
    take(&mut bucket, &WINDOW, 5, 1_060_001, (true, 0, 1_121));
}

#[test]
fn who_waits_is_served_in_order() {
    let mut bucket = Bucket::full(&IP, at(0));
    take(&mut bucket, &IP, 10, 0, (true, 0, 2));
    assert_eq!(bucket.wait(&IP, 3, at(0)), Waiting::Reserved { ms: 600 });
    assert_eq!(bucket.wait(&IP, 2, at(100)), Waiting::Reserved { ms: 900 });
    take(&mut bucket, &IP, 1, 1_000, (false, 0, 3));
    take(&mut bucket, &IP, 1, 1_200, (true, 0, 4));
    assert!(matches!(bucket.wait(&IP, 11, at(1_200)), Waiting::Never(_)));
    // one gives up and puts back what it had reserved
    assert_eq!(
        bucket.wait(&IP, 5, at(1_200)),
        Waiting::Reserved { ms: 1_000 }
    );
    bucket.put(&IP, Some(5), at(1_200));
    assert_eq!(
        bucket.wait(&IP, 5, at(1_200)),
        Waiting::Reserved { ms: 1_000 }
    );
    // a reset does not give the reserved tokens away
    assert_eq!(bucket.put(&IP, None, at(1_200)).remaining, 5);
}

#[test]
fn a_queue_has_an_end() {
    let slow = Rule {
        size: 1,
        refill: Refill::Drip {
            tokens: 1,
            every_ms: 60_000,
        },
    };
    let mut bucket = Bucket::full(&slow, at(0));
    bucket.take(&slow, 1, at(0));
    for n in 1..=WAIT_MS_MAX / 60_000 {
        let ms = n * 60_000;
        assert_eq!(bucket.wait(&slow, 1, at(0)), Waiting::Reserved { ms });
    }
    assert!(matches!(bucket.wait(&slow, 1, at(0)), Waiting::Never(_)));
}

#[test]
fn a_new_rule_keeps_the_content() {
    let mut bucket = Bucket::full(&IP, at(0));
    bucket.take(&IP, 2, at(0));
    let minute = Rule {
        size: 100,
        refill: Refill::Drip {
            tokens: 6,
            every_ms: 60_000,
        },
    };
    take(&mut bucket, &minute, 0, 10_000, (true, 9, 920));
    let small = Rule { size: 4, ..IP };
    take(&mut bucket, &small, 0, 10_000, (true, 4, 10));
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let size = 0..=i32::MAX.unsigned_abs();
    let rate = (1..=i32::MAX.unsigned_abs(), 1..=u32::MAX, 0..3);
    (size, rate).prop_map(|(size, (tokens, every_ms, kind))| Rule {
        size,
        refill: match kind {
            0 => Refill::Never,
            1 => Refill::Drip { tokens, every_ms },
            _ => Refill::Window { tokens, every_ms },
        },
    })
}

proptest! {
    /// However calls are ordered and clocks differ: never more than size + rate × time.
    #[test]
    fn admits_no_more_than_the_bound(
        size in 1..50_u32,
        tokens in 1..50_u32,
        every_ms in 1..2_000_u32,
        calls in prop::collection::vec((0..30_u64, -20..20_i64, 1..5_u32, 0..4_u32), 1..300),
    ) {
        let rule = Rule { size, refill: Refill::Drip { tokens, every_ms } };
        let mut bucket = Bucket::full(&rule, at(1_000));
        let (mut time, mut latest, mut admitted) = (1_000, 1_000, 0_u64);
        for (step, skew, count, method) in calls {
            time += step;
            let ms = u64::try_from(time as i64 + skew).unwrap();
            latest = latest.max(ms);
            match method {
                0 => admitted += u64::from(bucket.take_up_to(&rule, count, at(ms))),
                1 if matches!(bucket.wait(&rule, count, at(ms)), Waiting::Taken(_)) => {
                    admitted += u64::from(count);
                }
                _ if bucket.take(&rule, count, at(ms)).conformant => admitted += u64::from(count),
                _ => {}
            }
        }
        let bound = u64::from(size) * u64::from(every_ms) + (latest - 1_000) * u64::from(tokens);
        prop_assert!(admitted * u64::from(every_ms) <= bound);
    }

    /// One who takes whenever told to be served gets exactly the rate.
    #[test]
    fn a_wait_is_as_long_as_it_must_be(
        tokens in 1..50_u32, every_ms in 1..2_000_u32, count in 1..9_u32, start in 0..5_000_u64,
    ) {
        let rule = Rule { size: 10, refill: Refill::Drip { tokens, every_ms } };
        let mut bucket = Bucket::full(&rule, at(0));
        bucket.take(&rule, 10, at(start));
        let mut same = bucket;
        let Waiting::Reserved { ms } = bucket.wait(&rule, count, at(start)) else {
            prop_assume!(false);
            unreachable!()
        };
        prop_assert!(!same.take(&rule, count, at(start + ms - 1)).conformant);
        prop_assert!(same.take(&rule, count, at(start + ms)).conformant);
    }

    /// Sums at the edges of every type.
    #[test]
    fn extremes_do_not_overflow(
        rule in any_rule(), other in any_rule(),
        calls in prop::collection::vec((any::<u64>(), 0..=i32::MAX.unsigned_abs(), 0..6), 0..20),
    ) {
        let now = |ms: u64| Now { ms: ms >> 2, unix_ms: ms >> 2 };
        let mut bucket = Bucket::full(&rule, now(0));
        for (ms, count, method) in calls {
            let (now, rule) = (now(ms), if ms % 5 == 0 { &other } else { &rule });
            let level = match method {
                0 => bucket.put(rule, Some(count), now),
                1 => bucket.put(rule, None, now),
                2 => { bucket.wait(rule, count, now); bucket.get(rule, now) }
                3 => { bucket.take_up_to(rule, count, now); bucket.get(rule, now) }
                4 => { bucket.is_idle(rule, now, count.into()); bucket.get(rule, now) }
                _ => bucket.take(rule, count, now).level,
            };
            bucket.refused_ms(rule, count, now);
            prop_assert!(level.remaining <= rule.size);
        }
    }
}
