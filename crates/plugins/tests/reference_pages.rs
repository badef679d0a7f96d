//! `docs/plugins.md` and `docs/plugins/<name>.md` say what the schemas say.
//!
//! `UPDATE_DOCS=1 cargo test -p sallyport-plugins --test reference_pages` writes them.

#![allow(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use sallyport_plugins::{ALL, page, table};

const BEGIN: &str = "<!-- plugins: written by a test, see CONTRIBUTING.md -->\n";
const END: &str = "<!-- end of plugins -->\n";

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

/// The file has this text, or gets it where the caller asked for that.
#[track_caller]
fn check(path: &Path, expected: &str) {
    let found = std::fs::read_to_string(path).unwrap_or_default();
    if found == expected {
        return;
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, expected).unwrap();
        return;
    }
    let name = path.file_name().unwrap().display();
    panic!("docs: {name} is stale; run this test with UPDATE_DOCS=1 and look at the change");
}

#[test]
fn each_plugin_has_its_page() {
    for plugin in ALL {
        let name = plugin.name();
        assert!(!plugin.summary().is_empty(), "{name}");
        check(&docs().join(format!("plugins/{name}.md")), &page(*plugin));
    }
}

#[test]
fn no_page_is_left_over() {
    let names: BTreeSet<String> = ALL.iter().map(|it| format!("{}.md", it.name())).collect();
    for entry in std::fs::read_dir(docs().join("plugins")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            names.contains(&name),
            "docs/plugins/{name} is the page of no plugin"
        );
    }
}

#[test]
fn the_list_has_them_all() {
    let path = docs().join("plugins.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text
        .split_once(BEGIN)
        .expect("the list's beginning is marked");
    let (_, after) = rest.split_once(END).expect("the list's end is marked");
    check(&path, &format!("{before}{BEGIN}{}{END}{after}", table(ALL)));
}
