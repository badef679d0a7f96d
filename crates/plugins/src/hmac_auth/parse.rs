//! The value of an `Authorization` header with an HMAC signature.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::auth::after_scheme;

/// What a client says about its signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parameters<'a> {
    pub(crate) username: &'a str,
    pub(crate) algorithm: &'a str,
    /// Names of what is signed, one space between each two.
    pub(crate) headers: &'a str,
    /// In base64.
    signature: &'a str,
}

impl<'a> Parameters<'a> {
    /// Reads `hmac username="…", algorithm="…", headers="…", signature="…"`: each parameter once,
    /// in any order.
    pub(crate) fn parse(value: &'a [u8]) -> Option<Parameters<'a>> {
        let rest = after_scheme(value, "hmac")?;
        let mut rest = std::str::from_utf8(rest).ok()?.trim_ascii_end();
        let [mut username, mut algorithm, mut headers, mut signature] = [None; 4];
        loop {
            let (name, after) = rest.split_once("=\"")?;
            let (value, after) = after.split_once('"')?;
            let slot = match name {
                "username" => &mut username,
                "algorithm" => &mut algorithm,
                "headers" => &mut headers,
                "signature" => &mut signature,
                _ => return None,
            };
            if slot.replace(value).is_some() || value.is_empty() {
                return None;
            }
            if after.is_empty() {
                break;
            }
            rest = after.strip_prefix(',')?.trim_ascii_start();
        }
        Some(Parameters {
            username: username?,
            algorithm: algorithm?,
            headers: headers?,
            signature: signature?,
        })
    }

    /// The signature's bytes.
    pub(crate) fn signature(&self) -> Option<Vec<u8>> {
        const LENIENT: GeneralPurpose = GeneralPurpose::new(
            &alphabet::STANDARD,
            GeneralPurposeConfig::new()
                .with_decode_padding_mode(DecodePaddingMode::Indifferent)
                .with_decode_allow_trailing_bits(true),
        );
        LENIENT.decode(self.signature).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(value: &str, expected: Option<[&str; 4]>) {
        let found = Parameters::parse(value.as_bytes());
        let found = found.map(|p| [p.username, p.algorithm, p.headers, p.signature]);
        assert_eq!(found, expected, "{value}");
    }

    #[test]
    fn four_parameters_are_read() {
        let all = Some(["bob", "hmac-sha256", "date host", "c2ln"]);
        let good = r#"hmac username="bob", algorithm="hmac-sha256", headers="date host", signature="c2ln""#;
        check(good, all);
        check(&good.replace("hmac u", " HMAC u"), all);
        check(&good.replace(", ", ","), all);
        let turned =
            r#"hmac signature="c2ln",headers="date host",username="bob",algorithm="hmac-sha256""#;
        check(turned, all);
        for bad in [
            "",
            "hmac",
            "hmac username=\"bob\"",
            "Basic dXNlcg==",
            &good.replace("username", "user"),
            &good.replace("bob", ""),
            &good.replace("bob\",", "bob\""),
            &good.replace("algorithm=\"hmac-sha256\"", "username=\"eve\""),
            &good[..good.len() - 1],
            &format!("{good}, username=\"eve\""),
            &format!("{good},"),
            &format!("{good} x"),
        ] {
            check(bad, None);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Parameters::parse(&bytes);
            let value = [b"hmac username=\"", &bytes[..], b"\",headers=\""].concat();
            let _ = Parameters::parse(&value);
        }

        #[test]
        fn what_was_written_is_read(words in proptest::array::uniform4("[a-z0-9 =@+/-]{1,12}")) {
            let [user, algorithm, headers, signature] = &words;
            let value = format!(
                "hmac username=\"{user}\", algorithm=\"{algorithm}\", headers=\"{headers}\", \
                 signature=\"{signature}\""
            );
            let found = Parameters::parse(value.as_bytes()).unwrap();
            prop_assert_eq!(
                [found.username, found.algorithm, found.headers, found.signature],
                [user.as_str(), algorithm, headers, signature]
            );
        }
    }
}
