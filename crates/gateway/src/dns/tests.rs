//! Names against servers that play a script, with the clock under control.

use std::collections::VecDeque;

use super::look_up::{AskError, Data, Record};
use super::*;
use crate::conf::RecordKind;

/// Answers A questions one after the other; the last answer stays.
struct Script {
    answers: Mutex<VecDeque<Result<&'static str, AskError>>>,
    asked: Mutex<usize>,
    delay: Duration,
}

impl Ask for Arc<Script> {
    async fn ask(&self, _: &str, _: RecordKind) -> Result<Vec<Record>, AskError> {
        *self.asked.lock().unwrap() += 1;
        tokio::time::sleep(self.delay).await;
        let answer = {
            let mut answers = self.answers.lock().unwrap();
            match answers.len() {
                0 | 1 => answers.front().cloned(),
                _ => answers.pop_front(),
            }
        };
        let Some(answer) = answer else {
            return std::future::pending().await;
        };
        answer.map(|ip| {
            vec![Record {
                ttl: 10,
                data: Data::Ip(ip.parse().unwrap()),
            }]
        })
    }
}

struct Running {
    names: Arc<Names>,
    script: Arc<Script>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn run(dns: Dns, answers: &[Result<&'static str, AskError>]) -> Running {
    let names = Arc::new(Names::new(dns));
    let script = Arc::new(Script {
        answers: Mutex::new(answers.iter().cloned().collect()),
        asked: Mutex::new(0),
        delay: Duration::from_millis(100),
    });
    let stop = CancellationToken::new();
    let look_ups = names
        .clone()
        .look_ups(Hosts::parse(""), script.clone(), stop.clone());
    Running {
        names,
        script,
        stop,
        task: tokio::spawn(look_ups),
    }
}

impl Running {
    async fn find(&self) -> String {
        let name = self.names.name("a.test");
        match self.names.find(&name).await {
            Ok(answer) => answer.found[0].ip.to_string(),
            Err(error) => error.to_string(),
        }
    }

    fn asked(&self) -> usize {
        *self.script.asked.lock().unwrap()
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

fn only_a() -> Dns {
    Dns {
        order: vec![RecordKind::A],
        ..Dns::default()
    }
}

async fn pass(secs: u64) {
    tokio::time::sleep(Duration::from_secs(secs)).await;
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_share_one_look_up() {
    let running = run(only_a(), &[Ok("10.0.0.1")]);
    let _held = running.names.name("a.test");
    let (a, b, c) = tokio::join!(running.find(), running.find(), running.find());
    assert_eq!([a, b, c], ["10.0.0.1"; 3]);
    assert_eq!(running.asked(), 1);
    running.end().await;

    let each = Dns {
        merge: false,
        ..only_a()
    };
    let running = run(each, &[Ok("10.0.0.1")]);
    let _held = running.names.name("a.test");
    tokio::join!(running.find(), running.find(), running.find());
    assert_eq!(running.asked(), 3, "dns_no_sync");
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_who_has_an_answer() {
    let running = run(only_a(), &[Ok("10.0.0.1"), Ok("10.0.0.2")]);
    let _held = running.names.name("a.test");
    assert_eq!(running.find().await, "10.0.0.1");
    pass(11).await;
    let before = Instant::now();
    assert_eq!(running.find().await, "10.0.0.1", "stale");
    assert_eq!(Instant::now(), before, "and at once");
    pass(1).await;
    assert_eq!(
        (running.find().await.as_str(), running.asked()),
        ("10.0.0.2", 2)
    );
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn servers_that_fail_are_asked_again_while_the_old_answer_serves() {
    let broken = AskError::Failed("SERVFAIL".to_owned());
    let running = run(
        only_a(),
        &[
            Ok("10.0.0.1"),
            Err(broken.clone()),
            Err(broken),
            Ok("10.0.0.2"),
        ],
    );
    let _held = running.names.name("a.test");
    assert_eq!(running.find().await, "10.0.0.1");
    for _ in 0..2 {
        pass(11).await;
        assert_eq!(running.find().await, "10.0.0.1");
    }
    pass(11).await;
    running.find().await;
    pass(1).await;
    assert_eq!(
        (running.find().await.as_str(), running.asked()),
        ("10.0.0.2", 4)
    );
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn failures_are_kept_for_their_time() {
    let gone = "name resolution failed: a.test: no such name";
    let running = run(only_a(), &[Err(AskError::NotFound), Ok("10.0.0.1")]);
    let _held = running.names.name("a.test");
    assert_eq!(running.find().await, gone);
    pass(29).await;
    assert_eq!((running.find().await.as_str(), running.asked()), (gone, 1));
    pass(1).await;
    assert_eq!(running.find().await, "10.0.0.1");
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn silent_servers_are_given_up() {
    let running = run(only_a(), &[]);
    let _held = running.names.name("a.test");
    let before = Instant::now();
    let found = running.find().await;
    assert!(found.ends_with("the name servers do not answer"), "{found}");
    assert!(Instant::now() - before >= LOOK_UP_TIME_MAX);
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn after_the_end_nobody_waits() {
    let running = run(only_a(), &[]);
    let names = running.names.clone();
    running.end().await;
    let name = names.name("a.test");
    let error = names.find(&name).await.unwrap_err().to_string();
    assert!(error.ends_with("the resolver has stopped"), "{error}");
}

#[tokio::test]
async fn names_nobody_holds_are_let_go() {
    let names = Names::new(Dns::default());
    for n in 0..10_000 {
        names.name(&format!("{n}.test"));
    }
    let kept = names.by_text.lock().unwrap().len();
    assert!(kept < 100, "{kept}");
}
