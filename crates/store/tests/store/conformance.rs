//! What every engine of the store must do, run against each engine of this build.

use sallyport_store::Store;
use tempfile::TempDir;

/// Runs every case of the suite against fresh stores of each engine.
macro_rules! conformance {
    ($($area:ident :: $case:ident),* $(,)?) => {
        mod sqlite {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let (store, _directory) = crate::conformance::open_sqlite();
                    crate::suite::$area::$case(store).await;
                }
            )*
        }
        mod postgres {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let Some(server) = sallyport_testkit::Postgres::shared() else {
                        return;
                    };
                    let store = sallyport_store::Store::connect(&server.database()).await.unwrap();
                    crate::suite::$area::$case(store.clone()).await;
                    store.close().await;
                }
            )*
        }
    };
}

fn open_sqlite() -> (Store, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    (
        Store::open(&directory.path().join("store.sqlite")).unwrap(),
        directory,
    )
}

conformance![
    tenants::a_control_plane_is_made_found_changed_and_removed,
    tenants::names_are_unique_and_prefixes_are_ten_digits,
    tenants::a_removed_control_plane_takes_everything_but_its_log_along,
    tenants::certificates_are_pinned_once_per_control_plane,
    tenants::nodes_keep_their_first_and_their_last_contact,
    identity::tokens_are_found_by_digest_until_they_are_removed,
    identity::tokens_end_by_time_by_hand_and_with_their_owner,
    identity::people_are_added_changed_and_removed,
    identity::roles_come_from_the_holder_and_its_teams,
    identity::a_setting_is_read_back,
    drafts::a_draft_is_promoted_in_one_version,
    drafts::a_draft_that_diverged_is_refused,
    drafts::drafts_go_with_their_origin,
    drafts::a_group_serves_its_members,
    drafts::what_members_change_leads_to_what_their_group_serves,
    around::what_is_around_a_change_is_read_with_it,
    entities::a_put_is_read_back_by_id_and_by_unique_field,
    entities::a_replaced_entity_keeps_its_creation_and_loses_old_indexes,
    entities::a_put_that_changes_nothing_writes_nothing,
    entities::a_taken_value_is_refused_and_nothing_is_left_behind,
    entities::a_dangling_reference_is_refused,
    entities::deletion_restricts_and_cascades,
    entities::a_restricting_entity_that_cascades_itself_does_not_hold,
    entities::control_planes_do_not_see_each_other,
    entities::pages_cover_everything_once,
    entities::lists_filter_by_tags_and_parent,
    entities::lists_filter_by_a_part_of_a_unique_field,
    entities::the_change_log_tells_before_and_after,
    entities::watchers_hear_of_each_head,
    entities::a_snapshot_is_one_revision_under_concurrent_writes,
    model_check::random_operations_agree_with_a_map,
    writers::of_many_writers_of_one_name_exactly_one_wins,
    writers::revisions_are_given_out_without_gaps_or_doubles,
    writers::writes_that_wait_together_are_each_their_own,
    writers::a_write_goes_on_when_its_caller_is_gone,
    writers::a_replayed_write_changes_nothing,
    writers::values_of_any_length_are_unique,
    writers::a_nul_character_is_refused,
    versions::several_writes_are_one_revision_or_none,
    versions::a_batch_may_be_in_any_order,
    versions::every_past_version_is_what_it_was,
    versions::versions_are_listed_and_found_by_time,
    versions::a_restored_version_is_a_new_one,
    cluster::a_token_takes_one_node_in_and_repeats_its_answer,
    cluster::the_roster_counts_its_changes_and_frees_names_of_removed_nodes,
    cluster::a_lease_has_one_holder_and_fences_what_a_leader_writes,
    cluster::of_many_who_want_to_lead_one_does,
    ip_addresses::what_nodes_report_stays_until_they_are_removed,
    ip_addresses::of_many_publishers_one_writes_a_version,
    ip_addresses::the_newest_versions_are_kept,
    ip_addresses::the_first_key_is_the_key,
    versions::a_change_since_the_caller_looked_is_refused,
];

#[tokio::test]
async fn what_was_acknowledged_is_there_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("deep/er/store.sqlite");
    let store = Store::open(&path).unwrap();
    let cp = crate::suite::control_plane(&store, "default").await;
    let id = crate::suite::service(&store, cp, "orders").await;
    let before = store.snapshot(cp).await.unwrap();
    drop(store);

    let store = Store::open(&path).unwrap();
    assert_eq!(store.snapshot(cp).await.unwrap(), before);
    assert_eq!(
        store.watch().borrow().get(cp).unwrap().revision,
        before.revision
    );
    crate::suite::service(&store, cp, "users").await;
    store.close().await;
    let closed = store
        .get(cp, sallyport_model::Kind::Service, id)
        .await
        .unwrap_err();
    assert_eq!(closed.to_string(), "the database is closed");

    let store = Store::open(&path).unwrap();
    assert_eq!(store.revision(cp).await.unwrap(), before.revision + 1);
}

#[tokio::test]
async fn a_second_opener_is_told_who_is_in_the_way() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.sqlite");
    let _first = Store::open(&path).unwrap();
    let refused = Store::open(&path).unwrap_err().to_string();
    assert!(
        refused.contains("store.sqlite is in use by another process"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.sqlite");
    drop(Store::open(&path).unwrap());
    let conn = rusqlite::Connection::open(&path).unwrap();
    conn.pragma_update(None, "user_version", 4711).unwrap();
    drop(conn);
    let refused = Store::open(&path).unwrap_err().to_string();
    assert!(
        refused.contains("schema version 4711, this build knows up to "),
        "{refused}"
    );
}

/// A file of the first schema, in which values of any length stood in the indexes.
#[tokio::test]
async fn an_older_file_is_brought_up_to_date() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.sqlite");
    let long = "x".repeat(3_000);
    let conn = rusqlite::Connection::open(&path).unwrap();
    conn.execute_batch(include_str!("../../migrations/sqlite/0001_tables.sql"))
        .unwrap();
    let (cp, id) = (uuid::Uuid::from_u128(1), uuid::Uuid::from_u128(2));
    conn.execute(
        "INSERT INTO control_plane VALUES (1, ?1, 'old', '0123456789', '', '{}',
         '\"CLUSTER_TYPE_CONTROL_PLANE\"', '\"pinned_client_certs\"', 0, '[]', 1, 1)",
        [cp.as_bytes()],
    )
    .unwrap();
    let body = serde_json::json!({"id": id, "name": long, "created_at": 1}).to_string();
    conn.execute(
        "INSERT INTO entity VALUES (1, 1, 'services', ?1, 1, ?2)",
        (id.as_bytes(), &body),
    )
    .unwrap();
    conn.execute(
        "INSERT INTO entity_unique VALUES (1, 'services', 'name', ?1, 1)",
        [&long],
    )
    .unwrap();
    conn.execute("INSERT INTO entity_tag VALUES (1, ?1)", [&long])
        .unwrap();
    conn.execute_batch("INSERT INTO cp_head VALUES (1, 1, 0); PRAGMA user_version = 1;")
        .unwrap();
    drop(conn);
    let store = Store::open(&path).unwrap();
    let kind = sallyport_model::Kind::Service;
    let found = store.find(cp, kind, "name", &long).await.unwrap();
    assert_eq!(found.unwrap()["id"], id.to_string());
    let query = sallyport_store::ListQuery {
        size: 10,
        offset: None,
        tags: sallyport_store::Tags::All(vec![long]),
        parent: None,
        contains: None,
    };
    assert_eq!(store.list(cp, kind, query).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.sqlite");
    std::fs::write(
        &path,
        "this is a letter, not a database, and it is long enough to be read",
    )
    .unwrap();
    let refused = Store::open(&path).unwrap_err().to_string();
    assert!(refused.contains("not a database"), "{refused}");
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_can_read_the_files() {
    use std::os::unix::fs::PermissionsExt;

    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store.sqlite")).unwrap();
    crate::suite::control_plane(&store, "default").await;
    let mut seen = 0;
    for file in directory.path().read_dir().unwrap() {
        let file = file.unwrap();
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?}", file.path());
        seen += 1;
    }
    assert!(seen >= 3, "the database, its log and its lock");
}
