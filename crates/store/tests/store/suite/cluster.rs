//! The appliance cluster: roster, tokens, leases and what a leader may write.

use sallyport_store::{
    Cluster, ClusterRefusal, NewCluster, NewMember, NodeRole, Step, Store, StoreError, Wanted,
};
use uuid::Uuid;

use super::{actor, taken};

fn member(number: u8) -> NewMember {
    NewMember {
        id: Uuid::from_u128(number.into()),
        name: format!("n{number}"),
        role: NodeRole::Data,
        address: format!("192.0.2.{number}:7777"),
        key_digest: [number; 32],
    }
}

/// Founds the cluster of node `n1`, whose id is 1.
pub(crate) async fn founded(store: &Store) {
    let new = NewCluster {
        cluster: Cluster {
            id: Uuid::from_u128(99),
            node_ca: "nodes".to_owned(),
            node_ca_key: vec![1, 2],
            api_ca: "api".to_owned(),
            api_ca_key: vec![3],
        },
        first: member(1),
    };
    store.found_cluster(&actor(), new.clone()).await.unwrap();
    // The answer may be lost: the same again changes nothing, another one is refused.
    store.found_cluster(&actor(), new.clone()).await.unwrap();
    let mut other = new.clone();
    other.cluster.id = Uuid::from_u128(98);
    let refused = store.found_cluster(&actor(), other).await;
    assert_eq!(refused, Err(taken("cluster", &new.cluster.id.to_string())));
    assert_eq!(store.cluster().await.unwrap(), Some(new.cluster));
}

pub(crate) async fn a_token_takes_one_node_in_and_repeats_its_answer(store: Store) {
    assert_eq!(store.cluster().await.unwrap(), None);
    founded(&store).await;
    let bad = |error| match error {
        Err(StoreError::Cluster(ClusterRefusal::BadToken(why))) => why,
        other => panic!("{other:?}"),
    };
    let join = |token: u8, new: NewMember| {
        let store = store.clone();
        async move { store.admit_node([token; 32], new).await }
    };
    assert_eq!(bad(join(1, member(2)).await), "not known here");
    let token = |token: u8, secs| {
        let store = store.clone();
        async move {
            let actor = actor();
            let made = store.create_join_token(&actor, [token; 32], NodeRole::Witness, secs);
            made.await.unwrap();
        }
    };
    token(1, 600).await;
    let clash = NewMember {
        name: "n1".to_owned(),
        ..member(2)
    };
    assert_eq!(join(1, clash).await.unwrap_err(), taken("name", "n1"));
    let clash = NewMember {
        address: "192.0.2.1:7777".to_owned(),
        ..member(2)
    };
    assert_eq!(
        join(1, clash).await.unwrap_err(),
        taken("address", "192.0.2.1:7777")
    );
    let admitted = join(1, member(2)).await.unwrap();
    assert_eq!(admitted.member.role, NodeRole::Witness);
    let again = NewMember {
        id: Uuid::from_u128(77),
        ..member(2)
    };
    assert_eq!(join(1, again).await.unwrap(), admitted);
    assert_eq!(bad(join(1, member(3)).await), "used up already");
    token(2, 0).await;
    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    assert_eq!(bad(join(2, member(3)).await), "too old");
}

pub(crate) async fn the_roster_counts_its_changes_and_frees_names_of_removed_nodes(store: Store) {
    founded(&store).await;
    let before = store.roster().await.unwrap();
    let wanted = store.want(&actor(), "n1", Wanted::Cordoned).await.unwrap();
    let after = store.roster().await.unwrap();
    assert_eq!(after.revision, before.revision + 1);
    assert_eq!(
        (wanted.wanted, wanted.wanted_at),
        (Wanted::Cordoned, after.revision)
    );
    assert_eq!(after.members, [wanted]);
    let nobody = store.want(&actor(), "n9", Wanted::Drained).await;
    assert_eq!(nobody, Err(StoreError::NotFound));

    // The later process is the node.
    let (id, first, second) = (Uuid::from_u128(1), Uuid::from_u128(11), Uuid::from_u128(12));
    store.start_node(id, first, "192.0.2.1:7777").await.unwrap();
    store.roster_for(id, first).await.unwrap();
    store
        .start_node(id, second, "192.0.2.8:7777")
        .await
        .unwrap();
    let superseded = store.roster_for(id, first).await;
    assert_eq!(superseded, Err(ClusterRefusal::Superseded.into()));
    let roster = store.roster_for(id, second).await.unwrap();
    assert_eq!(roster.members[0].address, "192.0.2.8:7777");

    store.want(&actor(), "n1", Wanted::Removed).await.unwrap();
    let started = store.start_node(id, first, "192.0.2.1:7777").await;
    assert_eq!(started, Err(StoreError::NotFound));
    let gone = store.want(&actor(), "n1", Wanted::Active).await;
    assert_eq!(gone, Err(StoreError::NotFound));
    store
        .create_join_token(&actor(), [1; 32], NodeRole::Data, 60)
        .await
        .unwrap();
    let new = NewMember {
        name: "n1".to_owned(),
        ..member(5)
    };
    store.admit_node([1; 32], new).await.unwrap();
    assert_eq!(store.roster().await.unwrap().members.len(), 2);
}

pub(crate) async fn a_lease_has_one_holder_and_fences_what_a_leader_writes(store: Store) {
    founded(&store).await;
    let [one, two] = [21, 22].map(Uuid::from_u128);
    let node = Uuid::from_u128(1);
    let first = store.lead(node, one, 60_000).await.unwrap();
    assert!(first.mine && first.epoch == 1 && first.until_us > first.now_us);
    let other = store.lead(node, two, 60_000).await.unwrap();
    assert_eq!((other.mine, other.epoch), (false, 1));
    let renewed = store.lead(node, one, 60_000).await.unwrap();
    assert_eq!((renewed.mine, renewed.epoch), (true, 1));
    let step = |epoch| Step {
        epoch,
        holder: node,
        node,
        wanted: Wanted::Drained,
        wanted_at: 1,
        outcome: "done".to_owned(),
        detail: String::new(),
        at_us: 0,
    };
    let lost = |epoch| Err(ClusterRefusal::NotLeader { epoch }.into());
    store.record_step(one, step(1)).await.unwrap();
    assert_eq!(store.record_step(two, step(1)).await, lost(1));
    assert_eq!(store.record_step(one, step(2)).await, lost(2));

    // Given back, it is taken with a new epoch; the old one is worth nothing.
    store.resign(two).await.unwrap();
    assert!(!store.lead(node, two, 60_000).await.unwrap().mine);
    store.resign(one).await.unwrap();
    assert_eq!(store.record_step(one, step(1)).await, lost(1));
    let taken = store.lead(node, two, 1).await.unwrap();
    assert_eq!((taken.mine, taken.epoch), (true, 2));
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    // Run out, it fences although nobody has taken it over.
    assert_eq!(store.record_step(two, step(2)).await, lost(2));
    let again = store.lead(node, two, 60_000).await.unwrap();
    assert_eq!((again.mine, again.epoch), (true, 3));
    assert_eq!(store.leader().await.unwrap().holder, Some(node));
    assert_eq!(store.steps(10).await.unwrap().len(), 1);
}

pub(crate) async fn of_many_who_want_to_lead_one_does(store: Store) {
    founded(&store).await;
    let mut asked = tokio::task::JoinSet::new();
    for number in 0..8u128 {
        let store = store.clone();
        asked.spawn(async move {
            let boot = Uuid::from_u128(100 + number);
            store
                .lead(Uuid::from_u128(1), boot, 60_000)
                .await
                .unwrap()
                .mine
        });
    }
    let leaders = asked.join_all().await.into_iter().filter(|mine| *mine);
    assert_eq!(leaders.count(), 1);
}
