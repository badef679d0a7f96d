//! Types of content, with parameters: which responses are stored.

/// `type/subtype; name=value`, in lower case except for values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MediaType {
    main: String,
    sub: String,
    /// Sorted by name.
    params: Vec<(String, String)>,
}

impl MediaType {
    /// Reads a media type; `None` if it is none. Source: RFC 2045.
    pub(super) fn parse(text: &str) -> Option<MediaType> {
        let mut parts = text.split(';');
        let essence = parts.next()?.trim().to_ascii_lowercase();
        let (main, sub) = match essence.split_once('/') {
            None if essence == "*" => ("*", "*"),
            None => return None,
            Some(parts) => parts,
        };
        let mut params = Vec::new();
        for part in parts {
            let (name, value) = part.split_once('=')?;
            let (name, value) = (name.trim(), value.trim());
            let value = match value.strip_prefix('"') {
                Some(quoted) => quoted.strip_suffix('"')?,
                None => value,
            };
            params.push((name.to_ascii_lowercase(), value.to_owned()));
        }
        params.sort();
        let good = is_token(main) && is_token(sub) && params.iter().all(|(name, _)| is_token(name));
        good.then(|| MediaType {
            main: main.to_owned(),
            sub: sub.to_owned(),
            params,
        })
    }

    /// Whether a response of type `other` is meant; `*` stands for any type or subtype, parameters
    /// are the same.
    pub(super) fn means(&self, other: &MediaType) -> bool {
        let part = |own: &str, other: &str| own == "*" || own == other;
        part(&self.main, &other.main) && part(&self.sub, &other.sub) && self.params == other.params
    }
}

fn is_token(text: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(good)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(configured: &str, sent: &str, expected: bool) {
        let parse = |text| MediaType::parse(text).unwrap();
        assert_eq!(
            parse(configured).means(&parse(sent)),
            expected,
            "{configured} {sent}"
        );
    }

    #[test]
    fn types_match_with_their_parameters() {
        check("application/json", "Application/JSON", true);
        check("application/json", "application/json; charset=utf-8", false);
        check(
            "application/json; charset=UTF-8",
            "application/json; charset=utf-8",
            false,
        );
        check("a/b; x=1; y=\"2\"", "a/b;Y=2;X=1", true);
        check("application/*", "application/json", true);
        check("*/*", "a/b", true);
        check("*", "a/b", true);
        check("*/json", "text/json", true);
        check("text/*", "application/json", false);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "([a-z*]|/|;|=|\"|é| ){0,12}") {
            if let Some(parsed) = MediaType::parse(&text) {
                prop_assert!(parsed.means(&parsed));
            }
        }
    }
}
