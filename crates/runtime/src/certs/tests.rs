use super::*;
use crate::tls::{Identity, Leaf, certificates};

fn leaf(pair: &PemPair) -> Leaf {
    Leaf::parse(&certificates(&pair.cert).unwrap()[0]).unwrap()
}

#[test]
fn a_data_plane_pair_looks_like_kongs() {
    for curve in [Curve::P256, Curve::P384] {
        let pair = data_plane_pair("kong_clustering", curve, 3 * 365).unwrap();
        let facts = leaf(&pair);
        assert_eq!(facts.common_name.as_deref(), Some("kong_clustering"));
        assert_eq!(facts.issuer, facts.common_name);
        assert!(facts.names.is_empty());
        assert_eq!(facts.not_after - facts.not_before, 3 * 365 * 86_400 + 3600);
        Identity::from_pem(&pair.cert, &pair.key).unwrap();
        assert!(
            !format!("{pair:?}").contains("PRIVATE"),
            "the key must not print"
        );
    }
}

#[test]
fn the_authority_issues_also_after_a_restart() {
    let ca = LocalCa::create("Sallyport test CA", 30).unwrap();
    let again = LocalCa::load(ca.pem().clone()).unwrap();
    for ca in [ca, again] {
        let pair = ca
            .issue_server(&["cp.example", "*.x.example", "127.0.0.1", "::1"], 9)
            .unwrap();
        let facts = leaf(&pair);
        assert_eq!(
            facts.names,
            ["cp.example", "*.x.example", "127.0.0.1", "::1"]
        );
        assert_eq!(facts.issuer.as_deref(), Some("Sallyport test CA"));
        let client = leaf(&ca.issue_client("dp-1", 9).unwrap());
        assert_eq!(
            (client.common_name.as_deref(), client.names.len()),
            (Some("dp-1"), 0)
        );
    }
}

#[test]
fn impossible_wishes_are_named() {
    #[track_caller]
    fn check(result: Result<PemPair, CertsError>, want: &str) {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }
    let ca = LocalCa::create("ca", 1).unwrap();
    check(ca.issue_server(&[] as &[&str], 1), "at least one name");
    check(
        ca.issue_server(&["b\u{e4}d.example"], 1),
        "cannot stand in a certificate",
    );
    check(data_plane_pair("", Curve::P256, 1), "1 to 64 characters");
    check(data_plane_pair("x", Curve::P256, 0), "0 days");
    check(data_plane_pair("x", Curve::P256, 40_000), "40000 days");
    let mixed = PemPair {
        cert: "no".to_owned(),
        key: ca.pem().key.clone(),
    };
    assert!(LocalCa::load(mixed).is_err());
}

#[test]
fn a_requested_certificate_has_the_names_of_the_authority_and_the_key_of_the_request() {
    let ca = LocalCa::create("Test", 30).unwrap();
    let new = NewKey::create().unwrap();
    let request = Request::parse(&new.request).unwrap();
    let digest = request.key_digest();
    let cert = ca
        .issue_requested(request, "n1", &["n1.node.sallyport"], 30)
        .unwrap();
    let identity = Identity::from_pem(&cert, &new.key).unwrap();
    assert_eq!(crate::tls::key_digest(identity.leaf()).unwrap(), digest);
    let leaf = Leaf::parse(identity.leaf()).unwrap();
    assert_eq!(leaf.names, ["n1.node.sallyport"]);
    assert_eq!(leaf.issuer.as_deref(), Some("Test"));
    assert!(Request::parse("nonsense").is_err());
    let mut broken = new.request.into_bytes();
    let middle = broken.len() - 60;
    broken[middle] = if broken[middle] == b'A' { b'B' } else { b'A' };
    assert!(Request::parse(&String::from_utf8(broken).unwrap()).is_err());
}
