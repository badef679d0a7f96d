//! Request paths: the normal form that routes match, and the path that goes upstream.

use std::borrow::Cow;

use sallyport_model::entities::PathHandling;

/// The form of a request path that routes are matched against.
///
/// Percent-encoded unreserved and other non-reserved bytes are decoded, reserved ones stay
/// encoded with upper-case hex, `.` and `..` segments are removed, repeated slashes merged.
/// Source: data-plane reference 4.5 (Kong's `kong/tools/uri.lua`).
pub(crate) fn normalise(raw: &str) -> Cow<'_, str> {
    if is_normal(raw.as_bytes()) {
        return Cow::Borrowed(raw);
    }
    Cow::Owned(remove_dots(&decode(raw.as_bytes())))
}

/// Whether there is nothing to change: no escape, no dot segment, no double slash.
fn is_normal(raw: &[u8]) -> bool {
    let mut previous = 0;
    for &byte in raw {
        if byte == b'%' || (previous == b'/' && (byte == b'/' || byte == b'.')) {
            return false;
        }
        previous = byte;
    }
    true
}

/// RFC 3986 reserved characters: an escape of one of them means something else than itself.
fn is_reserved(byte: u8) -> bool {
    b":/?#[]@!$&'()*+,;=%".contains(&byte)
}

fn decode(raw: &[u8]) -> Vec<u8> {
    let hex = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte == b'%'
            && let [high, low, tail @ ..] = tail
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            let decoded = high * 16 + low;
            rest = tail;
            if is_reserved(decoded) {
                out.extend(format!("%{decoded:02X}").bytes());
            } else {
                out.push(decoded);
            }
        } else if byte == b'%' {
            // as it stands it could become an escape together with what is decoded behind it
            out.extend_from_slice(b"%25");
        } else {
            out.push(byte);
        }
    }
    out
}

/// Whether every `%` of a raw path begins an escape, and none of them stands for a zero byte.
///
/// Others are refused, as nginx does: `%%34%31` is read as `%41` here and as `A` by whoever
/// decodes it again.
pub(crate) fn is_well_escaped(raw: &str) -> bool {
    let digit = |at: Option<&u8>| at.is_some_and(u8::is_ascii_hexdigit);
    let raw = raw.as_bytes();
    memchr::memchr_iter(b'%', raw)
        .all(|at| digit(raw.get(at + 1)) && digit(raw.get(at + 2)) && raw[at + 1..at + 3] != *b"00")
}

/// Removes dot segments and merges slashes; what cannot be text stays percent-encoded.
fn remove_dots(path: &[u8]) -> String {
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut segments = path.split(|&byte| byte == b'/').peekable();
    let mut ends_with_slash = false;
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            b"" | b"." => ends_with_slash = last,
            b".." => {
                kept.pop();
                ends_with_slash = last;
            }
            other => {
                kept.push(other);
                ends_with_slash = false;
            }
        }
    }
    let mut out = String::with_capacity(path.len());
    for segment in kept {
        out.push('/');
        for chunk in segment.utf8_chunks() {
            out.push_str(chunk.valid());
            for byte in chunk.invalid() {
                out.push_str(&format!("%{byte:02X}"));
            }
        }
    }
    if ends_with_slash || out.is_empty() {
        out.push('/');
    }
    out
}

/// The path to send upstream.
///
/// `base` is the service's path (`/` when it has none), `path` the normalised request path and
/// `matched` how many of its bytes the route matched and `strip_path` removes (0: none).
/// Source: data-plane reference 4.6.
pub(crate) fn upstream(
    handling: PathHandling,
    base: &str,
    path: &str,
    matched: usize,
    strip: bool,
) -> String {
    match handling {
        PathHandling::V0 => upstream_v0(base, path, matched, strip),
        PathHandling::V1 => upstream_v1(base, path, matched, strip),
    }
}

/// Paths are prefixes: `/s` and `/r` are `/sr`.
fn upstream_v1(base: &str, path: &str, matched: usize, strip: bool) -> String {
    let rest = match strip && matched > 0 {
        true => clean(&path[matched..]),
        false => path.strip_prefix('/').unwrap_or(path),
    };
    let base = match rest.starts_with('/') {
        true => base.strip_suffix('/').unwrap_or(base),
        false => base,
    };
    escape([base, rest].concat().into()).into_owned()
}

/// Paths are segments: `/s` and `/r` are `/s/r`.
fn upstream_v0(base: &str, path: &str, matched: usize, strip: bool) -> String {
    let mut out = String::with_capacity(base.len() + path.len() + 1);
    let open = base.strip_suffix('/');
    if strip && matched > 0 {
        let rest = clean(&path[matched..]);
        let ends_open = path.ends_with('/');
        match (open, rest) {
            (Some(_), "") if base == "/" || ends_open => out.push_str(base),
            (Some(open), "") => out.push_str(open),
            (Some(open), rest) if rest.starts_with('/') => out.extend([open, rest]),
            (None, "") => {
                out.push_str(base);
                if ends_open && path.len() > 1 {
                    out.push('/');
                }
            }
            (None, rest) if !rest.starts_with('/') => out.extend([base, "/", rest]),
            (_, rest) => out.extend([base, rest]),
        }
    } else if open.is_some() {
        out.extend([base, path.strip_prefix('/').unwrap_or(path)]);
    } else if path == "/" {
        out.push_str(base);
    } else {
        out.extend([base, path]);
    }
    escape(out.into()).into_owned()
}

/// What is left behind the cut may not climb: `/route../x` with `/route` stripped is `/x`.
fn clean(rest: &str) -> &str {
    match rest {
        "." | ".." => "",
        rest => (rest.strip_prefix("../"))
            .or_else(|| rest.strip_prefix("./"))
            .unwrap_or(rest),
    }
}

/// Which bytes may stand in a path as they are.
static PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let letter = byte as u8;
        plain[byte] = letter.is_ascii_alphanumeric()
            || matches!(
                letter,
                b'-' | b'.'
                    | b'_'
                    | b'~'
                    | b':'
                    | b'/'
                    | b'['
                    | b']'
                    | b'@'
                    | b'!'
                    | b'$'
                    | b'&'
                    | b'\''
                    | b'('
                    | b')'
                    | b'*'
                    | b'+'
                    | b','
                    | b';'
                    | b'='
                    | b'%'
            );
        byte += 1;
    }
    plain
};

/// Whether all of a path may stand in a request line as it is.
pub(crate) fn is_plain(path: &str) -> bool {
    path.bytes().all(|byte| PLAIN[usize::from(byte)])
}

/// Percent-encodes what may not stand in a path; `%` and reserved characters stay.
pub(crate) fn escape(path: Cow<'_, str>) -> Cow<'_, str> {
    if is_plain(&path) {
        return path;
    }
    let plain = |byte: u8| PLAIN[usize::from(byte)];
    let mut out = String::with_capacity(path.len() + 16);
    for byte in path.bytes() {
        if plain(byte) {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check_normal(raw: &str, expected: &str) {
        assert_eq!(normalise(raw), expected);
    }

    #[test]
    fn paths_have_one_normal_form() {
        check_normal("/", "/");
        check_normal("/a/b", "/a/b");
        check_normal("//a///b/", "/a/b/");
        check_normal("/a/./b/../c", "/a/c");
        check_normal("/../../a", "/a");
        check_normal("/a/..", "/");
        check_normal("/a/.", "/a/");
        check_normal("/%61%62", "/ab");
        check_normal("/a%2fb%2Fc", "/a%2Fb%2Fc");
        check_normal("/a%2e%2e/b", "/a../b");
        check_normal("/a/%2e%2e/b", "/b");
        check_normal("/%zz%4", "/%25zz%254");
        check_normal("/%%34%31", "/%2541");
        check_normal("/%ff", "/%FF");
        check_normal("/%E4%BD%A0", "/你");
        check_normal("/.hidden", "/.hidden");
        check_normal("/a%25b", "/a%25b");
    }

    #[test]
    fn escapes_are_whole() {
        for good in ["/", "/a%20b", "/%41%fF", "/%01"] {
            assert!(is_well_escaped(good), "{good}");
        }
        for bad in ["/%", "/%4", "/%zz", "/%%34%31", "/a%00", "/%4é"] {
            assert!(!is_well_escaped(bad), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn normalising_never_fails_and_leaves_no_way_up(raw in "/[ -~]{0,40}") {
            let normal = normalise(&raw).into_owned();
            prop_assert!(normal.starts_with('/'));
            prop_assert!(!normal.contains("//"));
            prop_assert!(!normal.split('/').any(|segment| segment == ".." || segment == "."));
        }

        #[test]
        fn upstream_paths_are_valid_targets(raw in "/\\PC{0,30}", base in "/[a-z]{0,5}/?", cut in 0usize..30, strip: bool, v1: bool) {
            let path = normalise(&raw);
            let cut = (0..=cut.min(path.len())).rev().find(|&at| path.is_char_boundary(at)).unwrap_or(0);
            let handling = if v1 { PathHandling::V1 } else { PathHandling::V0 };
            let out = upstream(handling, &base, &path, cut, strip);
            prop_assert!(out.starts_with('/'));
            prop_assert!(out.bytes().all(|byte| byte.is_ascii_graphic()));
        }
    }
}
