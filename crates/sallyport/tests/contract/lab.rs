//! A network with servers in trouble, and the doctor run on it.

use std::collections::BTreeMap;
use std::path::Path;

use rcgen::{CertificateParams, Issuer, KeyPair, date_time_ymd};
use sallyport_runtime::certs::{LocalCa, PemPair};
use sallyport_testkit::{Deadline, Finished};
use serde_json::Value;

use crate::far_end::write;
use crate::network::{FAR, Network};

pub(crate) fn sallyport() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_sallyport"))
}

/// One row of a test catalogue: id (also the host), port with transport, protocol, TLS, owner.
pub(crate) type Line = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
);

/// A catalogue with these rows, from a gateway to the control plane, each with a name of its own.
pub(crate) fn catalogue(lines: &[Line]) -> String {
    let mut text = "format = 1\nname = \"test\"\ntitle = \"Test\"\nbase = \"a.test\"\n".to_owned();
    for (id, port, protocol, tls, owner) in lines {
        let to = if *owner == "installation" {
            "control_plane"
        } else {
            "external"
        };
        let what = if *port == "icmp" {
            "icmp = true".to_owned()
        } else {
            format!("ports = [\"{port}\"]")
        };
        let more = if *tls == "mtls" {
            "certificate = \"ours\"\n"
        } else {
            ""
        };
        text.push_str(&format!(
            "[[entry]]\nid = \"{id}\"\ntitle = \"{id}\"\n{what}\nfrom = [\"gateway\"]\nto = [\"{to}\"]\n\
             protocol = \"{protocol}\"\ntls = \"{tls}\"\n{more}hosts = [\"{}.<base>\"]\nrequired = true\n\
             owner = \"{owner}\"\nwhy = \"test\"\nsource = [\"product\"]\n",
            host(id)
        ));
    }
    text
}

pub(crate) fn host(id: &str) -> String {
    id.replace('_', "-")
}

pub(crate) fn hosts(lines: &[Line]) -> String {
    lines
        .iter()
        .map(|line| format!("{FAR} {}.a.test\n", host(line.0)))
        .collect()
}

/// Certificates: `good` (all names of a.test), `expired`, `other` (other names), `self`; `ca`, `forger`.
pub(crate) fn certificates(dir: &Path) {
    let ca = LocalCa::create("The right authority", 30).unwrap();
    write(dir, "ca", ca.pem());
    write(dir, "good", &ca.issue_server(&["*.a.test"], 30).unwrap());
    write(
        dir,
        "other",
        &ca.issue_server(&["elsewhere.test"], 30).unwrap(),
    );
    write(
        dir,
        "forger",
        LocalCa::create("Example Inspection", 30).unwrap().pem(),
    );
    let pair = |cert: rcgen::Certificate, key: &KeyPair| PemPair {
        cert: cert.pem(),
        key: key.serialize_pem(),
    };
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["*.a.test".to_owned()]).unwrap();
    let own = params.self_signed(&key).unwrap();
    write(dir, "self", &pair(own, &key));
    params.not_before = date_time_ymd(2024, 1, 1);
    params.not_after = date_time_ymd(2025, 1, 1);
    let issuer =
        Issuer::from_ca_cert_pem(&ca.pem().cert, KeyPair::from_pem(&ca.pem().key).unwrap());
    write(
        dir,
        "expired",
        &pair(params.signed_by(&key, &issuer.unwrap()).unwrap(), &key),
    );
}

/// A network with the far end's servers, the catalogue as `catalogue.toml`, and certificates.
pub(crate) fn network(
    tag: &str,
    lines: &[Line],
    hosts: &str,
) -> Option<(Network, sallyport_testkit::Program)> {
    let network = Network::new(tag, hosts)?;
    certificates(network.dir.path());
    std::fs::write(network.path("catalogue.toml"), catalogue(lines)).unwrap();
    let servers = network.serve("far", "servers");
    Some((network, servers))
}

pub(crate) fn doctor(network: &Network, more: &[&str]) -> Finished {
    doctor_within("2", network, more)
}

/// With this many seconds for each step.
pub(crate) fn doctor_within(secs: &str, network: &Network, more: &[&str]) -> Finished {
    let [catalogue, ca] = ["catalogue.toml", "ca.crt"].map(|it| network.path(it));
    let args = [
        "doctor",
        "--role",
        "gateway",
        "--catalogue",
        catalogue.to_str().unwrap(),
    ];
    let args = [
        &args[..],
        &["--ca", ca.to_str().unwrap(), "--timeout", secs],
        more,
    ]
    .concat();
    network
        .program("near", sallyport(), &args)
        .run(Deadline::secs(120))
}

/// Rows by id, of `--json`.
#[track_caller]
pub(crate) fn rows(done: &Finished) -> BTreeMap<String, Value> {
    let json: Value = serde_json::from_str(&done.stdout).unwrap_or_else(|_| panic!("{done:?}"));
    assert_eq!(done.status.success(), json["ok"] == true, "{done:?}");
    let rows = json["rows"].as_array().unwrap();
    rows.iter()
        .map(|row| (row["id"].as_str().unwrap().to_owned(), row.clone()))
        .collect()
}

#[track_caller]
pub(crate) fn check(rows: &BTreeMap<String, Value>, id: &str, status: &str, parts: &[&str]) {
    let row = &rows[id];
    assert_eq!(row["status"], status, "{row:#}");
    for part in parts {
        assert!(row.to_string().contains(part), "no {part:?} in {row:#}");
    }
    let bad = !matches!(status, "open" | "unproven");
    assert_eq!(row["ok"] == false, bad, "{row:#}");
    assert_eq!(row["fix"].is_object(), bad, "{row:#}");
}
