//! References to vaults, those of gateways and those that are entities.

use super::*;

#[test]
fn what_is_in_a_vault_is_edited_and_tried_again() {
    let mut lab = Lab::new();
    let none: [&str; 0] = [];
    lab.take(&[service(1), route(2, 1)]);
    lab.rebuilds = 0;
    let session = |secret: &str| {
        let config = json!({"secret": format!("{{vault://env/{secret}}}")});
        plugin(3, "session", json!({"route": to(2), "config": config}))
    };
    assert_eq!(lab.edit(&[session("none")]), ["plugins 3!"]);
    assert_eq!(lab.edit(&[route(4, 1)]), ["plugins 3!"]);
    assert_eq!(lab.runs(2), ["closed"]);
    assert_eq!(lab.edit(&[session("secret")]), none);
    assert_eq!(lab.runs(2), ["session"]);
    assert!(lab.now.has_references());
    assert_eq!(lab.edit(&[session("none")]), ["plugins 3+"]);
    // the secret comes, and the next change, whatever it is, takes it up
    let now = std::mem::replace(&mut lab.now, Configuration::empty(FLAVOR));
    lab.now = now.with_vaults(secrets(&[("NONE", "here at last, and long")]));
    assert_eq!(lab.edit(&[route(5, 1)]), none);
}

fn vault(n: u128, prefix: &str, of: &str) -> Change {
    let config = json!({"prefix": of});
    let vault = json!({"name": "env", "prefix": prefix, "config": config});
    (Kind::Vault, n, Some(vault))
}

/// A plugin of a route whose secret is in a vault.
fn session(n: u128, route: u128, vault: &str) -> Change {
    let config = json!({"secret": format!("{{vault://{vault}/secret}}")});
    plugin(n, "session", json!({"route": to(route), "config": config}))
}

fn certificate(n: u128, vault: &str) -> Change {
    let of = |name: &str| format!("{{vault://{vault}/{name}}}");
    (
        Kind::Certificate,
        n,
        Some(json!({"cert": of("cert"), "key": of("key")})),
    )
}

/// The plugin of a route, with what it was made of.
fn made_of(lab: &Lab, route: u128) -> String {
    let start = format!("route {} ", id(route));
    let lines = shown(&lab.now).into_iter();
    lines
        .filter(|it| it.starts_with(&start) && it.contains(" None ["))
        .collect()
}

#[test]
fn a_vault_that_changes_takes_along_what_refers_to_it() {
    let mut lab = Lab::new();
    let none: [&str; 0] = [];
    lab.edit(&[service(1), route(2, 1), route(3, 1), route(4, 1)]);
    lab.edit(&[vault(10, "one", "A_"), vault(11, "two", "B_")]);
    assert_eq!(
        lab.edit(&[
            session(5, 2, "one"),
            session(6, 3, "two"),
            session(7, 4, "env")
        ]),
        none
    );
    let all = |lab: &Lab| [2, 3, 4].map(|route| made_of(lab, route));
    let mut before = all(&lab);
    let others = |lab: &Lab, before: &mut [String; 3]| {
        let now = all(lab);
        let other: Vec<bool> = now.iter().zip(&*before).map(|(a, b)| a != b).collect();
        *before = now;
        other
    };
    // another place, then what changes nothing, then each other's names
    assert_eq!(lab.edit(&[vault(10, "one", "B_")]), none);
    assert_eq!(others(&lab, &mut before), [true, false, false]);
    assert_eq!(lab.edit(&[vault(10, "one", "B_")]), none);
    assert_eq!(others(&lab, &mut before), [false; 3]);
    assert_eq!(lab.edit(&[vault(11, "two", "A_")]), none);
    assert_eq!(others(&lab, &mut before), [false, true, false]);
    assert_eq!(
        lab.edit(&[vault(10, "two", "B_"), vault(11, "one", "A_")]),
        none
    );
    assert_eq!(others(&lab, &mut before), [true, true, false]);
    // a plugin that comes with its vault, and one that refers to another from now on
    assert_eq!(
        lab.edit(&[vault(12, "three", "A_"), session(7, 4, "three")]),
        none
    );
    assert_eq!(lab.edit(&[vault(12, "three", "B_")]), none);
    others(&lab, &mut before);
    assert_eq!(lab.edit(&[session(5, 2, "three")]), none);
    assert_eq!(lab.edit(&[vault(11, "one", "B_")]), none);
    others(&lab, &mut before);
    assert_eq!(lab.edit(&[vault(12, "three", "A_")]), none);
    assert_eq!(others(&lab, &mut before), [true, false, true]);
    // one to which nothing refers any more
    assert_eq!(lab.edit(&[(Kind::Vault, 11, None)]), none);
    assert_eq!(lab.edit(&[(Kind::Plugin, 6, None)]), none);
    assert_eq!(lab.edit(&[(Kind::Vault, 10, None)]), none);
    assert!(lab.now.has_references());
}

#[test]
fn what_stands_for_nothing_is_refused_until_its_vault_is_back() {
    let mut lab = Lab::new();
    let none: [&str; 0] = [];
    lab.edit(&[service(1), route(2, 1), route(3, 1), vault(10, "one", "A_")]);
    lab.edit(&[session(5, 2, "one")]);
    let auth = |n| plugin(n, "key-auth", json!({"route": to(3)}));
    // there is no earlier version that could be served
    assert_eq!(lab.edit(&[vault(10, "one", "NOWHERE_")]), ["plugins 5!"]);
    assert_eq!(lab.runs(2), ["closed"]);
    assert_eq!(lab.edit(&[auth(6)]), ["plugins 5!"]);
    assert_eq!(lab.edit(&[vault(10, "one", "B_")]), none);
    assert_eq!(lab.runs(2), ["session"]);
    assert_eq!(lab.edit(&[(Kind::Vault, 10, None)]), ["plugins 5!"]);
    assert_eq!(lab.edit(&[vault(11, "one", "A_")]), none);
    // a vault that no gateway can serve stays as it was
    let mut other = vault(11, "one", "B_");
    other.2.as_mut().unwrap()["name"] = json!("hcv");
    let before = made_of(&lab, 2);
    assert_eq!(lab.edit(&[other.clone()]), ["vaults 11+"]);
    assert_eq!(made_of(&lab, 2), before);
    // without one there is nothing in it
    other.1 = 12;
    other.2.as_mut().unwrap()["prefix"] = json!("two");
    assert_eq!(
        lab.edit(&[other, session(7, 3, "two")]),
        ["plugins 7!", "vaults 11+", "vaults 12"]
    );
    assert_eq!(lab.edit(&[vault(12, "two", "B_")]), ["vaults 11+"]);
    assert_eq!(lab.runs(3), ["session", "key-auth"]);
    // what is switched off refers to nothing, and is looked at when it is switched on
    let switched = |on: bool| {
        let service = json!({"host": "127.0.0.1", "name": "s1", "enabled": on});
        (Kind::Service, 1, Some(service))
    };
    assert_eq!(lab.edit(&[switched(false)]), ["vaults 11+"]);
    assert_eq!(lab.edit(&[(Kind::Vault, 12, None)]), ["vaults 11+"]);
    assert_eq!(lab.edit(&[switched(true)]), ["plugins 7!", "vaults 11+"]);
    assert_eq!(lab.runs(3), ["closed", "key-auth"]);
}

#[test]
fn what_is_kept_through_a_vault_is_never_taken_for_the_new() {
    let mut lab = Lab::new();
    lab.edit(&[service(1), route(2, 1), route(3, 1), vault(10, "one", "A_")]);
    lab.edit(&[session(5, 2, "one"), session(6, 3, "one")]);
    assert_eq!(lab.edit(&[session(5, 2, "two")]), ["plugins 5+"]);
    let before = made_of(&lab, 2);
    lab.take(&[vault(10, "one", "B_")]);
    assert_eq!(lab.rebuilds, 1);
    assert_eq!(lab.refused(), ["plugins 5+"]);
    assert_ne!(made_of(&lab, 2), before);
    // who refers to what is known after that too
    lab.rebuilds = 0;
    lab.edit(&[(Kind::Plugin, 5, None)]);
    let before = made_of(&lab, 3);
    lab.edit(&[vault(10, "one", "A_")]);
    assert_ne!(made_of(&lab, 3), before);
}

#[test]
fn certificates_come_and_go_with_their_vault() {
    let mut lab = Lab::new();
    let none: [&str; 0] = [];
    let name = |n, of| {
        let name = json!({"name": format!("{}.example", ["a", "b", "c"][n as usize % 3]), "certificate": to(of)});
        (Kind::Sni, n, Some(name))
    };
    let shown_for = |lab: &Lab| -> Vec<String> {
        let lines = shown(&lab.now).into_iter();
        lines.filter(|it| it.starts_with("name ")).collect()
    };
    let plain = json!({"cert": pair(0).cert, "key": pair(0).key});
    lab.edit(&[
        vault(10, "one", "A_"),
        (Kind::Certificate, 2, Some(plain)),
        name(21, 2),
    ]);
    lab.edit(&[certificate(1, "one"), name(22, 1), name(23, 1)]);
    let first = shown_for(&lab);
    lab.edit(&[vault(10, "one", "B_")]);
    let second = shown_for(&lab);
    assert_eq!(first[0], second[0]);
    assert_ne!(first[1..], second[1..]);
    let refused = lab.edit(&[vault(10, "one", "NOWHERE_")]);
    assert_eq!(refused, ["certificates 1", "snis 22", "snis 23"]);
    assert_eq!(lab.edit(&[name(22, 2)]), ["certificates 1", "snis 23"]);
    assert_eq!(lab.edit(&[vault(10, "one", "A_")]), none);
    assert_eq!(shown_for(&lab)[2], first[2]);
    // a service that shows it is made again with it
    let service = json!({"host": "127.0.0.1", "protocol": "https", "client_certificate": to(1)});
    lab.edit(&[(Kind::Service, 30, Some(service)), route(31, 30)]);
    lab.edit(&[vault(10, "one", "B_")]);
    // and is refused with it, with what hangs on it
    lab.take(&[(Kind::Vault, 10, None)]);
    let refused = ["certificates 1", "snis 23", "services 30", "routes 31"];
    assert_eq!(lab.refused(), refused);
    lab.rebuilds = 0;
    assert_eq!(lab.edit(&[vault(10, "one", "A_")]), none);
}
