//! Bodies of create and update, checked field by field.

use std::collections::BTreeMap;

use sallyport_store::{ClusterType, ControlPlaneUpdate, NewControlPlane, ProxyUrl};
use serde_json::Value;

use crate::fields::{Bad, Fields};

/// Labels of one object.
const LABELS_MAX: usize = 50;

/// Label keys may not begin with these.
const RESERVED: [&str; 5] = ["kong", "konnect", "mesh", "kic", "_"];

pub(super) fn create(body: Value) -> Result<NewControlPlane, Bad> {
    let mut fields = Fields::new(body);
    let name = fields.take::<String>("name");
    if name.is_none() && fields.bad.is_empty() {
        fields.refuse("name", "is required");
    }
    let new = NewControlPlane {
        name: name.unwrap_or_default(),
        description: fields.take("description").unwrap_or_default(),
        cluster_type: fields.take("cluster_type").unwrap_or_default(),
        auth_type: fields.take("auth_type").unwrap_or_default(),
        cloud_gateway: fields.take("cloud_gateway").unwrap_or_default(),
        proxy_urls: fields.take("proxy_urls").unwrap_or_default(),
        labels: fields.take("labels").unwrap_or_default(),
    };
    check_name(&mut fields, &new.name);
    check_rest(
        &mut fields,
        Some(&new.description),
        Some(&new.labels),
        Some(&new.proxy_urls),
    );
    match new.cluster_type {
        ClusterType::ControlPlane
        | ClusterType::K8sIngressController
        | ClusterType::ControlPlaneGroup => {}
        ClusterType::Serverless | ClusterType::ServerlessV1 => {
            let reason = "gateways that the operator hosts are not part of this build";
            fields.refuse("cluster_type", reason);
        }
        ClusterType::KafkaNativeEventProxy => {
            fields.refuse("cluster_type", "event gateways are not part of this build");
        }
    }
    fields.finish(new)
}

pub(super) fn update(body: Value) -> Result<ControlPlaneUpdate, Bad> {
    let mut fields = Fields::new(body);
    let update = ControlPlaneUpdate {
        name: fields.take("name"),
        description: fields.take("description"),
        labels: fields.take("labels"),
        auth_type: fields.take("auth_type"),
        proxy_urls: fields.take("proxy_urls"),
    };
    if let Some(name) = &update.name {
        check_name(&mut fields, name);
    }
    let (labels, urls) = (update.labels.as_ref(), update.proxy_urls.as_deref());
    check_rest(&mut fields, update.description.as_deref(), labels, urls);
    fields.finish(update)
}

fn check_name(fields: &mut Fields, name: &str) {
    if !fields.refused("name") && !(2..=256).contains(&name.chars().count()) {
        fields.refuse("name", "must have 2 to 256 characters");
    }
}

fn check_rest(
    fields: &mut Fields,
    description: Option<&str>,
    labels: Option<&BTreeMap<String, String>>,
    proxy_urls: Option<&[ProxyUrl]>,
) {
    if description.is_some_and(|text| text.chars().count() > 2048) {
        fields.refuse("description", "must have at most 2048 characters");
    }
    if let Some(labels) = labels {
        check_labels(fields, labels);
    }
    let urls = proxy_urls.unwrap_or_default();
    if urls.len() > 5 {
        fields.refuse("proxy_urls", "must have at most 5 entries");
    }
    for (at, url) in urls.iter().enumerate() {
        if !(1..=120).contains(&url.host.chars().count()) {
            fields.refuse(
                format!("proxy_urls[{at}].host"),
                "must have 1 to 120 characters",
            );
        }
        if url.port == 0 {
            fields.refuse(format!("proxy_urls[{at}].port"), "must be at least 1");
        }
        if !(1..=32).contains(&url.protocol.chars().count()) {
            fields.refuse(
                format!("proxy_urls[{at}].protocol"),
                "must have 1 to 32 characters",
            );
        }
    }
}

/// Notes what is wrong with labels.
pub(crate) fn check_labels(fields: &mut Fields, labels: &BTreeMap<String, String>) {
    if labels.len() > LABELS_MAX {
        fields.refuse("labels", format!("must have at most {LABELS_MAX} entries"));
    }
    for (key, value) in labels {
        if let Err(reason) = label(key, value) {
            fields.refuse(format!("labels.{key}"), reason);
        }
    }
}

fn label(key: &str, value: &str) -> Result<(), &'static str> {
    if !(1..=63).contains(&key.chars().count()) {
        return Err("a key must have 1 to 63 characters");
    }
    if RESERVED.iter().any(|start| key.starts_with(start)) {
        return Err("a key must not start with kong, konnect, mesh, kic or _");
    }
    let end = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inner = |c: u8| c.is_ascii_alphanumeric() || b"-._".contains(&c);
    let bytes = value.as_bytes();
    let plain = bytes.iter().all(|c| inner(*c));
    if bytes.len() > 63 || !plain || !end(bytes.first().copied()) || !end(bytes.last().copied()) {
        return Err(
            "a value must have 1 to 63 letters, digits, '-', '.' or '_', \
                    a letter or digit at both ends",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(body: Value, bad: &[&str]) {
        let got = create(body).err().unwrap_or_default();
        let got: Vec<&str> = got.iter().map(|(field, _)| field.as_str()).collect();
        assert_eq!(got, bad);
    }

    #[test]
    fn every_bad_field_is_named() {
        check(json!({"name": "ok"}), &[]);
        check(
            json!({"name": "ok", "labels": {"KONGCTL-a": "b.c"}, "description": null}),
            &[],
        );
        check(json!({}), &["name"]);
        check(json!({"name": "x"}), &["name"]);
        check(json!({"name": 5}), &["name"]);
        check(
            json!({"name": "ok", "nmae": "x", "config": {}}),
            &["config", "nmae"],
        );
        check(
            json!({"name": "ok", "labels": {"kong-x": "a"}}),
            &["labels.kong-x"],
        );
        check(json!({"name": "ok", "labels": {"a": "-b"}}), &["labels.a"]);
        check(json!({"name": "ok", "labels": {"a": ""}}), &["labels.a"]);
        check(
            json!({"name": "ok", "cluster_type": "CLUSTER_TYPE_SERVERLESS"}),
            &["cluster_type"],
        );
        check(
            json!({"name": "ok", "cluster_type": "X"}),
            &["cluster_type"],
        );
        let url = json!({"host": "", "port": 0, "protocol": "http"});
        let bad = ["proxy_urls[0].host", "proxy_urls[0].port"];
        check(json!({"name": "ok", "proxy_urls": [url]}), &bad);
    }

    #[test]
    fn an_update_leaves_out_what_it_does_not_name() {
        let got = update(json!({"description": "new"})).unwrap();
        let expected = ControlPlaneUpdate {
            description: Some("new".to_owned()),
            ..Default::default()
        };
        assert_eq!(got, expected);
        assert_eq!(
            update(json!({"cluster_type": "x"})).unwrap_err()[0].0,
            "cluster_type"
        );
    }
}
