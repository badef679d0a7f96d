//! Debian's decK against the id of a draft: nothing is live until it is promoted, in one step.

use std::fmt::Write as _;
use std::path::Path;

use sallyport_testkit::{Echo, Finished, eventually, foreign};
use serde_json::{Value, json};

use crate::lab::{Control, Gateway, has_all, soon, write};

/// Services with a route each, with what decK 1.4.0 has no default for spelled out.
fn services(names: &[String], port: u16) -> String {
    let mut text = "_format_version: \"1.1\"\nservices:\n".to_owned();
    for name in names {
        writeln!(
            text,
            "- {{name: {name}, host: 127.0.0.1, port: {port}, retries: 5, routes: [{{name: {name}, \
             paths: [/{name}], strip_path: true, https_redirect_status_code: 426, \
             path_handling: v0, request_buffering: true, response_buffering: true}}]}}"
        )
        .unwrap();
    }
    text
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// What a branched control plane looks like from outside.
struct Branched<'a> {
    control: &'a Control,
    draft: String,
    base: u64,
}

impl<'a> Branched<'a> {
    #[track_caller]
    fn from(control: &'a Control, name: &str) -> Branched<'a> {
        let path = format!("/v2/control-planes/{}/drafts", control.id);
        let made = control.api("POST", &path, &json!({"name": name}));
        assert_eq!(made.status, 201, "{}", made.text());
        let made = made.json();
        Branched {
            control,
            draft: made["id"].as_str().unwrap().to_owned(),
            base: made["base_version"].as_u64().unwrap(),
        }
    }

    fn path(&self, rest: &str) -> String {
        format!(
            "/v2/control-planes/{}/drafts/{}{rest}",
            self.control.id, self.draft
        )
    }

    /// Runs decK on the draft.
    #[track_caller]
    fn deck(&self, dir: &Path, args: &[&str]) -> Finished {
        let done = self.control.deck_on(&self.draft, dir, args);
        done.expect("the test asked for it first")
    }

    /// Operation, kind and name of each change that the draft makes, in order.
    #[track_caller]
    fn changes(&self) -> Vec<String> {
        let answer = self
            .control
            .api("GET", &self.path("/changes"), &Value::Null);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let answer = answer.json();
        let list = answer["data"].as_array().unwrap();
        let mut all: Vec<String> = list
            .iter()
            .map(|change| {
                let text = |field: &str| change[field].as_str().unwrap_or_default();
                format!("{} {} {}", text("operation"), text("kind"), text("name"))
            })
            .collect();
        all.sort_unstable();
        all
    }

    fn services_of_draft(&self) -> usize {
        let path = format!(
            "/v2/control-planes/{}/core-entities/services?size=1000",
            self.draft
        );
        let all = self.control.api("GET", &path, &Value::Null).json();
        all["data"].as_array().unwrap().len()
    }
}

/// Version and names of the services that are live.
fn live(control: &Control) -> (u64, Vec<String>) {
    let path = format!("/v2/control-planes/{}/expected-config-hash", control.id);
    let version = control.api("GET", &path, &Value::Null).json()["revision"]
        .as_u64()
        .unwrap();
    let all = control
        .core("GET", "services?size=1000", &Value::Null)
        .json();
    let list = all["data"].as_array().unwrap();
    let name = |service: &Value| service["name"].as_str().unwrap().to_owned();
    (version, list.iter().map(name).collect())
}

#[track_caller]
fn summary(done: Finished, created: u32, updated: u32, deleted: u32) {
    let done = done.success();
    let text = format!("Created: {created}\n  Updated: {updated}\n  Deleted: {deleted}\n");
    has_all(&done.stdout, &[&text]);
}

#[test]
fn deck_syncs_a_draft_that_is_looked_at_and_promoted_in_one_step() {
    let Some(_) = foreign("deck", "Debian package deck") else {
        return;
    };
    let (control, echo) = (Control::start(), Echo::start());
    let gateway = Gateway::start(&control);
    control.route_to("old", echo.port());
    gateway.wait_for("/old", 200, soon());
    let before = live(&control);

    let dir = tempfile::tempdir().unwrap();
    write(
        &dir.path().join("new.yml"),
        services(&names(&["one", "two"]), echo.port()),
    );
    let branched = Branched::from(&control, "big-change");
    summary(
        branched.deck(dir.path(), &["sync", "-s", "new.yml"]),
        4,
        0,
        2,
    );
    summary(
        branched.deck(dir.path(), &["diff", "-s", "new.yml"]),
        0,
        0,
        0,
    );
    assert_eq!(live(&control), before, "nothing is live");
    assert_eq!(
        (gateway.status_of("/old"), gateway.status_of("/one")),
        (200, 404)
    );
    let expected = [
        "create routes one",
        "create routes two",
        "create services one",
        "create services two",
        "delete routes old",
        "delete services old",
    ];
    assert_eq!(branched.changes(), expected);

    let wanted = json!({"expected_version": branched.base});
    let promoted = control.api("POST", &branched.path("/promote"), &wanted);
    assert_eq!(promoted.status, 200, "{}", promoted.text());
    assert_eq!(promoted.json()["version"], branched.base + 1);
    let (version, mut names) = live(&control);
    names.sort_unstable();
    assert_eq!(
        (version, names),
        (before.0 + 1, vec!["one".to_owned(), "two".to_owned()])
    );
    gateway.wait_for("/one", 200, soon());
    gateway.wait_for("/two", 200, soon());
    gateway.wait_for("/old", 404, soon());
    let gone = control.api("GET", &branched.path(""), &Value::Null);
    assert_eq!(gone.status, 404);
    let diff = control.deck(dir.path(), &["diff", "-s", "new.yml"]);
    summary(diff.unwrap(), 0, 0, 0);
}

#[test]
fn a_dropped_draft_leaves_nothing_and_a_late_one_is_refused() {
    let Some(_) = foreign("deck", "Debian package deck") else {
        return;
    };
    let control = Control::start();
    control.route_to("kept", 1);
    let before = live(&control);
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("new.yml"), services(&names(&["one"]), 1));
    let branched = Branched::from(&control, "a-try");
    summary(
        branched.deck(dir.path(), &["sync", "-s", "new.yml"]),
        2,
        0,
        2,
    );
    let dropped = control.api("DELETE", &branched.path(""), &Value::Null);
    assert_eq!(dropped.status, 204);
    assert_eq!(live(&control), before);
    let refused = branched.deck(dir.path(), &["diff", "-s", "new.yml"]);
    assert!(!refused.status.success(), "the draft is gone: {refused:?}");

    // somebody writes to the origin meanwhile, and who promotes asked not to run over that
    let branched = Branched::from(&control, "a-try");
    summary(
        branched.deck(dir.path(), &["sync", "-s", "new.yml"]),
        2,
        0,
        2,
    );
    control.route_to("meanwhile", 1);
    let before = live(&control);
    let wanted = json!({"expected_version": branched.base});
    let late = control.api("POST", &branched.path("/promote"), &wanted);
    assert_eq!(late.status, 409, "{}", late.text());
    assert_eq!(live(&control), before);
}

#[test]
fn a_deck_that_is_killed_in_the_middle_leaves_nothing_live() {
    let Some(_) = foreign("deck", "Debian package deck") else {
        return;
    };
    const SERVICES: usize = 400;
    let (control, echo) = (Control::start(), Echo::start());
    let gateway = Gateway::start(&control);
    control.route_to("old", echo.port());
    gateway.wait_for("/old", 200, soon());
    let before = live(&control);
    let dir = tempfile::tempdir().unwrap();
    let all: Vec<String> = (0..SERVICES).map(|at| format!("s{at}")).collect();
    write(&dir.path().join("new.yml"), services(&all, echo.port()));
    let branched = Branched::from(&control, "many");
    let addr = control.deck_addr_of(&branched.draft);
    let sync = ["sync", "-s", "new.yml"];
    let launch = control.deck_launch(&addr, control.token(), dir.path(), &sync);
    let mut deck = launch.unwrap().start();
    eventually("decK is in the middle of its work", soon(), || {
        branched.services_of_draft() > 5
    });
    deck.kill9();
    let written = branched.services_of_draft();
    assert!(written > 5, "{written}");
    assert_eq!(live(&control), before, "nothing is live");
    assert_eq!(
        (gateway.status_of("/old"), gateway.status_of("/s1")),
        (200, 404)
    );
    // the next run goes on where the first one ended
    branched.deck(dir.path(), &sync).success();
    let promoted = control.api("POST", &branched.path("/promote"), &json!({}));
    assert_eq!(promoted.status, 200, "{}", promoted.text());
    let (version, names) = live(&control);
    assert_eq!((version, names.len()), (before.0 + 1, SERVICES));
    gateway.wait_for("/s1", 200, soon());
    gateway.wait_for(&format!("/s{}", SERVICES - 1), 200, soon());
    gateway.wait_for("/old", 404, soon());
}
