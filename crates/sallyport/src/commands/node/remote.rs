//! Commands of a cluster's node for its command line on port 10121.

use std::sync::Arc;

use http::Method;
use sallyport_appliance::appliance_cli::{Call, Entry, Later};
use sallyport_appliance::node::{Settings, Wish, pass_on, socket_of};
use sallyport_wire::appliance_cli::{Argument, Command, Reply};
use serde_json::{Value, json};

/// What a node can be asked about the cluster.
pub(super) fn entries(settings: &Settings) -> Vec<Entry> {
    let settings = Arc::new(settings.clone());
    let mut all = vec![entry(
        "nodes",
        "the nodes of the cluster and their states",
        &[],
        {
            let settings = Arc::clone(&settings);
            move |_| {
                let settings = Arc::clone(&settings);
                Box::pin(
                    async move { answered(&settings, Method::GET, "/status", &json!({})).await },
                )
            }
        },
    )];
    for (name, about, wanted) in [
        ("cordon", "gives a node no new work", "cordoned"),
        ("uncordon", "lets a node work again", "active"),
        ("drain", "takes all work from a node", "drained"),
    ] {
        let settings = Arc::clone(&settings);
        all.push(entry(
            name,
            about,
            &[("name", "of the node")],
            move |call: Call| {
                let settings = Arc::clone(&settings);
                Box::pin(async move {
                    let wish = Wish {
                        name: call.get("name").unwrap_or_default().to_owned(),
                        wanted: wanted.to_owned(),
                    };
                    let told =
                        format!("{} is wanted {wanted}; `nodes` shows when it is", wish.name);
                    let wish = serde_json::to_value(wish).unwrap_or_default();
                    let reply = answered(&settings, Method::POST, "/want", &wish).await;
                    match reply.error {
                        None => Reply::new(told),
                        Some(_) => reply,
                    }
                })
            },
        ));
    }
    let about = "each node tries the ways to every other one, or one node does";
    let arguments = [(
        "from?",
        "the one node that shall try; all of them without it",
    )];
    all.push(entry("doctor", about, &arguments, move |call: Call| {
        let settings = Arc::clone(&settings);
        Box::pin(async move {
            let question = json!({"from": call.get("from")});
            let reply = answered(&settings, Method::POST, "/doctor", &question).await;
            judged(reply)
        })
    }));
    all
}

/// The matrix as a list of ways, and in a sentence whether they are open.
fn judged(mut reply: Reply) -> Reply {
    if reply.error.is_some() {
        return reply;
    }
    let matrix = reply.arguments.remove("matrix").unwrap_or_default();
    let (mut ways, mut closed) = (Vec::new(), Vec::new());
    for line in matrix.as_array().into_iter().flatten() {
        let from = line["from"].as_str().unwrap_or_default();
        if let Some(error) = line["error"].as_str() {
            closed.push(format!("{from} could not be asked: {error}"));
        }
        for row in line["rows"].as_array().into_iter().flatten() {
            let word = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
            if row["ok"] != true {
                closed.push(format!(
                    "{from} to {}: {} {}: {}",
                    word("node"),
                    word("id"),
                    word("flow"),
                    word("status")
                ));
            }
            ways.push(json!({
                "from": from, "to": word("node"), "id": word("id"), "flow": word("flow"),
                "status": word("status"),
            }));
        }
    }
    reply.message = format!("all {} ways that were tried are open", ways.len());
    if !closed.is_empty() {
        reply.message = format!("not every way is open: {}", closed.join("; "));
        reply.error = Some("closed".to_owned());
    }
    reply.with("ways", ways)
}

/// A command from its parts; an argument's name ends with `?` if it may be left out.
fn entry(
    name: &str,
    about: &str,
    arguments: &[(&str, &str)],
    run: impl Fn(Call) -> Later<'static, Reply> + Send + Sync + 'static,
) -> Entry {
    let argument = |(name, about): &(&str, &str)| Argument {
        name: name.trim_end_matches('?').to_owned(),
        about: (*about).to_owned(),
        required: !name.ends_with('?'),
        secret: false,
    };
    Entry {
        command: Command {
            name: name.to_owned(),
            about: about.to_owned(),
            arguments: arguments.iter().map(argument).collect(),
            file: false,
        },
        run: Arc::new(run),
    }
}

/// What the running node says on its local socket. The call is in the audit log as it came.
async fn answered(settings: &Settings, method: Method, path: &str, body: &Value) -> Reply {
    match pass_on(&socket_of(settings), method, path, body).await {
        Ok(Value::Object(facts)) => Reply {
            arguments: facts,
            ..Reply::new("the cluster as this node sees it")
        },
        Ok(_) => Reply::new("done"),
        Err(error) => Reply::refused("refused", error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_becomes_ways_and_a_sentence() {
        let row = |node: &str, ok: bool| {
            json!({"node": node, "id": "node_control", "flow": "7777/tcp", "ok": ok,
                   "status": if ok { "open" } else { "filtered" }})
        };
        let asked = |lines: Value| judged(Reply::new("").with("matrix", lines));
        let open = asked(json!([{"from": "n1", "ok": true, "rows": [row("n2", true)]}]));
        assert_eq!(open.message, "all 1 ways that were tried are open");
        assert_eq!(open.arguments["ways"][0]["to"], "n2");
        assert_eq!(open.error, None);
        let closed = asked(json!([
            {"from": "n1", "ok": false, "rows": [row("n2", false)]},
            {"from": "n2", "ok": false, "error": "it is gone"},
        ]));
        assert_eq!(closed.error.as_deref(), Some("closed"));
        for part in [
            "n1 to n2: node_control 7777/tcp: filtered",
            "n2 could not be asked: it is gone",
        ] {
            assert!(closed.message.contains(part), "{}", closed.message);
        }
    }
}
