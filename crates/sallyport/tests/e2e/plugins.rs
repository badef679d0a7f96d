//! `sallyport plugins`: what this build has, and what it says about the rest.

use crate::lab::{has_all, sallyport, soon};

#[test]
fn plugins_are_listed_in_the_order_they_run() {
    let list = sallyport().arg("plugins").run(soon()).success().stdout;
    has_all(
        &list,
        &[
            "PLUGIN",
            "key-auth",
            "1250",
            "rate-limiting",
            "global, service, route",
        ],
    );
    let priorities: Vec<i32> = list
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().nth(1).unwrap().parse().unwrap())
        .collect();
    assert!(priorities.is_sorted_by(|a, b| a > b), "{list}");
}

#[test]
fn a_plugin_is_explained_and_an_absent_one_too() {
    let page = sallyport().args(["plugins", "key-auth"]).run(soon());
    has_all(
        &page.success().stdout,
        &["# key-auth", "`key_names`", "`[\"apikey\"]`"],
    );
    let absent = sallyport().args(["plugins", "oauth2"]).run(soon());
    assert!(!absent.status.success());
    has_all(
        &absent.stderr,
        &["oauth2", "not part of this build: tokens need"],
    );
    let unknown = sallyport().args(["plugins", "nope"]).run(soon());
    assert!(!unknown.status.success());
    has_all(&unknown.stderr, &["there is no plugin \"nope\""]);
}
