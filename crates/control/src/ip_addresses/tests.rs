use sallyport_contract::{PublishedList, catalogue};

use super::history::History;
use super::{Feed, sources};

const BASE: &str = "sally.example";
const SOURCES: &str = r#"
[eu]
ingress.control_planes = ["192.0.2.10"]
ingress.config_sync = ["192.0.2.11", "198.51.100.11"]
ingress.telemetry = ["192.0.2.12", "2001:db8::12"]
ingress.mesh_sync = ["192.0.2.13"]
egress = ["192.0.2.20"]

[us]
ingress.config_sync = ["203.0.113.0/28"]

[global]
ingress.identity = ["192.0.2.1"]
"#;

fn list(text: &str) -> PublishedList {
    sources::read(catalogue(), text, BASE)
        .unwrap()
        .at(0)
        .clone()
}

#[test]
fn hosts_and_flat_lists_follow_from_the_description() {
    let json: serde_json::Value = serde_json::from_str(&list(SOURCES).json()).unwrap();
    let eu = &json["regions"]["eu"];
    assert_eq!(eu["eu.api.sally.example"][0], "192.0.2.10");
    assert_eq!(eu["*.eu.cp0.sally.example"][1], "198.51.100.11");
    assert_eq!(eu["eu.mesh.sync.sally.example"][0], "192.0.2.13");
    assert_eq!(
        json["regions"]["global"]["global.api.sally.example"][0],
        "192.0.2.1"
    );
    assert_eq!(json["ingressIPs"]["eu"].as_array().unwrap().len(), 6);
    assert_eq!(json["ingressIPs"]["us"][0], "203.0.113.0/28");
    assert_eq!(json["egressIPs"]["eu"][0], "192.0.2.20");
    // What existing consumers parse: all four members, nothing else.
    let mut members: Vec<&String> = json.as_object().unwrap().keys().collect();
    members.sort();
    assert_eq!(
        members,
        ["egressIPs", "ingressIPs", "regions", "updateDate"]
    );
}

#[track_caller]
fn check_refused(text: &str, part: &str) {
    let error = sources::read(catalogue(), text, BASE)
        .unwrap_err()
        .to_string();
    assert!(error.contains(part), "no {part:?} in {error}");
}

#[test]
fn a_bad_description_is_told() {
    check_refused("[uk]\n", "no geo `uk`; known are au, eu");
    check_refused(
        "[eu]\ningress.limitd = [\"192.0.2.1\"]\n",
        "no host for `limitd`",
    );
    check_refused(
        "[in]\ningress.mesh_sync = [\"192.0.2.1\"]\n",
        "no host for `mesh_sync`",
    );
    check_refused("[eu]\negress = [\"192.0.2.300\"]\n", "192.0.2.300");
    check_refused("[eu]\nexgress = []\n", "exgress");
    check_refused("[eu]\negress = [\"192.0.2.1/24\"]\n", "192.0.2.0/24");
    check_refused("[[planned]]\n[planned.eu]\n", "planned: `from` is \"\"");
    check_refused("[[planned]]\nfrom = 2026-12-01\n", "a moment with its zone");
    check_refused(
        "[[planned]]\nfrom = 2026-12-01T06:00:00Z\n[planned.uk]\n",
        "no geo `uk`",
    );
    let twice = "[[planned]]\nfrom = 2026-12-01T06:00:00Z\n";
    check_refused(&twice.repeat(2), "the same `from`");
}

#[test]
fn versions_are_kept_only_when_something_changes() {
    let mut history = History::default();
    assert!(history.publish(list(SOURCES), 1_800_000_000));
    assert!(!history.publish(list(SOURCES), 1_800_000_100));
    let moved = SOURCES.replace("192.0.2.20", "192.0.2.21");
    // A clock that went back does not make a version older than the last.
    assert!(history.publish(list(&moved), 1_700_000_000));
    assert_eq!(history.newest().unwrap().update_date, "2027-01-15-08-00-01");
    let versions = history.since(None);
    assert_eq!(versions.len(), 2);
    let newest = &versions[0].changes;
    assert_eq!(
        (newest.len(), newest[0].side, newest[0].geo.as_str()),
        (1, "egress", "eu")
    );
    assert_eq!(
        (&newest[0].added[..], &newest[0].removed[..]),
        (
            &["192.0.2.21".to_owned()][..],
            &["192.0.2.20".to_owned()][..]
        )
    );
    assert_eq!(history.since(Some("2027-01-15-08-00-00")).len(), 1);
    assert_eq!(history.since(Some("2027-01-15-08-00-01")).len(), 0);
    assert_eq!(History::parse(&history.json()).unwrap(), history);
    for at in 0..300 {
        history.publish(
            list(if at % 2 == 0 { SOURCES } else { &moved }),
            1_800_000_200 + at,
        );
    }
    assert_eq!(history.since(None).len(), 200);
}

#[test]
fn a_damaged_change_log_is_refused() {
    for (text, part) in [
        ("{}", "not a change log"),
        ("{\"format\":2,\"versions\":[]}", "format 2"),
        (
            "{\"format\":1,\"versions\":[{\"updateDate\":\"x\",\"regions\":{},\"ingressIPs\":{},\"egressIPs\":{}}]}",
            "\"x\", which is no date",
        ),
    ] {
        let error = History::parse(text).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_second_start_publishes_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let open = |text: &str, now| Feed::open(text, BASE, dir.path(), now).unwrap().at(now);
    let first = open(SOURCES, 1_800_000_000);
    let second = open(SOURCES, 1_800_009_999);
    assert_eq!((&first.list, &first.etag), (&second.list, &second.etag));
    assert_eq!(first.signature, second.signature);
    assert_eq!(first.signature.len(), 64);
    let third = open("[eu]\negress = [\"192.0.2.1\"]\n", 1_800_010_000);
    assert_ne!(first.etag, third.etag);
    assert_eq!(first.public_key, third.public_key);
    assert!(
        third
            .rss
            .contains("<title>1 addresses added, 9 removed</title>"),
        "{}",
        third.rss
    );
}

#[test]
fn a_change_is_announced_before_it_is_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "{SOURCES}\n[[planned]]\nfrom = 2027-01-15T09:00:00Z\n\
         [planned.us]\ningress.config_sync = [\"203.0.113.0/28\", \"192.0.2.77\"]\n"
    );
    let now = 1_800_000_000; // an hour before
    let feed = Feed::open(&text, BASE, dir.path(), now).unwrap();
    let before = feed.at(now + 3599);
    assert!(!before.list.contains("192.0.2.77"), "{}", before.list);
    let coming = before.history.announced();
    assert_eq!(
        (coming.len(), coming[0].valid_from, coming[0].announced),
        (1, "2027-01-15-09-00-00", "2027-01-15-08-00-00")
    );
    assert_eq!(coming[0].changes[0].added, ["192.0.2.77"]);
    for part in [
        "<title>1 addresses added, 0 removed from 2027-01-15-09-00-00 UTC</title>",
        "Valid from 2027-01-15-09-00-00 UTC.\nus ingress: added 192.0.2.77.",
    ] {
        assert!(before.rss.contains(part), "{part} in {}", before.rss);
    }
    let again = Feed::open(&text, BASE, dir.path(), now + 60).unwrap();
    assert_eq!(again.at(now + 60).rss, before.rss, "announced once");

    let after = feed.at(now + 3600);
    assert!(after.list.contains("192.0.2.77"), "{}", after.list);
    assert!(after.list.contains("192.0.2.20"), "other geos stay");
    assert_eq!(after.history.announced(), []);
    assert_ne!(after.etag, before.etag);
    let newest = &after.history.since(None)[0];
    assert_eq!(newest.update_date, "2027-01-15-09-00-00");
}
