//! `sallyport plugins`: the gateway plugins of this build.

use anyhow::bail;
use sallyport_plugins::{ALL, Plugin, absent, by_name, page, scopes};

/// Lists the gateway plugins, in the order they run, or shows all about one.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The plugin to show: its fields with their defaults, its answers and limits
    name: Option<String>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let Some(name) = &args.name else {
        return super::print(&list());
    };
    let Some(plugin) = by_name(name) else {
        match absent(name) {
            Some(reason) => bail!("plugin {name:?} is not part of this build: {reason}"),
            None => bail!("there is no plugin {name:?}; `sallyport plugins` lists all of them"),
        }
    };
    let page = page(plugin);
    // the first line is for whoever opens the file
    let text = page
        .split_once('\n')
        .map_or(page.as_str(), |(_, text)| text);
    super::print(text)
}

fn list() -> String {
    let width = |of: fn(&dyn Plugin) -> usize| ALL.iter().map(|it| of(*it)).max().unwrap_or(0);
    let name = width(|plugin| plugin.name().len()).max("PLUGIN".len());
    let scope = width(|plugin| scopes(plugin).len());
    let mut text = format!(
        "{:name$}  PRIORITY  {:scope$}  WHAT IT DOES\n",
        "PLUGIN", "SCOPES"
    );
    for plugin in ALL {
        text.push_str(&format!(
            "{:name$}  {:>8}  {:scope$}  {}\n",
            plugin.name(),
            plugin.priority(),
            scopes(*plugin),
            plugin.summary()
        ));
    }
    text
}
