//! Consumer groups and vaults in documents.

use serde_json::{Value, json};

use super::{Declared, Format, parse};
use crate::schema::tests::TwoPlugins;

fn parsed(document: Value) -> Result<Declared, Vec<String>> {
    let mut document = document;
    document["_format_version"] = json!("3.0");
    parse(document, Format::File, &TwoPlugins::new())
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

/// Who is in which group, by their names.
fn members(declared: &Declared) -> Vec<String> {
    let table = &declared.table;
    let members = table.consumer_group_consumers.iter().map(|member| {
        let group = table
            .consumer_groups
            .iter()
            .find(|it| it.id == member.consumer_group.0);
        let consumer = table.consumers.iter().find(|it| it.id == member.consumer.0);
        let consumer = consumer.and_then(|it| it.username.clone());
        format!("{}: {}", group.unwrap().name, consumer.unwrap())
    });
    members.collect()
}

#[test]
fn a_group_names_its_consumers_or_they_their_groups() {
    let of_groups = json!({
        "consumers": [{"username": "alice"}, {"username": "bob"}],
        "consumer_groups": [{"name": "gold", "tags": ["t"],
            "consumers": [{"username": "alice"}, "bob"],
            "plugins": [{"name": "rate-limiting", "config": {"second": 5}}]}],
    });
    let of_consumers = json!({
        "consumers": [{"username": "alice", "groups": [{"name": "gold", "tags": ["t"]}]},
                      {"username": "bob", "groups": ["gold"]}],
        "consumer_groups": [{"name": "gold", "tags": ["t"],
            "plugins": [{"name": "rate-limiting", "config": {"second": 5}}]}],
    });
    let flat = json!({
        "consumers": [{"username": "alice"}, {"username": "bob"}],
        "consumer_groups": [{"name": "gold", "tags": ["t"]}],
        "consumer_group_consumers": [{"consumer_group": "gold", "consumer": "alice"},
            {"consumer_group": {"name": "gold"}, "consumer": {"username": "bob"}}],
        "plugins": [{"name": "rate-limiting", "consumer_group": "gold", "config": {"second": 5}}],
    });
    let first = parsed(of_groups).unwrap();
    assert_eq!(members(&first), ["gold: alice", "gold: bob"]);
    let group = first.table.plugins[0].consumer_group.unwrap();
    assert_eq!(group.0, first.table.consumer_groups[0].id);
    for other in [of_consumers, flat] {
        assert_eq!(parsed(other).unwrap().value, first.value);
    }
    let again = parse(first.value.clone(), Format::Payload, &TwoPlugins::new());
    assert_eq!(again.unwrap().value, first.value);
}

#[test]
fn both_sides_may_say_the_same() {
    let declared = parsed(json!({
        "consumers": [{"username": "alice", "groups": [{"name": "gold"}, {"name": "gold"}]}],
        "consumer_groups": [{"name": "gold", "consumers": [{"username": "alice"}]}],
    }));
    assert_eq!(members(&declared.unwrap()), ["gold: alice"]);
}

#[test]
fn bad_groups_are_named() {
    let wrong = parsed(json!({
        "consumers": [{"username": "alice", "groups": [{"name": "silver"}, 5]}],
        "consumer_groups": [{"name": "gold", "consumers": [{"username": "bob"}]}, {"tags": []}],
        "plugins": [
            {"name": "key-auth", "consumer_group": "gold"},
            {"name": "rate-limiting", "config": {"second": 1}, "consumer": "alice",
             "consumer_group": "gold"},
        ],
    }));
    let mut problems = wrong.map(drop).unwrap_err();
    problems.sort();
    assert_eq!(
        problems,
        [
            "consumer_groups[0].consumers[0].consumer: invalid reference 'consumer: bob' (no such \
             entry in 'consumers')",
            "consumer_groups[1] (f709190a-e40d-5dd0-8a93-19cd435dbafc).name: required field missing",
            "consumers[0].groups[0].consumer_group: invalid reference 'consumer_group: silver' \
             (no such entry in 'consumer_groups')",
            "consumers[0].groups[1] (f5bbf845-cd52-57d4-a0fc-a8e620c54410).consumer_group: \
             expected a string",
            "plugins[0] (key-auth).consumer_group: value must be null",
            "plugins[1] (rate-limiting).consumer_group: must not be set together with 'consumer'",
        ]
    );
}

#[test]
fn vaults() {
    let declared = parsed(json!({
        "vaults": [{"prefix": "my-app", "name": "env", "config": {"prefix": "APP_"}},
                   {"prefix": "files", "name": "file", "description": "mounted"}],
    }));
    let declared = declared.unwrap();
    let vault = &declared.table.vaults[0];
    assert_eq!(
        (vault.prefix.as_str(), vault.config.prefix.as_deref()),
        ("my-app", Some("APP_"))
    );
    let wrong = parsed(json!({
        "vaults": [
            {"prefix": "my-app", "name": "hcv"}, {"prefix": "env", "name": "env"},
            {"prefix": "x", "name": "file", "config": {"prefix": "../etc"}},
            {"prefix": "my-env", "name": "env", "config": {"prefix": "a b", "ttl": 5}},
            {"prefix": "my-env", "name": "lost"},
        ],
    }));
    assert_eq!(
        wrong.map(drop).unwrap_err(),
        [
            "vaults[0] (my-app).name: vault 'hcv' is not part of this build; possible: env, file",
            "vaults[1] (env).prefix: must not be one of: env, file, aws, azure, conjur, gcp, hcv",
            "vaults[2] (x).prefix: invalid value: x (expected at least two of a-z, 0-9 and '-', a \
             letter first and no '-' last)",
            "vaults[2] (x).config.prefix: invalid value: ../etc (expected a directory below the \
             one of vault_file_prefix, such as redis)",
            "vaults[3] (my-env).config.ttl: unknown field",
            "vaults[4] (my-env).name: vault 'lost' is not installed; possible: env, file",
            "vaults[4] (my-env).prefix: uniqueness violation: 'vaults' entity with prefix set to \
             'my-env' already declared at vaults[3]",
        ]
    );
}
