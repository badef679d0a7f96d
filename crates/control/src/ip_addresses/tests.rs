use std::path::Path;

use sallyport_contract::{Net, PublishedList, catalogue};
use sallyport_store::{Actor, Cluster, NewCluster, NewMember, NodeRole, Store, Wanted};
use uuid::Uuid;

use super::history::History;
use super::{Contribution, Contributor, Feed, Seal, described, sources};

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
    let read = sources::read(catalogue(), text, BASE).unwrap();
    read.split(0).0
}

/// A control plane's feed on the database in `dir`.
async fn open(dir: &Path, text: &str, now: i64) -> Feed {
    let store = Store::open(&dir.join("store.sqlite")).unwrap();
    let contribution = described(text, BASE).unwrap();
    let by = Contributor::ControlPlane;
    let feed = Feed::open(store, by, contribution, BASE, dir, None, now);
    feed.await.unwrap()
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
    let (versions, announced) = history.rows(2);
    assert_eq!(History::of_rows(versions, announced).unwrap(), history);
    for at in 0..300 {
        history.publish(
            list(if at % 2 == 0 { SOURCES } else { &moved }),
            1_800_000_200 + at,
        );
    }
    assert_eq!(history.since(None).len(), 200);
}

#[test]
fn a_damaged_history_is_refused() {
    for (text, part) in [
        ("{}", "not a history"),
        ("{\"format\":2,\"versions\":[]}", "format 2"),
        (
            "{\"format\":1,\"versions\":[{\"updateDate\":\"x\",\"regions\":{},\"ingressIPs\":{},\"egressIPs\":{}}]}",
            "\"x\", which is no date",
        ),
    ] {
        let error = History::of_file(text).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[tokio::test]
async fn a_second_start_publishes_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path(), SOURCES, 1_800_000_000).await.now();
    let second = open(dir.path(), SOURCES, 1_800_009_999).await.now();
    assert_eq!((&first.list, &first.etag), (&second.list, &second.etag));
    assert_eq!(first.signature, second.signature);
    assert_eq!(first.signature.len(), 64);
    let third = "[eu]\negress = [\"192.0.2.1\"]\n";
    let third = open(dir.path(), third, 1_800_010_000).await.now();
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

#[tokio::test]
async fn a_change_is_announced_before_it_is_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "{SOURCES}\n[[planned]]\nfrom = 2027-01-15T09:00:00Z\n\
         [planned.us]\ningress.config_sync = [\"203.0.113.0/28\", \"192.0.2.77\"]\n"
    );
    let now = 1_800_000_000; // an hour before
    let feed = open(dir.path(), &text, now).await;
    feed.refresh(now + 3599).await.unwrap();
    let before = feed.now();
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
    drop(feed);
    let feed = open(dir.path(), &text, now + 60).await;
    assert_eq!(feed.now().rss, before.rss, "announced once");

    feed.refresh(now + 3600).await.unwrap();
    let after = feed.now();
    assert!(after.list.contains("192.0.2.77"), "{}", after.list);
    assert!(after.list.contains("192.0.2.20"), "other geos stay");
    assert_eq!(after.history.announced(), []);
    assert_ne!(after.etag, before.etag);
    let newest = &after.history.since(None)[0];
    assert_eq!(newest.update_date, "2027-01-15-09-00-00");

    // A process whose clock is behind does not take it back.
    feed.refresh(now + 60).await.unwrap();
    drop(feed);
    let feed = open(dir.path(), &text, now + 120).await;
    assert_eq!(feed.now().list, after.list);
}

#[tokio::test]
async fn the_history_of_an_older_build_is_taken_over_once() {
    let dir = tempfile::tempdir().unwrap();
    let list = PublishedList {
        update_date: "2025-08-26-16-03-33".to_owned(),
        ..list(SOURCES)
    };
    let file = serde_json::json!({"format": 1, "versions": [list]}).to_string();
    let path = dir.path().join("ip_addresses.json");
    std::fs::write(&path, &file).unwrap();
    let documents = open(dir.path(), SOURCES, 1_800_000_000).await.now();
    assert_eq!(documents.history.since(None).len(), 1);
    assert!(documents.list.contains("2025-08-26-16-03-33"));
    assert!(!path.exists());
    let aside = dir.path().join("ip_addresses.json.old");
    assert_eq!(std::fs::read_to_string(&aside).unwrap(), file);

    // A second one, such as of another process on the database, is set aside.
    std::fs::write(&path, file.replace("2025", "2024")).unwrap();
    let documents = open(dir.path(), SOURCES, 1_800_000_000).await.now();
    assert_eq!(documents.history.since(None).len(), 1);
    assert!(std::fs::read_to_string(aside).unwrap().contains("2024"));
    std::fs::write(&path, "{}").unwrap();
    let store = Store::open(&dir.path().join("store.sqlite")).unwrap();
    let by = Contributor::ControlPlane;
    let nothing = Contribution::default();
    let refused = Feed::open(store, by, nothing, BASE, dir.path(), None, 0).await;
    let refused = refused.unwrap_err().to_string();
    assert!(refused.contains("ip_addresses.json: is not"), "{refused}");
}

/// A seal for tests only.
struct Mirror;

impl Seal for Mirror {
    fn seal(&self, plain: &[u8]) -> Result<Vec<u8>, String> {
        Ok(plain.iter().rev().copied().collect())
    }
    fn open(&self, sealed: &[u8]) -> Result<Vec<u8>, String> {
        self.seal(sealed)
    }
}

const EPOCH: i64 = 1_800_000_000;

/// The feed of a node in `geo` of the cluster in `store`, and its directory.
async fn node(store: &Store, number: u8, geo: &str, text: &str) -> (Feed, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let feed = node_in(store, number, geo, text, dir.path());
    (feed.await, dir)
}

async fn node_in(store: &Store, number: u8, geo: &str, text: &str, dir: &Path) -> Feed {
    let net: Net = format!("192.0.2.{number}").parse().unwrap();
    let mut contribution = Contribution::of_node(BASE, geo, &[net], &[net]);
    contribution.merge(described(text, BASE).unwrap());
    let by = Contributor::Node(Uuid::from_u128(number.into()));
    let feed = Feed::open(
        store.clone(),
        by,
        contribution,
        BASE,
        dir,
        Some(&Mirror),
        EPOCH,
    );
    feed.await.unwrap()
}

async fn cluster(dir: &Path, nodes: u8) -> Store {
    let store = Store::open(&dir.join("store.sqlite")).unwrap();
    let member = |number: u8| NewMember {
        id: Uuid::from_u128(number.into()),
        name: format!("n{number}"),
        role: NodeRole::Data,
        address: format!("192.0.2.{number}:7777"),
        key_digest: [number; 32],
    };
    let actor = Actor("test".to_owned());
    let shared = Cluster {
        id: Uuid::from_u128(99),
        node_ca: String::new(),
        node_ca_key: Vec::new(),
        api_ca: String::new(),
        api_ca_key: Vec::new(),
    };
    let first = member(1);
    let new = NewCluster {
        cluster: shared,
        first,
    };
    store.found_cluster(&actor, new).await.unwrap();
    for number in 2..=nodes {
        let token = [number; 32];
        let made = store.create_join_token(&actor, token, NodeRole::Data, 60);
        made.await.unwrap();
        store.admit_node(token, member(number)).await.unwrap();
    }
    store
}

#[tokio::test]
async fn all_nodes_publish_what_all_nodes_report() {
    let dir = tempfile::tempdir().unwrap();
    let store = cluster(dir.path(), 2).await;
    let (one, _one) = node(&store, 1, "eu", "").await;
    let first = one.now();
    let (two, _two) = node(&store, 2, "eu", "").await;
    one.refresh(EPOCH + 5).await.unwrap();
    let (of_one, of_two) = (one.now(), two.now());
    assert_ne!(first.etag, of_one.etag);
    assert_eq!(of_one.list, of_two.list);
    assert_eq!(of_one.signature, of_two.signature);
    assert_eq!(of_one.public_key, of_two.public_key);
    assert_eq!(of_one.rss, of_two.rss);
    let list: serde_json::Value = serde_json::from_str(&of_one.list).unwrap();
    let both = serde_json::json!(["192.0.2.1", "192.0.2.2"]);
    for (region, name) in [
        ("eu", "eu.api.sally.example"),
        ("eu", "*.eu.cp0.sally.example"),
        ("eu", "*.eu.tp0.sally.example"),
        ("eu", "eu.kic.api.sally.example"),
        ("global", "global.api.sally.example"),
        ("global", "ip-addresses.origin.sally.example"),
    ] {
        assert_eq!(list["regions"][region][name], both, "{name} in {list:#}");
    }
    assert_eq!(list["ingressIPs"]["eu"], both);
    assert_eq!(list["egressIPs"]["eu"], both);

    // What a node reports goes with the node, and not before.
    let actor = Actor("test".to_owned());
    store.want(&actor, "n2", Wanted::Drained).await.unwrap();
    one.refresh(EPOCH + 9).await.unwrap();
    assert_eq!(one.now().etag, of_two.etag);
    store.want(&actor, "n2", Wanted::Removed).await.unwrap();
    one.refresh(EPOCH + 10).await.unwrap();
    let after = one.now();
    assert!(!after.list.contains("192.0.2.2\""), "{}", after.list);
    let newest = &after.history.since(None)[0];
    assert!(newest.changes.iter().all(|it| it.removed == ["192.0.2.2"]));
    assert_eq!(after.history.since(None).len(), 3);
}

#[tokio::test]
async fn an_address_is_there_while_one_node_tells_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = cluster(dir.path(), 2).await;
    let planned = |address: &str, from: &str| {
        format!(
            "[us]\negress = [\"203.0.113.1\"]\n[[planned]]\nfrom = {from}\n\
             [planned.us]\negress = [\"{address}\"]\n"
        )
    };
    let text = planned("203.0.113.2", "2027-01-15T09:00:00Z");
    let (one, _one) = node(&store, 1, "eu", &text).await;
    let (_two, two_dir) = node(&store, 2, "eu", "[us]\negress = [\"203.0.113.1\"]\n").await;
    one.refresh(EPOCH + 1).await.unwrap();
    let coming = one.now();
    let coming = &coming.history.announced()[0].changes;
    // The second node does not know yet that the old one goes.
    assert_eq!(
        (&coming[0].added[..], coming[0].removed.len()),
        (&["203.0.113.2".to_owned()][..], 0)
    );
    let two = node_in(&store, 2, "eu", &text, two_dir.path()).await;
    let coming = two.now();
    let coming = &coming.history.announced()[0].changes;
    assert_eq!(coming[0].removed, ["203.0.113.1"]);
}

#[tokio::test]
async fn the_key_of_the_first_node_becomes_that_of_all() {
    let dir = tempfile::tempdir().unwrap();
    let store = cluster(dir.path(), 2).await;
    // Keys of an older build, a different one on each node.
    let pem = || {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        (key.serialize_pem(), key.public_key_pem())
    };
    let (first, second) = (pem(), pem());
    let mut shown = Vec::new();
    for (number, (private, _)) in [(1, &first), (2, &second)] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ip_addresses.key");
        std::fs::write(&path, private).unwrap();
        let feed = node_in(&store, number, "eu", "", dir.path()).await;
        shown.push(feed.now().public_key.clone());
        assert!(!path.exists() && dir.path().join("ip_addresses.key.old").exists());
    }
    assert_eq!(shown, [first.1.clone(), first.1]);
    let kept = store.ip_addresses_key().await.unwrap().unwrap();
    assert!(!String::from_utf8_lossy(&kept.sealed).contains("PRIVATE KEY"));
}

#[tokio::test]
async fn nothing_told_is_nothing_published() {
    let dir = tempfile::tempdir().unwrap();
    let documents = open(dir.path(), "", EPOCH).await.now();
    assert_eq!(
        (&*documents.list, documents.history.since(None).len()),
        ("", 0)
    );
    assert!(documents.public_key.contains("PUBLIC KEY"));
}
