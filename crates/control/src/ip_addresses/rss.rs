//! RSS 2.0: one item for each change.

use super::history::{History, Version, instant};

/// Items in the feed; readers keep older ones themselves.
const ITEMS_MAX: usize = 50;

/// The feed of `history`, published at `host`.
pub(super) fn rss(history: &History, host: &str) -> String {
    let link = format!("https://{host}/ip-addresses.json");
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <rss version=\"2.0\" xmlns:atom=\"http://www.w3.org/2005/Atom\">\n<channel>\n\
         <title>Addresses of {host}</title>\n<link>{link}</link>\n\
         <atom:link href=\"https://{host}/rss\" rel=\"self\" type=\"application/rss+xml\"/>\n\
         <description>Changes of the addresses that firewalls must let through</description>\n\
         <language>en</language>\n"
    );
    let versions = history.since(None);
    if let Some(newest) = versions.first() {
        text.push_str(&format!(
            "<lastBuildDate>{}</lastBuildDate>\n",
            date(newest.update_date)
        ));
    }
    for version in versions.iter().take(ITEMS_MAX) {
        text.push_str(&item(version, &link, host));
    }
    text.push_str("</channel>\n</rss>\n");
    text
}

fn item(version: &Version<'_>, link: &str, host: &str) -> String {
    let count = |pick: fn(&sallyport_contract::PublishedChange) -> &Vec<String>| {
        version
            .changes
            .iter()
            .map(|change| pick(change).len())
            .sum::<usize>()
    };
    let (added, removed) = (count(|it| &it.added), count(|it| &it.removed));
    let mut lines = vec![format!("Valid from {} UTC.", version.update_date)];
    for change in &version.changes {
        for (word, addresses) in [("added", &change.added), ("removed", &change.removed)] {
            if !addresses.is_empty() {
                let (geo, side) = (&change.geo, change.side);
                lines.push(format!("{geo} {side}: {word} {}.", addresses.join(", ")));
            }
        }
    }
    // A change of host names alone has no address in it.
    if version.changes.is_empty() {
        lines.push("Addresses moved between services; the lists by geo are as before.".to_owned());
    }
    format!(
        "<item>\n<title>{added} addresses added, {removed} removed</title>\n<link>{link}</link>\n\
         <guid isPermaLink=\"false\">{host}/{}</guid>\n<pubDate>{}</pubDate>\n\
         <description>{}</description>\n</item>\n",
        version.update_date,
        date(version.update_date),
        lines.join("\n")
    )
}

/// As RFC 822 wants it.
fn date(update_date: &str) -> String {
    let time = instant(update_date).unwrap_or_default();
    time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}
