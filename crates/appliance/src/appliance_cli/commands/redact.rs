//! Configuration without its secrets, for people who help.

/// Words in the name of a setting whose value is a secret.
const SECRET: [&str; 9] = [
    "pass",
    "secret",
    "token",
    "key",
    "credential",
    "authorization",
    "dsn",
    "database",
    "pg_",
];
/// What stands in the place of a secret.
const HIDDEN: &str = "***";

/// The text with the values of secret settings, passwords in URLs and everything between PEM marks
/// taken out. Lines stay lines. What looks like a secret goes, even if it is none.
pub fn redact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_pem = false;
    // A value of several lines, as TOML's and YAML's, ends with the next setting.
    let mut in_secret: Option<usize> = None;
    for line in text.lines() {
        if line.contains("-----BEGIN ") {
            in_pem = true;
            out.push_str("***\n");
        } else if in_pem {
            in_pem = !line.contains("-----END ");
            continue;
        } else {
            let indent = line.len() - line.trim_start().len();
            let setting = setting(line);
            match (in_secret, setting) {
                (Some(depth), None) if !line.trim().is_empty() && indent >= depth => continue,
                (Some(depth), Some(_)) if indent > depth => continue,
                _ => in_secret = None,
            }
            match setting {
                Some((name, at)) if is_secret(name) => {
                    in_secret = Some(indent);
                    out.push_str(&line[..at]);
                    out.push(' ');
                    out.push_str(HIDDEN);
                }
                _ => out.push_str(&without_passwords(line)),
            }
            out.push('\n');
        }
    }
    out
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    SECRET.iter().any(|word| name.contains(word))
}

/// The name of the setting that a line begins, and where its value stands: `name = …`, `name: …`.
fn setting(line: &str) -> Option<(&str, usize)> {
    let line_start = line.trim_start();
    if line_start.starts_with(['#', ';']) {
        // A setting that is commented out may still show its value.
        let inner = line_start.trim_start_matches(['#', ';', ' ']);
        let skipped = line.len() - inner.len();
        return setting_of(inner).map(|(name, at)| (name, skipped + at));
    }
    let skipped = line.len() - line_start.len();
    let inner = line_start.trim_start_matches("- ");
    let skipped = skipped + line_start.len() - inner.len();
    setting_of(inner).map(|(name, at)| (name, skipped + at))
}

fn setting_of(text: &str) -> Option<(&str, usize)> {
    let at = text.find(['=', ':'])?;
    let name = text[..at].trim().trim_matches(['"', '\'']);
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '$');
    (!name.is_empty() && name.chars().all(known)).then_some((name, at + 1))
}

/// `scheme://user:password@host` without the part before the `@`.
fn without_passwords(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '/' | '?'));
        let authority = &after[..end.unwrap_or(after.len())];
        match authority.rfind('@') {
            Some(mark) => {
                out.push_str(HIDDEN);
                rest = &after[mark..];
            }
            None => rest = after,
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn secrets_go_and_the_rest_stays() {
        let text = "\
listen = \"0.0.0.0:7777\"
pg_password = hunter2
# admin_token = hunter2
proxy = \"http://ann:hunter2@proxy:3128/x?y=z\"
url = https://collector.example/in
redis:
  host: r.example
  password: hunter2
  list:
    - name: a
      client_secret: |
        hunter2
        hunter2
      other: stays
api_key = \"\"\"
hunter2
\"\"\"
after = 1
-----BEGIN PRIVATE KEY-----
hunter2
-----END PRIVATE KEY-----
end = true
";
        let redacted = redact(text);
        assert!(!redacted.contains("hunter2"), "{redacted}");
        for stays in [
            "listen = \"0.0.0.0:7777\"",
            "pg_password = ***",
            "://***@proxy:3128/x?y=z",
            "https://collector.example/in",
            "host: r.example",
            "other: stays",
            "after = 1",
            "end = true",
        ] {
            assert!(
                redacted.contains(stays),
                "{stays:?} is missing:\n{redacted}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in any::<String>()) {
            _ = redact(&text);
        }

        #[test]
        fn a_secret_value_never_stays(
            before in "[a-z]{0,8}", name in "[a-z_]{0,5}(password|token|secret)", gap in "[ \t]{0,3}",
        ) {
            for mark in ['=', ':'] {
                let text = format!("{before}\n{gap}{name}{gap}{mark}{gap}hunter2{gap}\nx = 1\n");
                prop_assert!(!redact(&text).contains("hunter2"), "{}", text);
            }
        }
    }
}
