//! What of a request may stand in the log: never a secret.

use uuid::Uuid;

/// Collections whose entities are looked up by a name that is itself a secret, such as an API key.
const SECRET_NAMES: [&str; 6] = [
    "key-auth",
    "key-auths",
    "jwt",
    "jwts",
    "oauth2",
    "oauth2_tokens",
];

/// Names of query arguments whose values are kept.
const PLAIN_ARGUMENTS: [&str; 9] = [
    "size", "offset", "tags", "page", "filter", "sort", "as_of", "number", "labels",
];

const HIDDEN: &str = "***";

/// A path without the names of credentials; ids stay.
pub(crate) fn path(path: &str) -> String {
    let mut hide = false;
    let parts: Vec<&str> = path
        .split('/')
        .map(|part| {
            let shown = match hide && !part.is_empty() && Uuid::try_parse(part).is_err() {
                true => HIDDEN,
                false => part,
            };
            // also where the word itself is written with escapes
            let plain = percent_encoding::percent_decode_str(part).decode_utf8_lossy();
            hide = SECRET_NAMES.contains(&plain.as_ref());
            shown
        })
        .collect();
    parts.join("/")
}

/// A query with the values of unknown arguments hidden.
pub(super) fn query(query: &str) -> String {
    let parts: Vec<String> = query
        .split('&')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let plain = name.split(['[', '%']).next().unwrap_or_default();
            match (value.is_empty(), PLAIN_ARGUMENTS.contains(&plain)) {
                (true, true) => name.to_owned(),
                // an argument without a value may be a value without a name
                (true, false) => HIDDEN.to_owned(),
                (false, true) => format!("{name}={value}"),
                (false, false) => format!("{name}={HIDDEN}"),
            }
        })
        .collect();
    parts.join("&")
}

#[cfg(test)]
mod tests {
    #[track_caller]
    fn check_path(path: &str, expected: &str) {
        assert_eq!(super::path(path), expected);
    }

    #[test]
    fn names_of_credentials_are_hidden() {
        let id = "9d21ba8a-0b05-4e7c-8a2c-cd53f5c1a8c5";
        check_path("/v2/control-planes", "/v2/control-planes");
        check_path("/c/alice/key-auth/s3cret", "/c/alice/key-auth/***");
        check_path("/c/alice/key%2Dauth/s3cret", "/c/alice/key%2Dauth/***");
        check_path("/key-auths/s3cret/", "/key-auths/***/");
        check_path("/key-auths//s3cret", "/key-auths//s3cret");
        check_path(&format!("/key-auths/{id}"), &format!("/key-auths/{id}"));
        check_path("/key-auths", "/key-auths");
    }

    #[track_caller]
    fn check_query(query: &str, expected: &str) {
        assert_eq!(super::query(query), expected);
    }

    #[test]
    fn only_known_arguments_are_shown() {
        check_query("", "");
        check_query("size=10&offset=abc", "size=10&offset=abc");
        check_query(
            "page%5Bsize%5D=5&page[number]=2",
            "page%5Bsize%5D=5&page[number]=2",
        );
        check_query("token=abc&size=1", "token=***&size=1");
        check_query("kpat_abc", "***");
        check_query("x=&size", "***&size");
    }
}
