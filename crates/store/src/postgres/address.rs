//! The address of a database: a URL as libpq takes it.

use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

/// How much of the server's certificate is checked, in the words of libpq.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verify {
    /// Nothing: `prefer`, and `require` without `sslrootcert`.
    Nothing,
    /// That an authority issued it: `verify-ca`, and `require` with `sslrootcert`.
    Issuer,
    /// Also that it is for the host: `verify-full`.
    IssuerAndName,
}

/// Where a database is and how to get in. It prints without the password.
pub(crate) struct Address {
    /// For the log-in: user, password, name of the database, session settings.
    pub(super) config: Config,
    pub(super) verify: Verify,
    /// Authorities, a file or PEM text; those of the system if there are none.
    pub(super) root: Option<String>,
    /// Certificate and key to show, files or PEM texts.
    pub(super) client: Option<(String, String)>,
    /// Hosts and name of the database, for people.
    pub(crate) shown: String,
}

impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Address").field(&self.shown).finish()
    }
}

impl Address {
    /// Reads a URL. The error says what is wrong and never repeats the URL, which may hold a
    /// password.
    pub(crate) fn parse(url: &str) -> Result<Address, String> {
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return Err("it does not begin with postgres:// or postgresql://".to_owned());
        }
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut mode, mut root, mut cert, mut key) = (None, None, None, None);
        let mut rest = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = || decoded(name, value);
            match name {
                "sslmode" => mode = Some(value()?),
                "sslrootcert" => root = Some(value()?).filter(|root| root != "system"),
                "sslcert" => cert = Some(value()?),
                "sslkey" => key = Some(value()?),
                _ => rest.push(pair),
            }
        }
        let (ssl, verify) = match mode.as_deref() {
            None | Some("prefer") => (SslMode::Prefer, Verify::Nothing),
            Some("disable") => (SslMode::Disable, Verify::Nothing),
            Some("require") if root.is_none() => (SslMode::Require, Verify::Nothing),
            Some("require" | "verify-ca") => (SslMode::Require, Verify::Issuer),
            Some("verify-full") => (SslMode::Require, Verify::IssuerAndName),
            Some(other) => {
                return Err(format!(
                    "sslmode {other:?} is not one of disable, prefer, require, verify-ca, verify-full"
                ));
            }
        };
        let client = match (cert, key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => return Err("sslcert and sslkey go together".to_owned()),
        };
        let plain = if rest.is_empty() {
            base.to_owned()
        } else {
            format!("{base}?{}", rest.join("&"))
        };
        let mut config: Config = plain
            .parse()
            .map_err(|error: tokio_postgres::Error| super::told(&error))?;
        config.ssl_mode(ssl);
        if config.get_application_name().is_none() {
            config.application_name("sallyport");
        }
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err("it names no host".to_owned());
        }
        if config.get_user().is_none() {
            return Err("it names no user".to_owned());
        }
        let shown = shown(&config);
        Ok(Address {
            config,
            verify,
            root,
            client,
            shown,
        })
    }

    /// Each host with its port, in order.
    pub(super) fn hosts(&self) -> Vec<(Host, u16)> {
        hosts(&self.config)
    }
}

fn hosts(config: &Config) -> Vec<(Host, u16)> {
    let ports = config.get_ports();
    let port = |at: usize| {
        let port = ports.get(at).or(ports.first());
        port.copied().unwrap_or(5432)
    };
    let named = config.get_hosts().iter().enumerate();
    let mut hosts: Vec<_> = named.map(|(at, host)| (host.clone(), port(at))).collect();
    if hosts.is_empty() {
        let addresses = config.get_hostaddrs().iter().enumerate();
        hosts.extend(addresses.map(|(at, ip)| (Host::Tcp(ip.to_string()), port(at))));
    }
    hosts
}

fn shown(config: &Config) -> String {
    let hosts: Vec<String> = hosts(config)
        .iter()
        .map(|(host, port)| match host {
            Host::Tcp(name) => format!("{name}:{port}"),
            Host::Unix(path) => format!("{}:{port}", path.display()),
        })
        .collect();
    let user = config.get_user().unwrap_or_default();
    let name = config.get_dbname().unwrap_or(user);
    format!("{name} at {}", hosts.join(","))
}

fn decoded(name: &str, value: &str) -> Result<String, String> {
    let text = percent_encoding::percent_decode_str(value).decode_utf8();
    let text = text.map_err(|_| format!("{name} is no UTF-8"))?;
    Ok(text.into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(url: &str, expected: Result<(&str, Verify), &str>) {
        let read = Address::parse(url);
        let read = read
            .as_ref()
            .map(|address| (address.shown.as_str(), address.verify));
        match expected {
            Ok(expected) => assert_eq!(read, Ok(expected), "{url}"),
            Err(part) => {
                let error = read.unwrap_err();
                assert!(error.contains(part), "{url}: {error}");
                assert!(!error.contains("secret"), "{url}: {error}");
            }
        }
    }

    #[test]
    fn addresses() {
        use Verify::{Issuer, IssuerAndName, Nothing};
        check(
            "postgres://me:secret@db.example/sallyport",
            Ok(("sallyport at db.example:5432", Nothing)),
        );
        check(
            "postgresql://me:secret@a:1,b:2/x?target_session_attrs=read-write&sslmode=verify-full",
            Ok(("x at a:1,b:2", IssuerAndName)),
        );
        check(
            "postgres://me@h/x?sslmode=require&sslrootcert=%2Fetc%2Fca.pem",
            Ok(("x at h:5432", Issuer)),
        );
        check(
            "postgres://me@h/x?sslmode=require",
            Ok(("x at h:5432", Nothing)),
        );
        check(
            "postgres://me@h?sslmode=verify-ca",
            Ok(("me at h:5432", Issuer)),
        );
        check(
            "postgres://me@%2Fvar%2Frun%2Fpostgresql/x",
            Ok(("x at /var/run/postgresql:5432", Nothing)),
        );
        check(
            "mysql://me:secret@h/x",
            Err("does not begin with postgres://"),
        );
        check("host=h user=me password=secret", Err("does not begin with"));
        check("postgres://me:secret@h:port/x", Err("port"));
        check(
            "postgres://me:secret@h/x?sslmode=yes",
            Err("sslmode \"yes\""),
        );
        check("postgres://me:secret@h/x?sslcert=a", Err("sslkey"));
        check("postgres://me:secret@h/x?colour=red", Err("colour"));
        check("postgres://:secret@/x", Err("it names no"));
        check("postgres://h/x", Err("it names no user"));
    }

    #[test]
    fn nothing_shows_the_password() {
        let address = Address::parse("postgres://me:secret@h/x").unwrap();
        assert_eq!(format!("{address:?}"), r#"Address("x at h:5432")"#);
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in ".{0,80}") {
            _ = Address::parse(&text);
            _ = Address::parse(&format!("postgres://{text}"));
        }
    }
}
