//! RSS 2.0: one item for each change.

use sallyport_contract::PublishedChange;

use super::history::{History, instant};

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
    for coming in history.announced() {
        text.push_str(&item(
            &Told {
                changes: &coming.changes,
                valid_from: coming.valid_from,
                since: coming.announced,
                is_announced: true,
            },
            &link,
            host,
        ));
    }
    for version in versions.iter().take(ITEMS_MAX) {
        let date = version.update_date;
        text.push_str(&item(
            &Told {
                changes: &version.changes,
                valid_from: date,
                since: date,
                is_announced: false,
            },
            &link,
            host,
        ));
    }
    text.push_str("</channel>\n</rss>\n");
    text
}

/// What an item tells.
struct Told<'a> {
    changes: &'a [PublishedChange],
    valid_from: &'a str,
    /// When it became known.
    since: &'a str,
    is_announced: bool,
}

fn item(told: &Told<'_>, link: &str, host: &str) -> String {
    let count = |pick: fn(&PublishedChange) -> &Vec<String>| {
        told.changes
            .iter()
            .map(|change| pick(change).len())
            .sum::<usize>()
    };
    let (added, removed) = (count(|it| &it.added), count(|it| &it.removed));
    let mut lines = vec![format!("Valid from {} UTC.", told.valid_from)];
    for change in told.changes {
        for (word, addresses) in [("added", &change.added), ("removed", &change.removed)] {
            if !addresses.is_empty() {
                let (geo, side) = (&change.geo, change.side);
                lines.push(format!("{geo} {side}: {word} {}.", addresses.join(", ")));
            }
        }
    }
    // A change of host names alone has no address in it.
    if told.changes.is_empty() {
        lines.push("Addresses moved between services; the lists by geo are as before.".to_owned());
    }
    let (when, guid) = match told.is_announced {
        true => (
            format!(" from {} UTC", told.valid_from),
            format!("announced/{}/{}", told.since, told.valid_from),
        ),
        false => (String::new(), told.valid_from.to_owned()),
    };
    format!(
        "<item>\n<title>{added} addresses added, {removed} removed{when}</title>\n<link>{link}</link>\n\
         <guid isPermaLink=\"false\">{host}/{guid}</guid>\n<pubDate>{}</pubDate>\n\
         <description>{}</description>\n</item>\n",
        date(told.since),
        lines.join("\n")
    )
}

/// As RFC 822 wants it.
fn date(update_date: &str) -> String {
    let time = instant(update_date).unwrap_or_default();
    time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}
