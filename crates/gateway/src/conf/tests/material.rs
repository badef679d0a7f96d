use sallyport_runtime::certs::{Curve, LocalCa, data_plane_pair, self_signed_localhost};
use sallyport_runtime::tls::ServerTrust;

use super::*;

#[test]
fn all_files_of_a_data_plane_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let pair = data_plane_pair("kong_clustering", Curve::P256, 10).unwrap();
    std::fs::write(path("cluster.crt"), &pair.cert).unwrap();
    std::fs::write(path("cluster.key"), &pair.key).unwrap();
    let server = self_signed_localhost(10).unwrap();
    let file = format!(
        "role = data_plane\ndatabase = off\ncluster_cert = {}\ncluster_cert_key = {}\n",
        path("cluster.crt"),
        path("cluster.key")
    );
    let environment = [
        ("KONG_SSL_CERT", &*server.cert),
        ("KONG_SSL_CERT_KEY", &*server.key),
    ];
    let (conf, _) = load(&file, &environment).unwrap();
    assert!(
        !format!("{conf:?}").contains("PRIVATE KEY"),
        "keys must not print"
    );
    let material = Material::read(&conf).unwrap();
    assert_eq!(material.proxy.len(), 1);
    assert_eq!(
        material.admin.len(),
        1,
        "the Admin API's default listener ends TLS"
    );
    assert!(material.status.is_empty(), "no listener of it ends TLS");
    let cluster = material.cluster.unwrap();
    match cluster.trust {
        ServerTrust::Exactly(pinned) => assert_eq!(&pinned, cluster.identity.leaf()),
        ServerTrust::Roots(_) | ServerTrust::Anybody => panic!("shared mode pins"),
    }
}

#[test]
fn pki_mode_trusts_the_clusters_authority() {
    let ca = LocalCa::create("ca", 10).unwrap();
    let pair = ca.issue_client("dp", 10).unwrap();
    let environment = [
        ("KONG_ROLE", "data_plane"),
        ("KONG_DATABASE", "off"),
        ("KONG_CLUSTER_MTLS", "pki"),
        ("KONG_CLUSTER_CERT", &*pair.cert),
        ("KONG_CLUSTER_CERT_KEY", &*pair.key),
        ("KONG_CLUSTER_CA_CERT", &*ca.pem().cert),
        ("KONG_LUA_SSL_TRUSTED_CERTIFICATE", &*ca.pem().cert),
    ];
    let (conf, _) = load("", &environment).unwrap();
    match Material::read(&conf).unwrap().cluster.unwrap().trust {
        ServerTrust::Roots(roots) => assert_eq!(roots.len(), 2),
        ServerTrust::Exactly(_) | ServerTrust::Anybody => panic!("PKI mode checks chains"),
    }
}

#[test]
fn every_bad_file_is_listed() {
    let file = "role = data_plane\ndatabase = off\ncluster_cert = /no/c.crt\n\
                cluster_cert_key = /no/c.key\nssl_cert = /no/s.crt\nssl_cert_key = /no/s.key\n\
                declarative_config = /no/kong.yml\n";
    let (conf, _) = load(file, &[]).unwrap();
    let text: Vec<_> = Material::read(&conf)
        .unwrap_err()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(text.len(), 3, "{text:?}");
    assert!(
        text[0].starts_with("line 5: ssl_cert: the certificate is neither"),
        "{text:?}"
    );
    assert!(
        text[1].contains("cluster_cert") && text[1].contains("/no/c.crt"),
        "{text:?}"
    );
    assert!(
        text[2].starts_with("line 7: declarative_config: /no/kong.yml"),
        "{text:?}"
    );
}
