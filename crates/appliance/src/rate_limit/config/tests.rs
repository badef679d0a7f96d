use super::*;
use crate::rate_limit::bucket::{Refill, Rule};
use crate::rate_limit::types::{Limit, Unreachable};

/// 2026-11-22.
const NOW: u64 = 1_795_310_788_000;

fn parse(text: &str) -> Result<Config, ConfigError> {
    let source = Source {
        path: "buckets.yml".into(),
        text: text.to_owned(),
    };
    Config::parse(&[source], NOW)
}

/// The limit that holds for `key` of the first type.
#[track_caller]
fn check(text: &str, key: &str, wanted: Limit) {
    let config = parse(text).unwrap();
    let of = &config.types[0];
    assert_eq!(*of.limit(of.select(key.as_bytes(), NOW)), wanted, "{key}");
}

fn limit(size: u32, refill: Refill) -> Limit {
    Limit {
        rule: Rule { size, refill },
        unlimited: false,
        until_ms: None,
    }
}

fn drip(tokens: u32, every_ms: u32) -> Refill {
    Refill::Drip { tokens, every_ms }
}

const FULL: &str = r#"
port: 9001
hostname: 127.0.0.1
db: /var/lib/limitd
colour: blue
buckets:
  ip:
    size: 10
    per_second: 5
    purpose: per address
    override:
      127.0.0.1:
        size: 1000
        per_hour: 100
      local-lan:
        match: !!js/regexp /^192\.168\./i
        size: 50
      0.0.0.0:
        size: 100
        unlimited: true
      10.0.0.1:
        until: !!timestamp 2010-11-18
        size: 1
      10.0.0.2:
        until: 2030-11-18 12:00:00
        size: 2
      192.168.0.1:
        size: 3
"#;

#[test]
fn reads_what_limitd_reads() {
    let config = parse(FULL).unwrap();
    assert_eq!(
        (config.port, config.hostname),
        (Some(9001), "127.0.0.1".parse().ok())
    );
    let warnings: Vec<_> = config.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "buckets.yml:4: db is limitd's and not used here",
            "buckets.yml:5: colour is unknown and ignored"
        ]
    );
    check(FULL, "1.2.3.4", limit(10, drip(5, 1000)));
    check(FULL, "127.0.0.1", limit(1000, drip(100, 3_600_000)));
    check(FULL, "192.168.0.1", limit(50, Refill::Never)); // the pattern stands before the name
    check(FULL, "local-lan", limit(10, drip(5, 1000)));
    let free = Limit {
        unlimited: true,
        ..limit(100, Refill::Never)
    };
    check(FULL, "0.0.0.0", free);
    check(FULL, "10.0.0.1", limit(10, drip(5, 1000)));
    let for_now = Limit {
        until_ms: Some(1_921_233_600_000),
        ..limit(2, Refill::Never)
    };
    check(FULL, "10.0.0.2", for_now);
    let of = &config.types[0];
    assert_eq!(
        of.select(b"10.0.0.2", 1_921_233_600_000),
        0,
        "its time is over"
    );
}

#[test]
fn sizes_and_rates() {
    let bucket = |body: &str| format!("buckets: {{t: {{{body}}}}}");
    check(&bucket("per_second: 5"), "k", limit(5, drip(5, 1000)));
    check(&bucket("per_minute: 5"), "k", limit(5, drip(5, 60_000)));
    check(
        &bucket("per_day: 5, size: 9"),
        "k",
        limit(9, drip(5, 86_400_000)),
    );
    check(
        &bucket("per_interval: 2, interval: 500"),
        "k",
        limit(2, drip(2, 500)),
    );
    check(&bucket("size: 0"), "k", limit(0, Refill::Never));
    let window = Refill::Window {
        tokens: 7,
        every_ms: 3_600_000,
    };
    check(
        &bucket("per_hour: 7, fixed_window: true"),
        "k",
        limit(7, window),
    );
    let config = parse(&bucket("size: 3, when_unreachable: refuse")).unwrap();
    assert_eq!(config.types[0].unreachable, Unreachable::Refuse);
}

/// The problems of a text, without the file's name.
#[track_caller]
fn bad(text: &str, wanted: &[&str]) {
    let ConfigError::Problems(problems) = parse(text).unwrap_err() else {
        panic!("not about the text")
    };
    let found: Vec<_> = problems
        .iter()
        .map(|problem| format!("{}: {}", problem.line, problem.message))
        .collect();
    assert_eq!(found.len(), wanted.len(), "{found:#?}");
    for (found, wanted) in found.iter().zip(wanted) {
        assert!(found.starts_with(wanted), "{found}\nwanted: {wanted}");
    }
}

#[test]
fn problems_name_their_lines() {
    bad("", &["0: there is no section buckets"]);
    bad("buckets:\n  a:\n    size: x\n", &["3: invalid"]);
    bad("buckets:\n  a:\n    sise: 1\n", &["3: unknown field"]);
    bad("buckets:\n  a: {\n", &["2: unclosed"]);
    bad(
        "buckets:\n  a:\n    per_second: 1\n    per_hour: 2\n  b:\n    purpose: none\n",
        &[
            "4: a: only one of per_second, per_hour may be given",
            "5: b: a size or a rate is needed",
        ],
    );
    bad(
        "buckets:\n  a:\n    size: -1\n  b:\n    per_day: 0\n  c: {size: 1, until: 2030-01-01}\n",
        &[
            "3: a: size is -1, it has to be 0 to 2147483647",
            "5: b: per_day is 0",
            "6: c: until belongs to an override",
        ],
    );
    bad(
        "buckets:\n  a:\n    size: 1\n    override:\n      x:\n        size: 1\n        match: '('\n      y:\n        size: 1\n        until: soon\n      z: {}\n",
        &[
            "7: a, override x: match \"(\" cannot be used",
            "10: a, override y: until \"soon\" is no time",
            "11: a, override z: a size or a rate is needed",
        ],
    );
    bad(
        "buckets: {a: {unlimited: true}, b: {size: 1, fixed_window: true}}",
        &[
            "1: a: an unlimited bucket needs a size",
            "1: b: fixed_window needs a rate",
        ],
    );
    bad(
        "port: 70000\nhostname: nowhere\nbuckets: {a: {per_interval: 1}}",
        &[
            "1: port is 70000",
            "2: hostname \"nowhere\"",
            "3: a: per_interval needs interval",
        ],
    );
}

#[test]
fn a_cluster_is_checked() {
    let text = "cluster:\n  node: a\n  nodes:\n    a: 10.0.0.1:9001\n    b: 10.0.0.2:9001\n  \
                ca: ca.crt\n  certificate: a.crt\n  key: /etc/a.key\nbuckets: {t: {size: 1}}\n";
    let cluster = parse(text).unwrap().cluster.unwrap();
    assert_eq!(cluster.nodes["b"], "10.0.0.2:9001");
    assert_eq!(cluster.answer_ms, 30);
    let slow = text.replace("  node: a", "  answer_ms: 0\n  node: a");
    bad(&slow, &["2: answer_ms is 0, it has to be 1 to 10000"]);
    assert_eq!(cluster.key, Path::new("/etc/a.key"));
    bad(
        &text.replace("node: a", "node: c"),
        &["2: node \"c\" is not among"],
    );
    bad(
        &text.replace("10.0.0.2:9001", "10.0.0.2"),
        &["5: \"10.0.0.2\" is not host:port"],
    );
    bad(
        &text.replace("  key: /etc/a.key\n", ""),
        &["7: missing field"],
    );
}

#[test]
fn later_files_replace_types() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("limitd.yml");
    std::fs::write(&path, "buckets:\n  a: {size: 1}\n  b: {size: 1}\n").unwrap();
    let parts = dir.path().join("limitd.yml.d");
    std::fs::create_dir(&parts).unwrap();
    std::fs::write(parts.join("2.yml"), "buckets:\n  a: {size: 3}\n").unwrap();
    std::fs::write(
        parts.join("1.yml"),
        "buckets:\n  a: {size: 2}\n  c: {size: 2}\n",
    )
    .unwrap();
    std::fs::write(parts.join("readme.txt"), "not read").unwrap();
    let config = Config::load(&path, NOW).unwrap();
    let mut sizes: Vec<_> = config
        .types
        .iter()
        .map(|of| (of.name.clone(), of.limit(0).rule.size))
        .collect();
    sizes.sort();
    assert_eq!(sizes, [("a".into(), 3), ("b".into(), 1), ("c".into(), 2)]);
    std::fs::write(parts.join("1.yml"), "buckets:\n\n  a: {}\n").unwrap();
    let error = Config::load(&path, NOW).unwrap_err().to_string();
    assert!(error.contains("1.yml:3: a: a size or a rate"), "{error}");
}
