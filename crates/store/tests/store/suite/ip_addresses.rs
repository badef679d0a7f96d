//! The published list of addresses: contributions, versions, and the key.

use sallyport_store::{IpAddresses, IpAddressesKey, Store, StoreError, Wanted};
use serde_json::{Value, json};
use uuid::Uuid;

use super::actor;
use super::cluster::founded;

const NODE: Uuid = Uuid::from_u128(1);

pub(crate) async fn what_nodes_report_stays_until_they_are_removed(store: Store) {
    assert_eq!(store.ip_addresses().await.unwrap(), IpAddresses::default());
    assert_eq!(store.ip_addresses_revision().await.unwrap(), 0);
    founded(&store).await;
    let stranger = store.report_ip_addresses(Uuid::from_u128(9), json!({}));
    assert_eq!(stranger.await, Err(StoreError::NotFound));

    let told = json!({"first": ["192.0.2.1"], "planned": []});
    store.report_ip_addresses(NODE, told.clone()).await.unwrap();
    let text = json!("of the command line");
    let contributed = store.contribute_ip_addresses("control", text.clone());
    contributed.await.unwrap();
    let there = store.ip_addresses().await.unwrap();
    let origin = format!("node/{NODE}");
    let sources = [("control".to_owned(), text), (origin, told.clone())];
    assert_eq!(there.sources, sources.clone().into());
    assert_eq!(there.revision, 2);
    // The same again is no change.
    store.report_ip_addresses(NODE, told).await.unwrap();
    assert_eq!(store.ip_addresses_revision().await.unwrap(), 2);

    // A node that does no work, or is down, keeps what it reported.
    for wanted in [Wanted::Drained, Wanted::Active] {
        store.want(&actor(), "n1", wanted).await.unwrap();
    }
    assert_eq!(store.ip_addresses().await.unwrap(), there);
    store.want(&actor(), "n1", Wanted::Removed).await.unwrap();
    let after = store.ip_addresses().await.unwrap();
    assert_eq!(after.sources, sources[..1].iter().cloned().collect());
    assert_eq!(after.revision, 3);
    let late = store.report_ip_addresses(NODE, json!(1)).await;
    assert_eq!(late, Err(StoreError::NotFound));
}

pub(crate) async fn of_many_publishers_one_writes_a_version(store: Store) {
    store
        .contribute_ip_addresses("control", json!(1))
        .await
        .unwrap();
    let mut publishers = tokio::task::JoinSet::new();
    for number in 0..8 {
        let store = store.clone();
        publishers.spawn(async move {
            let version = vec![json!({"version": number})];
            let announced = vec![json!({"coming": number})];
            let written = store.publish_ip_addresses(1, version, announced, 200);
            written.await.unwrap().then_some(number)
        });
    }
    let written: Vec<i32> = publishers.join_all().await.into_iter().flatten().collect();
    assert_eq!(written.len(), 1, "{written:?}");
    let there = store.ip_addresses().await.unwrap();
    assert_eq!(there.versions, [json!({"version": written[0]})]);
    assert_eq!(there.announced, [json!({"coming": written[0]})]);
    assert_eq!(there.revision, 2);
}

pub(crate) async fn the_newest_versions_are_kept(store: Store) {
    let numbered = |range: std::ops::Range<u64>| range.map(|it| json!(it)).collect::<Vec<Value>>();
    // Into a database in which nothing is, as an import does.
    let imported = store.publish_ip_addresses(0, numbered(0..5), Vec::new(), 4);
    assert!(imported.await.unwrap());
    let one = store.publish_ip_addresses(1, numbered(5..6), Vec::new(), 4);
    assert!(one.await.unwrap());
    let old = store.publish_ip_addresses(1, numbered(6..7), Vec::new(), 4);
    assert!(!old.await.unwrap());
    let there = store.ip_addresses().await.unwrap();
    assert_eq!(there.versions, numbered(2..6));
}

pub(crate) async fn the_first_key_is_the_key(store: Store) {
    assert_eq!(store.ip_addresses_key().await.unwrap(), None);
    let key = |number: u8| IpAddressesKey {
        public_key: format!("key {number}"),
        sealed: vec![number; 3],
    };
    for number in [1, 2] {
        let kept = store.keep_ip_addresses_key(key(number)).await.unwrap();
        assert_eq!(kept, key(1));
    }
    assert_eq!(store.ip_addresses_key().await.unwrap(), Some(key(1)));
}
