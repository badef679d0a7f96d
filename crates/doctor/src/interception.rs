//! Whether somebody in between ends the TLS.

use std::collections::{BTreeMap, BTreeSet};

use sallyport_contract::Owner;

use crate::check::{Check, Target};
use crate::judge::{Fix, Status};
use crate::report::Outcome;
use crate::seen::{CertFault, Shown};

/// Words in the issuer's name of products that inspect TLS. A certificate of a service itself is
/// never issued by one of them, so they tell it even where their authority is trusted.
const PRODUCTS: [&str; 26] = [
    "avast",
    "barracuda",
    "blue coat",
    "bluecoat",
    "burp",
    "charles proxy",
    "check point",
    "cisco umbrella",
    "do_not_trust",
    "eset ssl filter",
    "fiddler",
    "forcepoint",
    "fortinet",
    "fortigate",
    "kaspersky",
    "mcafee web gateway",
    "mitmproxy",
    "netskope",
    "palo alto networks",
    "portswigger",
    "skyhigh",
    "sonicwall",
    "sophos",
    "squid",
    "watchguard",
    "zscaler",
];

/// Who intercepts, if somebody does for certain; the issuer's name.
///
/// Signs: a product that inspects TLS issued the certificate; or it is for the right name, valid, and
/// by an authority that cannot be the right one: the row's certificate is pinned, or the far end is a
/// public service. A self-signed certificate is a service's own.
pub(crate) fn by(check: &Check, shown: &Shown) -> Option<String> {
    let issuer = shown.issuer.to_ascii_lowercase();
    if PRODUCTS.iter().any(|product| issuer.contains(product)) {
        return Some(shown.issuer.clone());
    }
    let public = matches!(check.owner, Owner::Vendor | Owner::ThirdParty);
    let cannot_be = match shown.fault {
        Some(CertFault::UnknownIssuer) => public || check.issuer_known,
        Some(CertFault::NotPinned) => true,
        _ => false,
    };
    let made_up = cannot_be && shown.name_fits && !shown.self_signed;
    made_up.then(|| shown.issuer.clone())
}

/// What only all rows together tell: one untrusted authority for names of different domains is an
/// interceptor.
pub fn across(outcomes: &mut [Outcome]) {
    let mut domains: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for outcome in outcomes.iter() {
        if let (Some(issuer), Some(domain)) = (&outcome.untrusted_issuer, domain(&outcome.check)) {
            domains.entry(issuer.clone()).or_default().insert(domain);
        }
    }
    for outcome in outcomes {
        let Some(issuer) = &outcome.untrusted_issuer else {
            continue;
        };
        let several = domains.get(issuer).is_some_and(|it| it.len() > 1);
        if several && outcome.verdict.status == Status::Wrong {
            outcome.verdict.status = Status::Intercepted;
            outcome.verdict.seen = format!(
                "TLS is intercepted: {issuer} issued the certificates of unrelated names, {} too",
                outcome.check.target
            );
            outcome.verdict.fix = Some(Fix {
                ask: "whoever runs TLS inspection".to_owned(),
                what: format!("exempt {} from inspection", outcome.check.target),
                rule: None,
            });
        }
    }
}

/// The last two labels of the name.
fn domain(check: &Check) -> Option<String> {
    let Target::Name(name) = &check.target else {
        return None;
    };
    let mut labels = name.rsplit('.');
    let (last, second) = (labels.next()?, labels.next()?);
    Some(format!("{second}.{last}").to_ascii_lowercase())
}
