//! Maintenance over the system's own OpenSSH, on port 22: what it needs is written here, pure text
//! from typed settings; an SSH server of our own there is not.
//!
//! One account may log in by key only, from the addresses that belong to the key, and gets nothing
//! but a menu of commands. See `docs/maintenance.md`.

mod card;
mod menu;

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;

pub use card::{Card, CardError, PublicKey};
pub use menu::{Choice, MENU, choose, help};

/// What is to be written.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The account that maintenance logs in to.
    pub user: String,
    /// The executable, for the forced command.
    pub executable: PathBuf,
    /// Where the files are on the node.
    pub directory: PathBuf,
    /// The other nodes.
    pub nodes: Vec<Card>,
    /// Keys of people, who come by way of a jump host.
    pub people: Vec<PublicKey>,
    /// Addresses of jump hosts.
    pub jump_hosts: Vec<IpAddr>,
    /// The port of the nodes' SSH servers.
    pub port: u16,
}

/// The files by name, all below [`Setup::directory`] but for the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// For `sshd_config.d`.
    pub sshd: String,
    /// Which keys may log in, from where.
    pub authorized_keys: String,
    /// The host keys of the other nodes.
    pub known_hosts: String,
    /// For `ssh -F`: how this node reaches the others.
    pub ssh: String,
}

/// Settings that make no sense together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// People have keys, and no jump host has an address.
    #[error("keys of people need the address of a jump host: --jump-host")]
    NoJumpHost,
    /// A name that cannot stand in OpenSSH's files.
    #[error("{0:?} cannot be the name of an account: lower-case letters, digits, _ and -")]
    User(String),
    /// A path that cannot stand there unquoted.
    #[error("the path {} has a character that OpenSSH's files do not take", .0.display())]
    Path(PathBuf),
}

impl Setup {
    /// The files.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub fn files(&self) -> Result<Files, SetupError> {
        let known =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
        let user_is_plain = !self.user.is_empty()
            && self.user.chars().all(known)
            && !self.user.starts_with('-')
            && self.user.len() <= 32;
        if !user_is_plain {
            return Err(SetupError::User(self.user.clone()));
        }
        for path in [&self.executable, &self.directory] {
            let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
            if !path.to_str().is_some_and(|path| path.chars().all(plain)) {
                return Err(SetupError::Path(path.clone()));
            }
        }
        if !self.people.is_empty() && self.jump_hosts.is_empty() {
            return Err(SetupError::NoJumpHost);
        }
        Ok(Files {
            sshd: self.sshd(),
            authorized_keys: self.authorized_keys(),
            known_hosts: self.known_hosts(),
            ssh: self.ssh(),
        })
    }

    /// The command that every login gets.
    fn forced(&self) -> String {
        format!("{} maintenance menu", self.executable.display())
    }

    fn sshd(&self) -> String {
        let (user, directory) = (&self.user, self.directory.display());
        let forced = self.forced();
        // Root is an account like another, where somebody chose it: with forced commands only.
        let root = match user.as_str() {
            "root" => "    PermitRootLogin forced-commands-only\n",
            _ => "",
        };
        format!(
            "# Written by `sallyport maintenance setup`; it writes this file anew.\n\
             Match User {user}\n{root}    \
             AuthenticationMethods publickey\n    \
             AuthorizedKeysFile {directory}/authorized_keys\n    \
             AuthorizedKeysCommand none\n    \
             TrustedUserCAKeys none\n    \
             RevokedKeys {directory}/revoked.krl\n    \
             PasswordAuthentication no\n    \
             KbdInteractiveAuthentication no\n    \
             ForceCommand {forced}\n    \
             DisableForwarding yes\n    \
             PermitTTY no\n    \
             PermitUserRC no\n    \
             PermitTunnel no\n    \
             MaxSessions 2\n    \
             ClientAliveInterval 30\n    \
             ClientAliveCountMax 3\n\
             Match all\n"
        )
    }

    fn authorized_keys(&self) -> String {
        let mut text =
            "# Written by `sallyport maintenance setup`; it writes this file anew.\n".to_owned();
        let forced = self.forced();
        let mut line = |from: &str, key: &PublicKey| {
            _ = writeln!(text, "restrict,from=\"{from}\",command=\"{forced}\" {key}");
        };
        for node in &self.nodes {
            line(&node.address.to_string(), &node.user_key);
        }
        let jump_hosts: Vec<String> = self.jump_hosts.iter().map(IpAddr::to_string).collect();
        for person in &self.people {
            line(&jump_hosts.join(","), person);
        }
        text
    }

    fn known_hosts(&self) -> String {
        let mut text = String::new();
        for node in &self.nodes {
            let (name, address) = (&node.name, node.address);
            let host = |name: String| match self.port {
                22 => name,
                port => format!("[{name}]:{port}"),
            };
            let names = [host(name.clone()), host(address.to_string())].join(",");
            _ = writeln!(text, "{names} {}", node.host_key);
        }
        text
    }

    fn ssh(&self) -> String {
        let (user, directory, port) = (&self.user, self.directory.display(), self.port);
        let mut text =
            "# Written by `sallyport maintenance setup`; it writes this file anew.\n".to_owned();
        for node in &self.nodes {
            let (name, address) = (&node.name, node.address);
            _ = writeln!(text, "Host {name}\n    HostName {address}");
        }
        _ = write!(
            text,
            "Host *\n    \
             User {user}\n    \
             Port {port}\n    \
             IdentityFile {directory}/id_ed25519\n    \
             IdentitiesOnly yes\n    \
             UserKnownHostsFile {directory}/known_hosts\n    \
             GlobalKnownHostsFile none\n    \
             StrictHostKeyChecking yes\n    \
             BatchMode yes\n    \
             ConnectTimeout 10\n    \
             ForwardAgent no\n"
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIO6bO5Zl0O0o0o0o0o0o0o0o0o0o0o0o0o0o0o0o0o0o";

    fn setup() -> Setup {
        let card = format!("n2 10.0.0.2 {KEY} {KEY}");
        Setup {
            user: "sallyport".to_owned(),
            executable: "/usr/bin/sallyport".into(),
            directory: "/etc/ssh/sallyport".into(),
            nodes: vec![card.parse().unwrap()],
            people: vec![format!("{KEY} ann@laptop").parse().unwrap()],
            jump_hosts: vec!["192.0.2.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            port: 22,
        }
    }

    #[test]
    fn each_key_has_its_addresses_and_the_menu() {
        let files = setup().files().unwrap();
        let lines: Vec<&str> = files.authorized_keys.lines().skip(1).collect();
        let menu = "command=\"/usr/bin/sallyport maintenance menu\"";
        assert_eq!(lines[0], format!("restrict,from=\"10.0.0.2\",{menu} {KEY}"));
        assert_eq!(
            lines[1],
            format!("restrict,from=\"192.0.2.1,fd00::1\",{menu} {KEY} ann@laptop")
        );
        assert_eq!(files.known_hosts, format!("n2,10.0.0.2 {KEY}\n"));
        for part in [
            "ForceCommand /usr/bin/sallyport maintenance menu",
            "PermitTTY no",
            "RevokedKeys",
        ] {
            assert!(files.sshd.contains(part), "{part}");
        }
        assert!(files.ssh.contains("Host n2\n    HostName 10.0.0.2\n"));
        let other = Setup {
            port: 2222,
            ..setup()
        };
        let known = other.files().unwrap().known_hosts;
        assert!(known.starts_with("[n2]:2222,[10.0.0.2]:2222 "), "{known}");
    }

    #[test]
    fn what_would_break_the_files_is_refused() {
        let refused = |setup: Setup| setup.files().unwrap_err();
        let none = Setup {
            jump_hosts: Vec::new(),
            ..setup()
        };
        assert_eq!(refused(none), SetupError::NoJumpHost);
        for user in ["", "a b", "a\nb", "-a", "Ann"] {
            let bad = Setup {
                user: user.to_owned(),
                ..setup()
            };
            assert!(matches!(refused(bad), SetupError::User(_)), "{user:?}");
        }
        for path in ["/a b", "/a\"b", "/a\nb"] {
            let bad = Setup {
                executable: path.into(),
                ..setup()
            };
            assert!(matches!(refused(bad), SetupError::Path(_)), "{path:?}");
        }
    }
}
