//! Requests as commands of Redis, and its replies as answers. Pure.

use sallyport_wire::rate_limit::{Body, Counted, Level, Method, Period, Request, Taken, Windows};
use sallyport_wire::redis::Reply;

use crate::rate_limit::bucket::{Refill, Rule, WAIT_MS_MAX};
use crate::rate_limit::limits::{count, refused};

/// The steps of a bucket.
pub(super) const TAKE: &str = include_str!("take.lua");
/// Calendar windows.
pub(super) const COUNT: &str = include_str!("count.lua");

/// How a reply is to be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// A step of a bucket of this size.
    Bucket { method: Method, size: u32 },
    /// Windows.
    Count(Windows),
}

/// What a reply comes to.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Said {
    /// The answer.
    Now(Body),
    /// A WAIT's tokens are taken and there in so many milliseconds; then this is the answer.
    Later(u64, Body),
}

type Command = Vec<Vec<u8>>;

fn eval(script: &str, key: Vec<u8>) -> Command {
    let words: [&[u8]; 3] = [b"EVAL", script.as_bytes(), b"1"];
    let mut command: Command = words.into_iter().map(<[u8]>::to_vec).collect();
    command.push(key);
    command
}

/// A step of a bucket with this rule; `None` for a negative count, which changes nothing, and for what
/// is no step.
pub(super) fn step(request: &Request<'_>, rule: &Rule) -> Option<(Command, Asked)> {
    let tokens = match request.method {
        Method::Put if request.all => "-1".to_owned(),
        Method::Get => "0".to_owned(),
        _ => count(request)?.to_string(),
    };
    let what = match request.method {
        Method::Take => "take",
        Method::Wait => "wait",
        Method::Put => "put",
        Method::Get => "get",
        Method::Status | Method::Ping | Method::Count => return None,
    };
    let (refill, per, every) = match rule.refill {
        Refill::Never => ("never", 1, 1),
        Refill::Drip { tokens, every_ms } => ("drip", tokens, every_ms),
        Refill::Window { tokens, every_ms } => ("window", tokens, every_ms),
    };
    // The length tells a type's end from the key's beginning.
    let name = format!("sallyport:limit:{}:", request.bucket.len());
    let key = [name.as_bytes(), request.bucket, b":", request.key].concat();
    let mut command = eval(TAKE, key);
    let words = [
        what.to_owned(),
        tokens,
        rule.size.to_string(),
        refill.to_owned(),
        per.to_string(),
        every.to_string(),
        WAIT_MS_MAX.to_string(),
    ];
    command.extend(words.map(String::into_bytes));
    let (method, size) = (request.method, rule.size);
    Some((command, Asked::Bucket { method, size }))
}

/// Calendar windows at this moment.
pub(super) fn windows(request: &Request<'_>, unix_ms: u64) -> Option<(Command, Asked)> {
    let windows = Windows::decode(request.windows).ok()?;
    let key = [b"sallyport:count:", request.key].concat();
    let mut command = eval(COUNT, key);
    for (period, limit) in Period::ALL.into_iter().zip(windows.0) {
        let Some(limit) = limit else { continue };
        let window = period.window(unix_ms);
        let words = [period as u64, window.start_ms, limit, window.end_ms];
        command.extend(words.map(|word| word.to_string().into_bytes()));
    }
    Some((command, Asked::Count(windows)))
}

/// What a reply says; `None` if it is not one of the script's.
pub(super) fn said(asked: Asked, reply: &Reply) -> Option<Said> {
    let Reply::List(list) = reply else {
        return None;
    };
    let numbers: Option<Vec<u64>> = list
        .iter()
        .map(|one| match one {
            Reply::Integer(number) => u64::try_from(*number).ok(),
            _ => None,
        })
        .collect();
    let numbers = numbers?;
    match asked {
        Asked::Count(windows) => counted(&windows, &numbers),
        Asked::Bucket { method, size } => {
            let [ok, tokens, full_ms, wait_ms] = numbers[..] else {
                return None;
            };
            let level = Level {
                remaining: u32::try_from(tokens).ok()?,
                reset: full_ms.div_ceil(1000),
                limit: size,
            };
            let taken = |delayed| {
                Body::Take(Taken {
                    conformant: true,
                    delayed,
                    level,
                })
            };
            Some(match (method, ok, wait_ms) {
                (Method::Put, ..) => Said::Now(Body::Put(level)),
                (Method::Get, ..) => Said::Now(Body::Get(level)),
                (_, 0, _) => Said::Now(refused(level)),
                (_, _, 0) => Said::Now(taken(false)),
                (_, _, ms) => Said::Later(ms, taken(true)),
            })
        }
    }
}

fn counted(windows: &Windows, numbers: &[u64]) -> Option<Said> {
    let (full, used) = numbers.split_first()?;
    let limited: Vec<Period> = Period::ALL
        .into_iter()
        .filter(|period| windows.0[*period as usize].is_some())
        .collect();
    if used.len() != limited.len() {
        return None;
    }
    let mut counted = Counted::default();
    for (period, used) in limited.iter().zip(used) {
        counted.used[*period as usize] = *used;
    }
    let at = usize::try_from(*full).ok()?.checked_sub(1);
    counted.refused_by = at.and_then(|at| limited.get(at).copied());
    Some(Said::Now(Body::Count(counted)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(numbers: &[i64]) -> Reply {
        Reply::List(numbers.iter().map(|it| Reply::Integer(*it)).collect())
    }

    #[test]
    fn replies_are_understood_or_refused() {
        let take = Asked::Bucket {
            method: Method::Take,
            size: 9,
        };
        let level = Level {
            remaining: 4,
            reset: 3,
            limit: 9,
        };
        let granted = said(take, &list(&[1, 4, 2_001, 0])).unwrap();
        let wanted = Taken {
            conformant: true,
            delayed: false,
            level,
        };
        assert_eq!(granted, Said::Now(Body::Take(wanted)));
        let over = said(take, &list(&[0, 4, 2_001, 0])).unwrap();
        assert_eq!(over, Said::Now(refused(level)));
        let wait = Asked::Bucket {
            method: Method::Wait,
            size: 9,
        };
        let later = said(wait, &list(&[1, 4, 2_001, 70])).unwrap();
        assert!(matches!(later, Said::Later(70, Body::Take(taken)) if taken.delayed));
        for bad in [
            list(&[1, 4, 5]),
            list(&[1, -4, 5, 0]),
            Reply::Nil,
            Reply::List(vec![Reply::Nil]),
        ] {
            assert_eq!(said(take, &bad), None);
        }
        let windows = Windows([None, Some(5), None, Some(7), None, None]);
        let counted = said(Asked::Count(windows), &list(&[2, 3, 7])).unwrap();
        let Said::Now(Body::Count(counted)) = counted else {
            panic!("{counted:?}")
        };
        assert_eq!((counted.used[1], counted.used[3]), (3, 7));
        assert_eq!(counted.refused_by, Some(Period::Day));
        assert_eq!(said(Asked::Count(windows), &list(&[0, 3])), None);
    }
}
