//! The log on a disk: what a restart keeps, what damage is found, what happens when it is full.

use std::path::Path;

use rusqlite::Connection;
use sallyport_wire::audit_log::{Event, What};
use tempfile::TempDir;

use super::database::Range;
use super::error::LogFailure;
use super::log::{AuditLog, database_path, event, own};
use super::*;

fn access(request: &str) -> Event {
    event(What::Access {
        request: request.to_owned(),
        query: String::new(),
        act: "PUT".to_owned(),
        status: Some(200),
    })
}

/// A log of six records in a directory.
async fn six() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let log = AuditLog::open(directory.path()).unwrap();
    for at in 1..=6 {
        let seq = log.append(vec![access(&format!("/{at}"))]).await.unwrap();
        assert_eq!(seq, at);
    }
    log.close().await;
    directory
}

/// Changes the file behind the log's back.
fn tamper(directory: &Path, sql: &str) {
    let conn = Connection::open(database_path(directory)).unwrap();
    conn.execute_batch("DROP TRIGGER record_is_not_changed; DROP TRIGGER record_is_not_deleted;")
        .unwrap();
    conn.execute_batch(sql).unwrap();
}

#[tokio::test]
async fn a_second_start_continues_the_chain() {
    let directory = six().await;
    let log = AuditLog::open(directory.path()).unwrap();
    assert!(matches!(
        AuditLog::open(directory.path()),
        Err(AuditLogError::InUse(_))
    ));
    assert_eq!(log.append(vec![access("/7"), access("/8")]).await, Ok(8));
    let summary = verify_data(directory.path(), None).unwrap();
    assert_eq!((summary.records, summary.faults), (8, vec![]));
    log.close().await;
    assert_eq!(
        log.append(vec![access("/9")]).await,
        Err(LogFailure::Closed)
    );
}

#[tokio::test]
async fn a_log_is_not_continued_with_another_key() {
    let directory = six().await;
    let key = log::key_path(directory.path());
    let kept = std::fs::read(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    let refused = || AuditLog::open(directory.path()).err().unwrap().to_string();
    assert!(refused().contains("it is missing, although the log has records"));
    key::Key::open(&key).unwrap();
    assert!(
        refused().contains("not the key that signed"),
        "{}",
        refused()
    );
    std::fs::write(&key, kept).unwrap();
    assert!(AuditLog::open(directory.path()).is_ok());
}

#[tokio::test]
async fn records_are_neither_changed_nor_deleted_by_mistake() {
    let directory = six().await;
    let conn = Connection::open(database_path(directory.path())).unwrap();
    for sql in [
        "UPDATE record SET text = 'x'",
        "DELETE FROM record WHERE seq = 6",
    ] {
        let error = conn.execute_batch(sql).unwrap_err().to_string();
        assert!(
            error.contains("records of the audit log are not"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn every_damage_to_the_file_is_found() {
    for at in 1..=6 {
        for sql in [
            format!("DELETE FROM record WHERE seq = {at}"),
            format!("DELETE FROM record WHERE seq >= {at}"),
            format!("UPDATE record SET text = replace(text, '/{at}', '/x') WHERE seq = {at}"),
            format!("UPDATE record SET sig = zeroblob(64) WHERE seq = {at}"),
            format!(
                "UPDATE record SET (text, sig) = (SELECT text, sig FROM record WHERE seq = {})
                 WHERE seq = {at}",
                at % 6 + 1
            ),
            format!(
                "DELETE FROM record WHERE seq = {at}; UPDATE record SET seq = seq - 1 WHERE seq > {at}"
            ),
        ] {
            let directory = six().await;
            assert_eq!(verify_data(directory.path(), None).unwrap().faults, []);
            tamper(directory.path(), &sql);
            let summary = verify_data(directory.path(), None).unwrap();
            assert_ne!(summary.faults, [], "{sql}");
        }
    }
}

#[tokio::test]
async fn an_export_verifies_with_the_published_key_alone() {
    let directory = six().await;
    let jwks = key::Key::open(&log::key_path(directory.path()))
        .unwrap()
        .jwks();
    let public = public_key(&jwks.to_string()).unwrap();
    for from in [0, 1, 4, 6, 7] {
        let mut out = Vec::new();
        let count = export(directory.path(), from, &mut out).unwrap();
        assert_eq!(count, 7 - from.max(1));
        let summary = verify_export(&out[..], &public, None).unwrap();
        assert_eq!((summary.records, summary.faults), (count, vec![]));
    }
    let mut out = Vec::new();
    export(directory.path(), 1, &mut out).unwrap();
    let other = tempfile::tempdir().unwrap();
    let other = key::Key::open(&other.path().join("k")).unwrap();
    let summary = verify_export(&out[..], other.public(), None).unwrap();
    assert_eq!(summary.faults_count, 7, "every line is signed by another");
    // each line taken out, doubled, and the rest cut off
    let lines: Vec<&str> = std::str::from_utf8(&out).unwrap().lines().collect();
    for at in 0..lines.len() {
        let mut less = lines.clone();
        less.remove(at);
        let mut twice = lines.clone();
        twice.insert(at, lines[at]);
        for damaged in [less, twice, lines[..at].to_vec()] {
            let text = damaged.join("\n");
            let summary = verify_export(text.as_bytes(), &public, None).unwrap();
            assert_ne!(summary.faults, [], "{at}: {text}");
        }
    }
}

#[tokio::test]
async fn a_full_disk_is_told_and_healed_with_a_record_of_what_is_missing() {
    let directory = tempfile::tempdir().unwrap();
    let log = AuditLog::open(directory.path()).unwrap();
    log.append(vec![access("/1")]).await.unwrap();
    let limit = |pages: i64| log.write(move |tx| tx.pragma_update(None, "max_page_count", pages));
    let pages: i64 = log
        .read(|conn| conn.query_row("PRAGMA page_count", [], |row| row.get(0)))
        .await
        .unwrap();
    limit(pages).await.unwrap();
    let long = || own("Log.Test", 0, "x".repeat(2_000));
    let failure = loop {
        if let Err(failure) = log.append(vec![long()]).await {
            break failure;
        }
    };
    assert_eq!(failure, LogFailure::Full);
    assert_eq!(
        log.append(vec![long(), long()]).await,
        Err(LogFailure::Full)
    );
    limit(1_000_000).await.unwrap();
    log.ready().await.unwrap();
    let all = log.records(Range::after(0, 1_000)).await.unwrap();
    let last = &all.last().unwrap().text;
    assert!(
        last.contains("Log.Resumed") && last.contains("3 events are not in it"),
        "{last}"
    );
    log.close().await;
    assert_eq!(verify_data(directory.path(), None).unwrap().faults, []);
}

#[tokio::test]
async fn every_form_is_signed_over_what_stands_before_the_signature() {
    let directory = six().await;
    let log = AuditLog::open(directory.path()).unwrap();
    let record = log.records(Range::after(2, 1)).await.unwrap().remove(0);
    let public = log.key().public().to_vec();
    let signature = |text: &str| {
        use base64::Engine;
        let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
        engine.decode(text).unwrap()
    };
    let lines = [
        form::line(settings::Form::Cef, "sallyport.test", log.key(), &record),
        form::syslog_text(settings::Form::Cef, log.key(), &record),
    ];
    for line in lines {
        let (text, sig) = line.rsplit_once(" sig=").unwrap();
        assert!(
            key::verify(&public, text.as_bytes(), &signature(sig)),
            "{line}"
        );
    }
    let json = form::line(settings::Form::Json, "sallyport.test", log.key(), &record);
    let (text, sig) = json.split_once(",\"sig\":\"").unwrap();
    let sig = signature(sig.strip_suffix("\"}").unwrap());
    assert!(
        key::verify(&public, format!("{text}}}").as_bytes(), &sig),
        "{json}"
    );
    let cps = form::line(settings::Form::Cps, "sallyport.test", log.key(), &record);
    assert_eq!(cps, format!("{{\"event\":{json}}}"));
}
