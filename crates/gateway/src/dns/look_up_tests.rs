//! Look-ups against scripted answers.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use super::hosts::Hosts;
use super::look_up::{Answer, Ask, AskError, Data, Record, look_up};
use crate::conf::{Dns, RecordKind};
use RecordKind::{A, Aaaa, Cname, Srv};

#[derive(Default)]
struct Script {
    answers: HashMap<(String, RecordKind), Result<Vec<Record>, AskError>>,
    asked: Mutex<Vec<String>>,
}

impl Ask for Script {
    async fn ask(&self, name: &str, kind: RecordKind) -> Result<Vec<Record>, AskError> {
        self.asked.lock().unwrap().push(format!("{kind:?} {name}"));
        self.answers
            .get(&(name.to_owned(), kind))
            .cloned()
            .unwrap_or(Err(AskError::NotFound))
    }
}

fn ip(ttl: u32, text: &str) -> Record {
    Record {
        ttl,
        data: Data::Ip(text.parse().unwrap()),
    }
}

fn srv(priority: u16, weight: u16, port: u16, target: &str) -> Record {
    let target = target.to_owned();
    Record {
        ttl: 60,
        data: Data::Srv {
            priority,
            weight,
            port,
            target,
        },
    }
}

fn cname(target: &str) -> Record {
    Record {
        ttl: 7,
        data: Data::Cname(target.to_owned()),
    }
}

impl Script {
    fn with(mut self, name: &str, kind: RecordKind, records: &[Record]) -> Script {
        self.answers
            .insert((name.to_owned(), kind), Ok(records.to_vec()));
        self
    }

    fn failing(mut self, name: &str, kind: RecordKind, error: AskError) -> Script {
        self.answers.insert((name.to_owned(), kind), Err(error));
        self
    }

    fn find(&self, name: &str, last: Option<RecordKind>, dns: &Dns) -> Result<Answer, String> {
        let hosts = Hosts::parse("10.9.9.9 in.hosts\n");
        let found = look_up(name, last, dns, &hosts, self);
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(found)
            .map_err(|failure| format!("{} {}", failure.not_found, failure.reason))
    }

    #[track_caller]
    fn check(&self, dns: &Dns, last: Option<RecordKind>, expected: &str, asked: &[&str]) {
        let shown = match self.find("x.test", last, dns) {
            Err(failure) => failure,
            Ok(answer) => {
                let one = |found: &super::look_up::Found| match &found.service {
                    None => found.ip.to_string(),
                    Some(service) => format!(
                        "{}:{}*{}@{}",
                        found.ip, service.port, service.weight, service.name
                    ),
                };
                let found: Vec<_> = answer.found.iter().map(one).collect();
                format!("{} ttl {}", found.join(" "), answer.ttl.as_secs())
            }
        };
        assert_eq!(shown, expected);
        assert_eq!(*self.asked.lock().unwrap(), asked);
        self.asked.lock().unwrap().clear();
    }
}

#[test]
fn kinds_are_asked_for_in_order_and_the_last_one_first() {
    let dns = Dns::default();
    let script = Script::default().with("x.test", A, &[ip(30, "10.0.0.2"), ip(20, "10.0.0.1")]);
    let both = ["Srv x.test", "A x.test"];
    script.check(&dns, None, "10.0.0.1 10.0.0.2 ttl 20", &both);
    script.check(&dns, Some(A), "10.0.0.1 10.0.0.2 ttl 20", &["A x.test"]);
    let unordered = Dns {
        last_first: false,
        ..Dns::default()
    };
    script.check(&unordered, Some(A), "10.0.0.1 10.0.0.2 ttl 20", &both);
    let new = Dns {
        srv_by_name: true,
        ..Dns::default()
    };
    script.check(&new, None, "10.0.0.1 10.0.0.2 ttl 20", &["A x.test"]);
    let fixed = Dns {
        valid_ttl: Some(Duration::from_secs(3)),
        ..Dns::default()
    };
    script.check(&fixed, Some(A), "10.0.0.1 10.0.0.2 ttl 3", &["A x.test"]);
}

#[test]
fn ipv6_is_used_only_if_it_is_in_the_order() {
    let script = Script::default().with("x.test", Aaaa, &[ip(5, "::1")]);
    script.check(
        &Dns::default(),
        None,
        "true no such name",
        &["Srv x.test", "A x.test", "Cname x.test"],
    );
    let six = Dns {
        order: vec![A, Aaaa],
        ..Dns::default()
    };
    script.check(&six, None, "::1 ttl 5", &["A x.test", "Aaaa x.test"]);
}

#[test]
fn services_of_the_lowest_priority_have_port_and_weight() {
    let script = Script::default()
        .with(
            "x.test",
            Srv,
            &[
                srv(1, 5, 81, "a.test."),
                srv(1, 0, 82, "b.test."),
                srv(2, 9, 83, "c.test."),
                srv(1, 9, 84, "gone.test."),
            ],
        )
        .with("a.test.", A, &[ip(9, "10.0.0.1"), ip(9, "10.0.0.2")])
        .with("b.test.", A, &[ip(99, "10.0.0.3")]);
    script.check(
        &Dns::default(),
        None,
        "10.0.0.1:81*5@a.test 10.0.0.2:81*5@a.test 10.0.0.3:82*2@b.test ttl 9",
        &[
            "Srv x.test",
            "A a.test.",
            "A b.test.",
            "A gone.test.",
            "Cname gone.test.",
        ],
    );
}

#[test]
fn a_service_that_is_not_there_leaves_the_name_to_its_addresses() {
    let script = Script::default()
        .with("x.test", Srv, &[srv(0, 0, 0, ".")])
        .with("x.test", A, &[ip(1, "10.0.0.1")]);
    let asked = ["Srv x.test", "A x.test"];
    script.check(&Dns::default(), None, "10.0.0.1 ttl 1", &asked);
}

#[test]
fn other_names_are_followed_but_not_for_ever() {
    let script = Script::default()
        .with("x.test", Cname, &[cname("y.test.")])
        .with("y.test.", A, &[ip(60, "10.0.0.1")]);
    script.check(
        &Dns::default(),
        None,
        "10.0.0.1 ttl 7",
        &["Srv x.test", "A x.test", "Cname x.test", "A y.test."],
    );
    let circle = Script::default().with("x.test", Cname, &[cname("x.test")]);
    let failure = circle.find("x.test", None, &Dns::default()).unwrap_err();
    assert_eq!(failure, "false too many names on the way");
}

#[test]
fn failures_tell_whether_the_name_exists() {
    let failed = AskError::Failed("SERVFAIL".to_owned());
    let script = Script::default().failing("x.test", Srv, failed.clone());
    let all = ["Srv x.test", "A x.test", "Cname x.test"];
    script.check(&Dns::default(), None, "false SERVFAIL", &all);
    let script =
        Script::default()
            .failing("x.test", Srv, failed)
            .with("x.test", A, &[ip(1, "10.0.0.1")]);
    script.check(&Dns::default(), None, "10.0.0.1 ttl 1", &all[..2]);
    let script = Script::default().failing("x.test", Srv, AskError::Silent);
    let silent = "false the name servers do not answer";
    script.check(&Dns::default(), None, silent, &all[..1]);
    let empty = Script::default().with("x.test", A, &[]);
    empty.check(&Dns::default(), None, "true no such name", &all);
}

#[test]
fn the_hosts_file_comes_first() {
    let script = Script::default().with("in.hosts", Srv, &[srv(0, 0, 1, "10.0.0.1")]);
    let found = script.find("in.hosts", None, &Dns::default()).unwrap();
    assert_eq!(found.found[0].ip.to_string(), "10.9.9.9");
    assert!(script.asked.lock().unwrap().is_empty());
}
