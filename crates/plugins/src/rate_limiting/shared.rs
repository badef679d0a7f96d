//! Counts in Redis, shared by all gateways that use the same server.
//!
//! Keys are those of Kong, so gateways of both kinds count together. Deciding and counting are one
//! script, so that a burst over several gateways cannot exceed a limit.

use uuid::Uuid;

use super::counters::{Key, Limit, Taken};
use super::ledger::Due;
use crate::redis::{RedisCommand, RedisValue};
use sallyport_wire::rate_limit::Period;

/// Reads every count; if none has reached its limit, adds one to each. `ARGV` holds limit and
/// seconds to live for each key.
const TAKE: &str = "\
local used, full = {}, false
for i, key in ipairs(KEYS) do
  used[i] = tonumber(redis.call('get', key) or '0')
  full = full or used[i] >= tonumber(ARGV[2 * i - 1])
end
if not full then
  for i, key in ipairs(KEYS) do
    if redis.call('incr', key) == 1 then redis.call('expire', key, ARGV[2 * i]) end
  end
end
return used";

/// Adds to every count. `ARGV` holds amount and seconds to live for each key.
const ADD: &str = "\
for i, key in ipairs(KEYS) do
  if redis.call('incrby', key, ARGV[2 * i - 1]) == tonumber(ARGV[2 * i - 1]) then
    redis.call('expire', key, ARGV[2 * i])
  end
end
return 1";

/// Adds to every count; the answer is what they are then. `ARGV` holds amount and the millisecond
/// since the epoch to live to, for each key.
const ADD_ALL: &str = "\
local total = {}
for i, key in ipairs(KEYS) do
  total[i] = redis.call('incrby', key, ARGV[2 * i - 1])
  if total[i] == tonumber(ARGV[2 * i - 1]) then redis.call('pexpireat', key, ARGV[2 * i]) end
end
return total";

/// The key of one count. Source: data-plane reference 7.11.
fn count_key(prefix: &str, key: &Key, limit: &Limit, name: &str) -> Vec<u8> {
    window_key(prefix, key, (limit.window.start_ms, limit.period), name)
}

fn window_key(prefix: &str, key: &Key, window: (u64, Period), name: &str) -> Vec<u8> {
    let id = |id: Option<Uuid>| id.unwrap_or_default();
    let (route, service) = (id(key.route), id(key.service));
    let (start, period) = (window.0, window.1.field());
    let caller = &key.identity;
    format!("{prefix}:{route}:{service}:{caller}:{start}:{name}{period}").into_bytes()
}

/// A second longer than the window: clocks of gateways differ.
fn lives_s(limit: &Limit, now_ms: u64) -> u64 {
    limit.window.reset_s(now_ms) + 1
}

fn script(text: &str, keys: Vec<Vec<u8>>, arguments: Vec<u64>) -> RedisCommand {
    let mut command = vec![
        b"EVAL".to_vec(),
        text.into(),
        keys.len().to_string().into_bytes(),
    ];
    command.extend(keys);
    command.extend(
        arguments
            .iter()
            .map(|number| number.to_string().into_bytes()),
    );
    command
}

/// Counts a request against all limits, or against none if any is used up.
pub(crate) fn take(key: &Key, limits: &[Limit], now_ms: u64) -> RedisCommand {
    let keys = limits
        .iter()
        .map(|limit| count_key("ratelimit", key, limit, ""));
    let arguments = limits
        .iter()
        .flat_map(|limit| [limit.limit, lives_s(limit, now_ms)]);
    script(TAKE, keys.collect(), arguments.collect())
}

/// What [`take`] was answered; `None` if it makes no sense.
pub(crate) fn taken(answer: &RedisValue, limits: &[Limit]) -> Option<Taken> {
    let used = counts(answer, limits.len())?;
    let mut taken = Taken {
        used: [0; Period::ALL.len()],
        refused_by: None,
    };
    for (index, (limit, used)) in limits.iter().zip(used).enumerate() {
        taken.used[index] = used;
        if used >= limit.limit && taken.refused_by.is_none() {
            taken.refused_by = Some(index);
        }
    }
    Some(taken)
}

/// Asks for the counts of a key.
pub(super) fn get(key: &Key, limits: &[Limit]) -> RedisCommand {
    let keys = limits
        .iter()
        .map(|limit| count_key("ratelimit", key, limit, ""));
    [b"MGET".to_vec()].into_iter().chain(keys).collect()
}

/// Adds to many counts, which live a second longer than their windows; the answer is a list of what
/// they are then.
pub(super) fn add_all(due: &[Due]) -> RedisCommand {
    let keys = due
        .iter()
        .map(|due| window_key("ratelimit", &due.key, (due.start_ms, due.period), ""));
    let arguments = due
        .iter()
        .flat_map(|due| [due.amount, due.end_ms.saturating_add(1_000)]);
    script(ADD_ALL, keys.collect(), arguments.collect())
}

/// Asks for the counts of several limits, each by its name.
pub(crate) fn read<'a>(counts: impl Iterator<Item = (&'a str, &'a Key, Limit)>) -> RedisCommand {
    let key = |(name, key, limit): (&str, &Key, Limit)| {
        count_key("response-ratelimit", key, &limit, &format!("{name}:"))
    };
    let mut command = vec![b"MGET".to_vec()];
    command.extend(counts.map(key));
    command
}

/// Adds to the counts of a limit.
pub(crate) fn add(
    name: &str,
    key: &Key,
    limits: &[Limit],
    amount: u64,
    now_ms: u64,
) -> RedisCommand {
    let name = format!("{name}:");
    let keys = limits
        .iter()
        .map(|limit| count_key("response-ratelimit", key, limit, &name));
    let arguments = limits
        .iter()
        .flat_map(|limit| [amount, lives_s(limit, now_ms)]);
    script(ADD, keys.collect(), arguments.collect())
}

/// So many counts; what is not there yet counts 0.
pub(crate) fn counts(answer: &RedisValue, length: usize) -> Option<Vec<u64>> {
    let RedisValue::List(list) = answer else {
        return None;
    };
    let count = |value: &RedisValue| match value {
        RedisValue::Nil => Some(0),
        RedisValue::Integer(number) => Some(u64::try_from(*number).unwrap_or(0)),
        RedisValue::Bytes(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        RedisValue::List(_) => None,
    };
    let counts: Option<Vec<u64>> = list.iter().map(count).collect();
    counts.filter(|counts| counts.len() == length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rate_limiting::counters::Identity;

    fn limit(period: Period, limit: u64) -> Limit {
        Limit {
            period,
            limit,
            window: period.window(1_000),
        }
    }

    fn text(command: &RedisCommand) -> Vec<String> {
        let text = |part: &Vec<u8>| String::from_utf8(part.clone()).unwrap();
        command.iter().map(text).collect()
    }

    #[test]
    fn keys_are_those_of_kong() {
        let key = Key {
            route: Some(Uuid::from_u128(1)),
            service: None,
            identity: Identity::Ip([10, 0, 0, 1].into()),
        };
        let limits = [limit(Period::Second, 5), limit(Period::Hour, 9)];
        let (one, zero) = (Uuid::from_u128(1), Uuid::nil());
        assert_eq!(
            text(&take(&key, &limits, 1_400))[2..],
            [
                "2".to_owned(),
                format!("ratelimit:{one}:{zero}:10.0.0.1:1000:second"),
                format!("ratelimit:{one}:{zero}:10.0.0.1:0:hour"),
                "5".to_owned(),
                "2".to_owned(),
                "9".to_owned(),
                "3600".to_owned(),
            ]
        );
        let asked = read([("video", &key, limits[1])].into_iter());
        let count = format!("response-ratelimit:{one}:{zero}:10.0.0.1:0:video:hour");
        assert_eq!(text(&asked), ["MGET".to_owned(), count.clone()]);
        let added = add("video", &key, &limits[1..], 3, 1_400);
        assert_eq!(
            text(&added)[2..],
            ["1".to_owned(), count, "3".into(), "3600".into()]
        );
    }

    #[test]
    fn answers_become_decisions() {
        let limits = [limit(Period::Second, 5), limit(Period::Hour, 9)];
        let number = RedisValue::Integer;
        let check = |list: Vec<RedisValue>, expected: Option<(u64, u64, Option<usize>)>| {
            let taken = taken(&RedisValue::List(list), &limits);
            let taken = taken.map(|taken| (taken.used[0], taken.used[1], taken.refused_by));
            assert_eq!(taken, expected);
        };
        check(vec![number(0), RedisValue::Nil], Some((0, 0, None)));
        check(vec![number(4), number(9)], Some((4, 9, Some(1))));
        check(
            vec![RedisValue::Bytes(b"5".to_vec()), number(0)],
            Some((5, 0, Some(0))),
        );
        check(vec![number(4)], None);
        check(vec![number(4), RedisValue::Bytes(b"x".to_vec())], None);
        assert_eq!(taken(&RedisValue::Nil, &limits), None);
    }
}
