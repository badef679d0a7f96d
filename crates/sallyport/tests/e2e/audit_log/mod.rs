//! The audit log: what is recorded, what an export proves, where it goes and what comes in.

pub(crate) mod collector;
mod receive;
mod receiver;
mod records;
mod syslog;
mod webhook;

use serde_json::Value;

use crate::lab::Control;

/// Every record, in the names of the pull API, read page by page.
#[track_caller]
fn pulled(control: &Control, filter: &str) -> Vec<Value> {
    let mut all = Vec::new();
    let mut path = format!("/v3/audit-logs?page[size]=50{filter}");
    loop {
        let answer = control.api("GET", &path, &Value::Null);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let page = answer.json();
        all.extend(page["data"].as_array().unwrap().iter().cloned());
        match page["meta"]["page"]["next"].as_str() {
            Some(next) => path = next.to_owned(),
            None => return all,
        }
    }
}

/// Number of the newest record.
#[track_caller]
fn newest(control: &Control) -> u64 {
    pulled(control, "").last().unwrap()["seq"].as_u64().unwrap()
}

/// Makes changes: services of these names.
#[track_caller]
fn change(control: &Control, names: impl IntoIterator<Item = String>) {
    for name in names {
        let service = serde_json::json!({"host": "127.0.0.1", "port": 1});
        control.put(&format!("services/{name}"), &service);
    }
}
