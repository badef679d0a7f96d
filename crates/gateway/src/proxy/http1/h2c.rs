//! Offers to go on with cleartext HTTP/2 (RFC 7540 section 3.2, which RFC 9113 has taken back).
//!
//! Nobody here takes them up, and neither `Upgrade` nor `HTTP2-Settings` reaches an upstream. An offer as it
//! should be is ignored (RFC 9110 section 7.8), since Java's client makes one by default. One that is not is a
//! probe for proxies that pass it on, and refused.

use http::HeaderName;
use http::header::{CONNECTION, UPGRADE};
use sallyport_plugins::Fields;

use crate::proxy::headers::contains_token;

const SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
/// Characters of one setting in base64url: six bytes.
const SETTING_CHARACTERS: usize = 8;

/// Whether a request offers no `h2c`, or offers it as RFC 7540 section 3.2 says: alone, with settings
/// once, both listed in `Connection`.
pub(super) fn is_well_offered(headers: &Fields) -> bool {
    let offers = || headers.get_all(&UPGRADE);
    if !offers().any(|offer| contains_token(offer, "h2c")) {
        return true;
    }
    let alone = offers().count() == 1 && offers().all(|it| it.eq_ignore_ascii_case(b"h2c"));
    let listed = |token| {
        headers
            .get_all(&CONNECTION)
            .any(|line| contains_token(line, token))
    };
    let name = SETTINGS;
    let mut settings = headers.get_all(&name);
    let settings = match (settings.next(), settings.next()) {
        (Some(settings), None) => settings,
        _ => return false,
    };
    let is_base64url = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    alone
        && listed("upgrade")
        && listed("http2-settings")
        && settings.len() % SETTING_CHARACTERS == 0
        && settings.iter().all(is_base64url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_offers_are_passed_over() {
        let both = ("connection", "Upgrade, HTTP2-Settings");
        let settings = ("http2-settings", "AAMAAABkAAQAAP__");
        let h2c = ("upgrade", "h2c");
        for (lines, well) in [
            (&[][..], true),
            (&[("connection", "Upgrade"), ("upgrade", "websocket")], true),
            (&[both, h2c, settings], true),
            (
                &[
                    ("connection", "upgrade"),
                    ("connection", "http2-settings"),
                    h2c,
                    settings,
                ],
                true,
            ),
            (&[both, ("upgrade", "H2C"), ("http2-settings", "")], true),
            (&[both, h2c], false),
            (&[both, h2c, settings, settings], false),
            (&[both, h2c, h2c, settings], false),
            (&[("connection", "Upgrade"), h2c, settings], false),
            (&[("connection", "HTTP2-Settings"), h2c, settings], false),
            (&[both, ("upgrade", "websocket, h2c"), settings], false),
            (&[both, h2c, ("http2-settings", "AAMAAABkAAQAAP_")], false),
            (&[both, h2c, ("http2-settings", "AAMAAABkAAQAAP/=")], false),
        ] {
            let mut fields = Fields::new();
            for (name, value) in lines {
                fields.append(&name.parse().unwrap(), &value.parse().unwrap());
            }
            assert_eq!(is_well_offered(&fields), well, "{lines:?}");
        }
    }
}
