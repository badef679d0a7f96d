//! What somebody who logs in for maintenance may ask.

/// What is to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Nothing: the menu is shown.
    Help,
    /// This program, with these arguments.
    Own(Vec<String>),
    /// A program of the system, with these arguments.
    System(&'static str, Vec<String>),
}

/// Words of the menu, what they take, and what they do.
pub const MENU: [(&str, &str, &str); 9] = [
    ("help", "", "this list"),
    ("version", "", "version of the program"),
    ("nodes", "", "the nodes of the cluster and their states"),
    (
        "doctor",
        "",
        "tries each row of the network contract from here",
    ),
    (
        "log",
        "[lines]",
        "the last lines of the service's log, 1 to 2000",
    ),
    ("disk", "", "free space"),
    ("memory", "", "free memory"),
    ("uptime", "", "load and uptime"),
    ("sockets", "", "what listens"),
];

/// The menu as text.
pub fn help() -> String {
    let row = |(word, takes, about): &(&str, &str, &str)| {
        format!("  {:<14} {about}\n", format!("{word} {takes}").trim())
    };
    let rows: String = MENU.iter().map(row).collect();
    format!("Maintenance of this node. Ask for one of:\n{rows}")
}

/// What a command line of SSH asks for. It is never given to a shell: its words are compared.
///
/// # Errors
/// It is nothing of the menu; why.
pub fn choose(asked: &str) -> Result<Choice, String> {
    let words: Vec<&str> = asked.split_whitespace().collect();
    let own = |words: &[&str]| {
        Ok(Choice::Own(
            words.iter().map(|it| (*it).to_owned()).collect(),
        ))
    };
    let system = |program, words: &[&str]| {
        let words = words.iter().map(|it| (*it).to_owned()).collect();
        Ok(Choice::System(program, words))
    };
    match words[..] {
        [] | ["help"] => Ok(Choice::Help),
        ["version"] => own(&["--version"]),
        ["nodes"] => own(&["node", "list"]),
        ["doctor"] => own(&["doctor"]),
        ["log"] => system(
            "journalctl",
            &["--no-pager", "--unit=sallyport*", "--lines=100"],
        ),
        ["log", lines] => match lines.parse::<u16>() {
            Ok(lines) if (1..=2000).contains(&lines) => {
                let lines = format!("--lines={lines}");
                system("journalctl", &["--no-pager", "--unit=sallyport*", &lines])
            }
            _ => Err("log takes 1 to 2000 lines".to_owned()),
        },
        ["disk"] => system("df", &["--human-readable", "--local"]),
        ["memory"] => system("free", &["--mebi"]),
        ["uptime"] => system("uptime", &[]),
        ["sockets"] => system("ss", &["--listening", "--numeric", "--tcp", "--udp"]),
        _ => {
            let shown: String = asked.chars().filter(|c| !c.is_control()).take(60).collect();
            Err(format!("{shown:?} is not in the menu; `help` shows it"))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_of_the_menu_are_chosen_and_nothing_else() {
        for (word, _, _) in MENU {
            choose(word).unwrap();
            assert!(help().contains(word));
        }
        assert_eq!(choose("  ").unwrap(), Choice::Help);
        assert_eq!(
            choose("version").unwrap(),
            Choice::Own(vec!["--version".to_owned()])
        );
        for bad in [
            "sh",
            "cat /etc/shadow",
            "version; id",
            "version && id",
            "log 0",
            "log 9999",
            "log -f",
            "nodes --config /x",
            "$(id)",
            "help\0",
            "-c id",
            "doctor | sh",
        ] {
            choose(bad).unwrap_err();
        }
    }

    proptest! {
        #[test]
        fn what_is_run_never_comes_from_outside(asked in any::<String>()) {
            match choose(&asked) {
                Ok(Choice::System(_, words)) | Ok(Choice::Own(words)) => {
                    for word in words {
                        prop_assert!(word.chars().all(|c| c.is_ascii_alphanumeric() || "-=*".contains(c)));
                    }
                }
                Ok(Choice::Help) | Err(_) => {}
            }
        }
    }
}
