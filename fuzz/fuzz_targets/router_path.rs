//! Request paths: one normal form, and no way up or out of the request line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sallyport_gateway::fuzzing::{normalise, upstream_path};

fuzz_target!(|input: (u8, u8, bool, &str)| {
    let (base, cut, strip, raw) = input;
    if !raw.starts_with('/') || raw.contains(['?', '#']) {
        return;
    }
    let path = normalise(raw);
    assert!(path.starts_with('/') && !path.contains("//"), "{path:?}");
    assert!(
        !path
            .split('/')
            .any(|segment| segment == "." || segment == ".."),
        "{path:?}"
    );
    assert_eq!(normalise(&path), path, "the normal form is normal");
    let base = ["/", "/a", "/a/", "/a/b", "/a/b/", "/a%2Fb"][usize::from(base) % 6];
    let cut = (0..=usize::from(cut).min(path.len()))
        .rev()
        .find(|&at| path.is_char_boundary(at))
        .unwrap_or(0);
    let sent = upstream_path(base, &path, cut, strip);
    assert!(sent.starts_with('/'), "{sent:?}");
    assert!(
        sent.bytes()
            .all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte)),
        "{sent:?}"
    );
    if !strip && base == "/" {
        // what was matched is what the upstream reads
        assert_eq!(normalise(&sent), path);
    }
    if !strip {
        let climbs = sent
            .split('/')
            .any(|segment| segment == "." || segment == "..");
        assert!(!climbs, "{sent:?}");
    }
});
