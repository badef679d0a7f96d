//! README: its two commands exist, and no page links to a page that does not.

use std::path::{Path, PathBuf};

use sallyport_testkit::Program;
use serde_json::Value;

use crate::lab::{has_all, sallyport, soon};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

fn page(name: &str) -> String {
    let path = root().join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_two_commands_are_there_and_mean_something() {
    let readme = page("README.md");
    let quickstart = readme.find("cargo run --release -- quickstart");
    let test = readme.find("cargo test --workspace");
    assert!(
        quickstart.is_some() && quickstart < test,
        "quickstart comes first"
    );
    sallyport()
        .args(["quickstart", "--help"])
        .run(soon())
        .success();

    // `cargo run` without `--bin` works only while the default members have one executable.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let metadata = Program::new(cargo)
        .args([
            "metadata",
            "--no-deps",
            "--offline",
            "--format-version",
            "1",
        ])
        .dir(root())
        .run(soon())
        .success();
    let metadata: Value = serde_json::from_str(&metadata.stdout).unwrap();
    let default = metadata["workspace_default_members"].as_array().unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let targets = packages
        .iter()
        .filter(|package| default.contains(&package["id"]))
        .flat_map(|package| package["targets"].as_array().unwrap());
    let programs: Vec<_> = targets
        .filter(|target| target["kind"].as_array().unwrap().contains(&"bin".into()))
        .map(|target| target["name"].as_str().unwrap())
        .collect();
    assert_eq!(programs, ["sallyport"]);
}

#[test]
fn the_commands_that_pages_show_exist() {
    let help = sallyport().arg("--help").run(soon()).success().stdout;
    has_all(
        &help,
        &["quickstart", "gateway", "control", "certs", "ports"],
    );
    let readme = page("README.md");
    let shown: Vec<&str> = readme
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("sallyport "))
        .filter_map(|rest| rest.split_whitespace().next())
        .filter(|word| !word.starts_with('-'))
        .collect();
    assert!(!shown.is_empty(), "README shows no command");
    for command in shown {
        sallyport().args([command, "--help"]).run(soon()).success();
    }
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut pages = vec![
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "GLOSSARY.md",
    ]
    .into_iter()
    .map(PathBuf::from)
    .collect::<Vec<_>>();
    for dir in ["docs", "docs/plugins"].map(Path::new) {
        let entries = std::fs::read_dir(root().join(dir)).unwrap();
        let files = entries.map(|entry| dir.join(entry.unwrap().file_name()));
        pages.extend(files.filter(|file| root().join(file).is_file()));
    }
    let mut links = 0;
    for name in pages {
        let text = page(&name.display().to_string());
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split(')').next().unwrap();
            let file = target.split('#').next().unwrap();
            if file.is_empty() || file.contains("://") {
                continue;
            }
            links += 1;
            let path = root().join(name.parent().unwrap()).join(file);
            assert!(
                path.exists(),
                "{} links to {target}, which is not there",
                name.display()
            );
        }
    }
    assert!(links > 0, "no links at all");
}
