//! Commands of a cluster's node for its command line on port 10121.

use std::sync::Arc;

use http::Method;
use sallyport_appliance::appliance_cli::{Call, Entry, Later};
use sallyport_appliance::node::{Settings, Wish, ask, socket_of};
use sallyport_wire::appliance_cli::{Argument, Command, Reply};
use serde_json::{Value, json};

/// What a node can be asked about the cluster.
pub(super) fn entries(settings: &Settings) -> Vec<Entry> {
    let settings = Arc::new(settings.clone());
    let mut all = vec![entry(
        "nodes",
        "the nodes of the cluster and their states",
        false,
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
        all.push(entry(name, about, true, move |call: Call| {
            let settings = Arc::clone(&settings);
            Box::pin(async move {
                let wish = Wish {
                    name: call.get("name").unwrap_or_default().to_owned(),
                    wanted: wanted.to_owned(),
                };
                let told = format!("{} is wanted {wanted}; `nodes` shows when it is", wish.name);
                let wish = serde_json::to_value(wish).unwrap_or_default();
                let reply = answered(&settings, Method::POST, "/want", &wish).await;
                match reply.error {
                    None => Reply::new(told),
                    Some(_) => reply,
                }
            })
        }));
    }
    all
}

fn entry(
    name: &str,
    about: &str,
    of_one: bool,
    run: impl Fn(Call) -> Later<'static, Reply> + Send + Sync + 'static,
) -> Entry {
    let node = Argument {
        name: "name".to_owned(),
        about: "of the node".to_owned(),
        required: true,
        secret: false,
    };
    Entry {
        command: Command {
            name: name.to_owned(),
            about: about.to_owned(),
            arguments: if of_one { vec![node] } else { Vec::new() },
            file: false,
        },
        run: Arc::new(run),
    }
}

/// What the running node says on its local socket.
async fn answered(settings: &Settings, method: Method, path: &str, body: &Value) -> Reply {
    match ask(&socket_of(settings), method, path, body).await {
        Ok(Value::Object(facts)) => Reply {
            arguments: facts,
            ..Reply::new("the cluster as this node sees it")
        },
        Ok(_) => Reply::new("done"),
        Err(error) => Reply::refused("refused", error.to_string()),
    }
}
