//! Many changes at once.

use sallyport_model::Kind;
use sallyport_store::{Actor, IfExists, Put};
use tokio::task::JoinSet;

use super::*;

#[tokio::test]
async fn a_burst_of_changes_ends_in_the_newest_configuration() {
    let lab = Lab::start().await;
    let (identity, _) = pinned(&lab).await;
    let mut socket = outlet(&lab, &identity, "3.10.0").await;
    hello(&mut socket, &[]).await;
    configuration(&mut socket).await;
    // All at once, so that the store commits them in a few lots however slow the machine is.
    let changes = 40;
    let (store, cp) = (lab.store.clone(), lab.first.control_plane.id);
    let mut writers = JoinSet::new();
    for number in 0..changes {
        let (store, id) = (store.clone(), Uuid::new_v4());
        let name = format!("s{number}");
        let put = Put {
            kind: Kind::Service,
            id,
            body: json!({"id": id, "name": name, "host": "upstream.test", "created_at": 1}),
            unique: vec![("name".to_owned(), name)],
            foreign: Vec::new(),
            tags: Vec::new(),
            if_exists: IfExists::Refuse,
        };
        let actor = Actor("test".to_owned());
        writers.spawn(async move { store.put(cp, &actor, put).await.unwrap().revision });
    }
    let newest = writers.join_all().await.into_iter().max().unwrap();
    assert!(newest >= changes as u64, "each is a revision: {newest}");
    let mut frames = 0;
    let last = loop {
        let frame = configuration(&mut socket).await;
        frames += 1;
        if names(&frame, "services").len() == changes {
            break frame;
        }
    };
    assert!(
        frames <= changes / 4,
        "{frames} frames for {changes} changes"
    );
    let path = format!("/v2/control-planes/{}/expected-config-hash", lab.cp());
    let expected = lab.api(Method::GET, &path, Value::Null).await;
    assert_eq!(expected.body["expected_hash"], last.hash().as_str());
    // and nothing of the burst follows on it
    send(&mut socket, OpCode::Ping, last.hash().as_bytes()).await;
    assert_eq!(receive(&mut socket).await, (OpCode::Pong, Vec::new()));
    lab.stop().await;
}
