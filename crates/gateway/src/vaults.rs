//! What `{vault://…}` stands for on this machine: environment variables and files.
//!
//! Only the gateway resolves references, each time a configuration is made ready to serve; what
//! it keeps, shows and logs has the references. Source of the grammar and of the vault `env`:
//! data-plane reference 8.1. The vault `file` is ours: Kong has none.

mod named;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use sallyport_model::entities;
use sallyport_model::schema::{
    Mode, PluginSchemas, VAULTS, is_reference, resolve_references, validate,
};
use sallyport_plugins::schemas;
use serde_json::Value;
use uuid::Uuid;

pub(crate) use named::NamedVaults;

/// A secret larger than this is none.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The vaults of a gateway. Never shows what is in them.
#[derive(Clone, Default)]
pub struct Vaults(Arc<Inner>);

#[derive(Default)]
struct Inner {
    environment: BTreeMap<String, String>,
    /// What the names of variables begin with, unless a reference says otherwise.
    env_prefix: String,
    /// Where files lie.
    directory: PathBuf,
}

impl fmt::Debug for Vaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vaults").finish_non_exhaustive()
    }
}

/// A reference, taken apart: `<vault>/<resource>[/<key>][?<options>][#<version>]`.
#[derive(Debug, PartialEq, Eq)]
struct Reference<'a> {
    vault: &'a str,
    /// Parts between slashes, decoded; at least one.
    parts: Vec<String>,
    prefix: Option<String>,
    version: Option<u32>,
}

impl Reference<'_> {
    fn parse(text: &str) -> Result<Reference<'_>, String> {
        let (rest, version) = match text.rsplit_once('#') {
            Some((rest, version)) => {
                let number = version.parse().map_err(|_| "the version is no number")?;
                (rest, Some(number))
            }
            None => (text, None),
        };
        let (rest, options) = rest.split_once('?').unwrap_or((rest, ""));
        let (vault, path) = rest
            .split_once('/')
            .ok_or("expected {vault://<vault>/<name>}")?;
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let parts: Vec<String> = path.split('/').map(decoded).collect();
        if parts.iter().any(String::is_empty) {
            return Err("a name is empty".to_owned());
        }
        let mut prefix = None;
        for option in options.split('&').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("prefix", value)) => prefix = Some(decoded(value)),
                // Kong keeps values for so long; here each configuration resolves them anew
                Some(("ttl" | "neg_ttl" | "resurrect_ttl", _)) => {}
                _ => return Err(format!("the option {option:?} is unknown")),
            }
        }
        Ok(Reference {
            vault,
            parts,
            prefix,
            version,
        })
    }
}

impl Vaults {
    /// The vault `env` over these variables, whose names begin with `env_prefix`, and the vault
    /// `file` over this directory.
    pub fn new(
        environment: BTreeMap<String, String>,
        env_prefix: String,
        directory: PathBuf,
    ) -> Vaults {
        Vaults(Arc::new(Inner {
            environment,
            env_prefix,
            directory,
        }))
    }

    /// The same with the vaults of a configuration, which references name by their prefixes.
    pub(crate) fn of<'a>(&'a self, named: &'a NamedVaults) -> Resolver<'a> {
        Resolver { node: self, named }
    }

    /// What the text between `{vault://` and `}` stands for.
    ///
    /// # Errors
    /// The reason, which names variable or file and never shows a secret.
    pub(crate) fn resolve(&self, text: &str) -> Result<String, String> {
        self.of(&NamedVaults::default()).resolve(text)
    }

    /// The secret in a vault of this type.
    fn secret(&self, ty: &str, reference: &Reference<'_>) -> Result<String, String> {
        match ty {
            "env" => self.variable(reference),
            _ => self.file(reference),
        }
    }

    fn variable(&self, reference: &Reference<'_>) -> Result<String, String> {
        let (name, key) = match &reference.parts[..] {
            [name] => (name, None),
            [name, key] => (name, Some(key)),
            _ => return Err("a variable has no parts below its key".to_owned()),
        };
        let prefix = reference.prefix.as_ref().unwrap_or(&self.0.env_prefix);
        let mut variable = format!("{prefix}{name}")
            .to_ascii_uppercase()
            .replace('-', "_");
        match reference.version {
            None | Some(1) => {}
            Some(2) => variable.push_str("_PREVIOUS"),
            Some(_) => return Err("only the versions 1 and 2 are kept".to_owned()),
        }
        let value = self.0.environment.get(&variable);
        let value = value.ok_or_else(|| format!("environment variable {variable} is not set"))?;
        match key {
            None => Ok(value.clone()),
            Some(key) => member(value, key, &format!("environment variable {variable}")),
        }
    }

    /// A file below the directory; what comes behind the name of a file is a key of the JSON in
    /// it.
    fn file(&self, reference: &Reference<'_>) -> Result<String, String> {
        if reference.version.is_some_and(|version| version != 1) {
            return Err("files have no versions".to_owned());
        }
        let mut path = self.0.directory.clone();
        if let Some(prefix) = &reference.prefix {
            below(&mut path, prefix)?;
        }
        let mut parts = reference.parts.iter();
        for part in parts.by_ref() {
            below(&mut path, part)?;
            if path.is_file() {
                break;
            }
        }
        let text = read(&path)?;
        match (parts.next(), parts.next()) {
            (None, _) => Ok(text),
            (Some(key), None) => member(&text, key, &format!("file {}", path.display())),
            _ => Err("a file has no parts below its key".to_owned()),
        }
    }
}

/// The vaults of a gateway with those of one configuration.
pub(crate) struct Resolver<'a> {
    node: &'a Vaults,
    named: &'a NamedVaults,
}

impl Resolver<'_> {
    /// What the text between `{vault://` and `}` stands for.
    ///
    /// # Errors
    /// The reason, which names variable or file and never shows a secret.
    pub(crate) fn resolve(&self, text: &str) -> Result<String, String> {
        let mut reference = Reference::parse(text)?;
        if VAULTS.contains(&reference.vault) {
            return self.node.secret(reference.vault, &reference);
        }
        let vault = self.named.called(reference.vault).ok_or_else(|| {
            let prefixes = self.named.prefixes();
            let known: Vec<&str> = VAULTS.iter().copied().chain(prefixes).collect();
            format!(
                "there is no vault {:?}; possible: {}",
                reference.vault,
                known.join(", ")
            )
        })?;
        if reference.prefix.is_none() {
            reference.prefix = vault.config.prefix.clone();
        }
        let found = self.node.secret(&vault.name, &reference)?;
        if vault.config.base64_decode != Some(true) {
            return Ok(found);
        }
        let bytes = STANDARD.decode(found.trim().as_bytes()).ok();
        let decoded = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        decoded.ok_or_else(|| "what is there is no text in base64".to_owned())
    }

    /// Plugins with what their references stand for, and whether there are any.
    ///
    /// # Errors
    /// Every reference that stands for nothing, and every value that its field does not take: id
    /// and name of its plugin, and the reason with the path of the field.
    pub(crate) fn plugins<'a>(
        &self,
        plugins: &'a [entities::Plugin],
    ) -> Result<Resolved<'a>, Vec<(Uuid, String, String)>> {
        if !plugins.iter().any(|it| has_reference(&it.config)) {
            return Ok(Resolved {
                plugins: Cow::Borrowed(plugins),
                secrets: Vec::new(),
            });
        }
        let mut resolved = plugins.to_vec();
        let (mut secrets, mut bad) = (Vec::new(), Vec::new());
        for plugin in resolved.iter_mut().filter(|it| has_reference(&it.config)) {
            let Some(record) = schemas().config(&plugin.name) else {
                continue;
            };
            let from = secrets.len();
            let mut resolve = |text: &str| {
                let found = self.resolve(text)?;
                secrets.push((found.clone(), format!("{{vault://{text}}}")));
                Ok(found)
            };
            let done = resolve_references(record, &mut plugin.config, &mut resolve);
            // what a field takes was not known of a reference
            let checked = done.and_then(|_| {
                let checked = validate(record, plugin.config.take(), Mode::Payload);
                checked.map(|config| plugin.config = config)
            });
            if let Err(errors) = checked {
                let hidden = |text: String| hide(&secrets[from..], text);
                let one = |error: String| {
                    let reason = hidden(format!("config.{error}"));
                    (plugin.id, plugin.name.clone(), reason)
                };
                bad.extend(errors.iter().map(ToString::to_string).map(one));
            }
        }
        match bad.is_empty() {
            true => Ok(Resolved {
                plugins: Cow::Owned(resolved),
                secrets,
            }),
            false => Err(bad),
        }
    }

    /// Certificates with what their references stand for; `None` where there are none.
    ///
    /// # Errors
    /// Every reference that stands for nothing: id of its certificate, and the reason with the
    /// field.
    pub(crate) fn certificates(
        &self,
        certificates: &[entities::Certificate],
    ) -> Result<Option<Vec<entities::Certificate>>, Vec<(Uuid, String)>> {
        let is_plain = |certificate: &entities::Certificate| {
            let alt = [&certificate.cert_alt, &certificate.key_alt];
            let texts = [&certificate.cert, &certificate.key];
            let mut texts = texts.into_iter().chain(alt.into_iter().flatten());
            texts.all(|text| inner(text).is_none())
        };
        if certificates.iter().all(is_plain) {
            return Ok(None);
        }
        let mut resolved = certificates.to_vec();
        let mut bad = Vec::new();
        for certificate in &mut resolved {
            let id = certificate.id;
            let fields = [
                ("cert", Some(&mut certificate.cert)),
                ("key", Some(&mut certificate.key)),
                ("cert_alt", certificate.cert_alt.as_mut()),
                ("key_alt", certificate.key_alt.as_mut()),
            ];
            for (name, text) in fields {
                let Some(text) = text else { continue };
                let Some(reference) = inner(text) else {
                    continue;
                };
                match self.resolve(reference) {
                    Ok(value) => *text = value,
                    Err(reason) => {
                        bad.push((id, format!("{name}: {text} cannot be resolved: {reason}")));
                    }
                }
            }
        }
        match bad.is_empty() {
            true => Ok(Some(resolved)),
            false => Err(bad),
        }
    }
}

/// Plugins, and what their references stood for.
pub(crate) struct Resolved<'a> {
    pub(crate) plugins: Cow<'a, [entities::Plugin]>,
    /// Each secret with its reference.
    secrets: Vec<(String, String)>,
}

impl Resolved<'_> {
    /// Whether there were any references.
    pub(crate) fn has_references(&self) -> bool {
        !self.secrets.is_empty()
    }

    /// A text for people, with references in the place of secrets.
    pub(crate) fn hide(&self, text: String) -> String {
        hide(&self.secrets, text)
    }
}

fn hide(secrets: &[(String, String)], mut text: String) -> String {
    for (secret, reference) in secrets {
        if !secret.is_empty() && text.contains(secret.as_str()) {
            text = text.replace(secret.as_str(), reference);
        }
    }
    text
}

/// What stands between the braces of a reference.
pub(crate) fn inner(text: &str) -> Option<&str> {
    text.strip_prefix("{vault://")?.strip_suffix('}')
}

/// Whether any text in it is a reference.
pub(crate) fn has_reference(value: &Value) -> bool {
    match value {
        Value::String(_) => is_reference(value),
        Value::Array(list) => list.iter().any(has_reference),
        Value::Object(map) => map.values().any(has_reference),
        _ => false,
    }
}

/// Goes down, never up or elsewhere.
fn below(path: &mut PathBuf, part: &str) -> Result<(), String> {
    let plain = |component: Component<'_>| matches!(component, Component::Normal(_));
    let inside = !part.is_empty() && Path::new(part).components().all(plain);
    match inside {
        true => {
            path.push(part);
            Ok(())
        }
        false => Err(format!("{part:?} leads out of the directory of the vault")),
    }
}

fn read(path: &Path) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("file {}: {error}", path.display());
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > FILE_BYTES_MAX {
        return Err(format!("file {} has more than 1 MiB", path.display()));
    }
    let text = std::fs::read_to_string(path).map_err(failed)?;
    // editors and `echo` end a file with a line feed, which belongs to no secret
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

fn member(json: &str, key: &str, place: &str) -> Result<String, String> {
    let value: Value =
        serde_json::from_str(json).map_err(|_| format!("{place} holds no JSON object"))?;
    match &value[key] {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => Ok(number.to_string()),
        _ => Err(format!("{place} has no member {key:?} with a text")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn vaults(directory: &Path) -> Vaults {
        let environment = [
            ("REDIS_PASSWORD", "open sesame"),
            ("REDIS_PASSWORD_PREVIOUS", "older"),
            ("APP_REDIS_PASSWORD", "of the app"),
            ("ALL", r#"{"password": "of all", "port": 6379, "list": []}"#),
        ];
        let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Vaults::new(
            environment.into_iter().map(own).collect(),
            String::new(),
            directory.to_owned(),
        )
    }

    #[test]
    fn variables_and_files_are_found() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("password"), "in a file\n").unwrap();
        std::fs::create_dir(dir.path().join("redis")).unwrap();
        std::fs::write(dir.path().join("redis/json"), r#"{"password": "deep"}"#).unwrap();
        let vaults = vaults(dir.path());
        for (reference, expected) in [
            ("env/redis-password", "open sesame"),
            ("env/REDIS_PASSWORD#1", "open sesame"),
            ("env/redis-password#2", "older"),
            ("env/redis-password?prefix=app-", "of the app"),
            ("env/redis-password?prefix=app_&ttl=60", "of the app"),
            ("env/all/password", "of all"),
            ("env/all/port", "6379"),
            ("file/password", "in a file"),
            ("file/redis/json/password", "deep"),
            ("file/json/password?prefix=redis", "deep"),
        ] {
            assert_eq!(
                vaults.resolve(reference).as_deref(),
                Ok(expected),
                "{reference}"
            );
        }
        let prefixed = Vaults::new(
            vaults.0.environment.clone(),
            "app_".to_owned(),
            PathBuf::new(),
        );
        let found = prefixed.resolve("env/redis-password");
        assert_eq!(found.as_deref(), Ok("of the app"));
    }

    #[test]
    fn what_is_not_there_is_named_and_no_secret_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("password"), "s3cret").unwrap();
        let vaults = vaults(dir.path());
        for (reference, expected) in [
            ("env/none", "environment variable NONE is not set"),
            ("env/all/list", "has no member \"list\" with a text"),
            ("env/redis-password/x", "holds no JSON object"),
            ("env/redis-password#3", "only the versions 1 and 2"),
            ("env/redis-password#x", "the version is no number"),
            ("env/a?b=c", "the option \"b=c\" is unknown"),
            ("env/", "a name is empty"),
            ("env", "expected {vault://<vault>/<name>}"),
            ("hcv/a", "there is no vault \"hcv\"; possible: env, file"),
            ("file/none", "No such file"),
            ("file/../password", "leads out of the directory"),
            ("file/%2e%2e/password", "leads out of the directory"),
            ("file/%2Fetc%2Fpasswd", "leads out of the directory"),
            ("file/a?prefix=/etc", "leads out of the directory"),
            ("file/password/key", "holds no JSON object"),
        ] {
            let error = vaults.resolve(reference).unwrap_err();
            assert!(error.contains(expected), "{reference}: {error}");
            assert!(
                !error.contains("s3cret") && !error.contains("sesame"),
                "{error}"
            );
        }
        assert!(!format!("{vaults:?}").contains("sesame"));
    }

    fn vault(prefix: &str, name: &str, config: Value) -> entities::Vault {
        serde_json::from_value(serde_json::json!({
            "id": Uuid::new_v4(), "prefix": prefix, "name": name, "config": config,
        }))
        .unwrap()
    }

    #[test]
    fn vaults_of_a_configuration_are_named_by_their_prefix() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("redis")).unwrap();
        std::fs::write(dir.path().join("redis/password"), "aW4gYmFzZTY0").unwrap();
        let node = vaults(dir.path());
        let named = [
            vault("my-app", "env", serde_json::json!({"prefix": "app_"})),
            vault("plain", "env", serde_json::json!({})),
            vault(
                "redis-files",
                "file",
                serde_json::json!({"prefix": "redis", "base64_decode": true}),
            ),
            vault("b64", "env", serde_json::json!({"base64_decode": true})),
        ]
        .map(|mut vault| {
            vault.config.base64_decode = vault.config.base64_decode.or(Some(false));
            vault
        });
        let named = NamedVaults::new(&named);
        let resolver = node.of(&named);
        for (reference, expected) in [
            ("my-app/redis-password", Ok("of the app")),
            ("my-app/redis-password?prefix=", Ok("open sesame")),
            ("plain/redis-password", Ok("open sesame")),
            ("redis-files/password", Ok("in base64")),
            ("b64/redis-password", Err("no text in base64")),
            (
                "my-app/none",
                Err("environment variable APP_NONE is not set"),
            ),
            (
                "other/x",
                Err("there is no vault \"other\"; possible: env, file, b64, my-app"),
            ),
        ] {
            match (resolver.resolve(reference), expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{reference}"),
                (Err(error), Err(expected)) => assert!(error.contains(expected), "{error}"),
                (found, _) => panic!("{reference}: {found:?}"),
            }
        }
    }

    #[test]
    fn what_a_field_does_not_take_is_told_without_the_secret() {
        let node = Vaults::new(
            BTreeMap::from([("URL".to_owned(), "s3cret and no URL".to_owned())]),
            String::new(),
            PathBuf::new(),
        );
        let plugin = serde_json::json!({"id": Uuid::nil(), "name": "http-log", "enabled": true,
            "config": {"http_endpoint": "{vault://env/url}"}});
        let plugins = [serde_json::from_value(plugin).unwrap()];
        let Err(bad) = node.of(&NamedVaults::default()).plugins(&plugins) else {
            panic!("it is no URL")
        };
        assert!(bad[0].2.starts_with("config.http_endpoint: "), "{bad:?}");
        assert!(!format!("{bad:?}").contains("s3cret"), "{bad:?}");
    }

    proptest! {
        #[test]
        fn no_reference_leads_out(text in "(env|file)/[a./%2eF]{0,12}") {
            let dir = tempfile::tempdir().unwrap();
            let inside = dir.path().join("a");
            std::fs::create_dir(&inside).unwrap();
            std::fs::write(dir.path().join("e"), "outside").unwrap();
            prop_assert_ne!(vaults(&inside).resolve(&text), Ok("outside".to_owned()));
        }
    }
}
