//! What clients prove themselves with: tokens, `Authorization` headers, session cookies.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sallyport_plugins::fuzzing::{basic, hmac, jwt, session};

fuzz_target!(|input: &[u8]| {
    if let Ok(text) = std::str::from_utf8(input)
        && let Some(signed) = jwt(text)
    {
        // what is verified is what the client sent, up to the signature
        let rest = text.strip_prefix(&signed).expect("a part of the token");
        assert!(rest.starts_with('.'), "{text:?}");
        assert_eq!(signed.matches('.').count(), 1);
    }
    if let Some([user, algorithm, headers]) = hmac(input) {
        assert!(!user.is_empty() && !algorithm.is_empty() && !headers.is_empty());
        let written = format!(
            "hmac headers=\"{headers}\",username=\"{user}\",algorithm=\"{algorithm}\",signature=\"c2ln\""
        );
        assert_eq!(
            hmac(written.as_bytes()),
            Some([user, algorithm, headers]),
            "what was read is read the same"
        );
    }
    if let Some((name, _)) = basic(input) {
        assert!(!name.is_empty() && !name.contains(&b':'));
    }
    assert!(!session(input), "nobody knows the secret");
});
