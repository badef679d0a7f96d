//! A gateway whose control plane is a cluster, behind a load balancer that asks `/testall`: whatever
//! happens to nodes, no request through the gateway fails, and changes go on arriving.

use std::fmt::Write as _;
use std::time::Duration;

use sallyport_testkit::http::get;
use sallyport_testkit::{Echo, Load, Program, eventually, eventually_some, foreign};
use serde_json::{Value, json};

use crate::chaos::{
    DATA, data_without, freeze_the_leader, kill_the_leader, kill_the_witness, kill_two,
    see_each_other, token, without,
};
use crate::lab::{Lab, NODES, enter, patience, sallyport, within};

/// Where the neighbour's load balancer takes what is for the control plane, and its gateway requests.
const BALANCER: &str = "https://127.0.0.1:8443";
const PROXY: &str = "http://127.0.0.1:8000";

/// On the neighbour: load balancer, gateway, upstream.
struct Edge {
    /// Path of the control plane that the gateway belongs to.
    plane: String,
    /// Ends in the network that it is in.
    echo: Option<Echo>,
    network: String,
    _balancer: Program,
    gateway: Program,
}

/// Asks the cluster's API by way of the load balancer; the status and the answer.
fn api(lab: &Lab, method: &str, path: &str, body: &Value) -> (String, Value) {
    let done = lab
        .program("nb", "curl")
        .args(["-sk", "-m", "5", "-w", "\n%{http_code}", "-X", method])
        .args(["-H", &format!("Authorization: Bearer {}", token(lab, "n1"))])
        .args(["-H", "Content-Type: application/json"])
        .args(["-d", &body.to_string(), &format!("{BALANCER}{path}")])
        .run(patience());
    let (text, status) = done.stdout.rsplit_once('\n').unwrap_or_default();
    let value = serde_json::from_str(text).unwrap_or(Value::Null);
    (status.trim().to_owned(), value)
}

/// Makes something; tried again while no node can.
#[track_caller]
fn made(lab: &Lab, path: &str, body: &Value) -> Value {
    let until = patience();
    loop {
        let (status, answer) = api(lab, "POST", path, body);
        // a name that is taken: an answer before this one was lost
        if status == "201" || status == "409" {
            return answer;
        }
        assert!(
            !until.passed(),
            "{path} does not take {body}: {status} {answer}"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn balancer(lab: &Lab) -> Program {
    let mut text = "global\n  maxconn 500\ndefaults\n  mode tcp\n  timeout connect 2s\n  \
                    timeout client 1h\n  timeout server 1h\n  timeout check 2s\nlisten control\n  \
                    bind 127.0.0.1:8443\n  option httpchk GET /testall\n  \
                    default-server check inter 500ms fall 2 rise 1 port 9110 \
                    on-marked-down shutdown-sessions\n"
        .to_owned();
    for node in DATA {
        let address = lab.address(node);
        writeln!(text, "  server {node} {address}:443").unwrap();
    }
    std::fs::write(lab.path("haproxy.cfg"), text).unwrap();
    lab.program("nb", "haproxy")
        .args(["-db", "-f", lab.path("haproxy.cfg").to_str().unwrap()])
        .start()
}

impl Edge {
    #[track_caller]
    fn start(lab: &Lab) -> Edge {
        let balancer = balancer(lab);
        let echo = within(lab, "nb", Echo::start);
        eventually("the load balancer finds a node", patience(), || {
            api(lab, "GET", "/v2/control-planes", &Value::Null).0 == "200"
        });
        let plane = made(lab, "/v2/control-planes", &json!({"name": "edge"}));
        let plane = format!("/v2/control-planes/{}", plane["id"].as_str().unwrap());
        let dir = lab.path("edge");
        let (authority, out) = (lab.path("n1/control/ca.crt"), dir.to_str().unwrap());
        let token = made(
            lab,
            &format!("{plane}/enrolment-tokens"),
            &json!({"title": "edge"}),
        );
        let token = token["item"]["token"].as_str().unwrap().to_owned();
        lab.program("nb", sallyport())
            .args(["enrol", "--address", BALANCER, "--token", &token])
            .args(["--ca", authority.to_str().unwrap(), "--out", out])
            .run(patience())
            .success();
        let mut conf = std::fs::read_to_string(dir.join("cluster.conf")).unwrap();
        write!(
            conf,
            "prefix = {out}/prefix\nproxy_listen = 127.0.0.1:8000\nstatus_listen = off\n\
             admin_listen = off\n"
        )
        .unwrap();
        std::fs::write(dir.join("kong.conf"), conf).unwrap();
        let gateway = lab
            .program("nb", sallyport())
            .args(["gateway", "-c", dir.join("kong.conf").to_str().unwrap()])
            .start();
        gateway.wait_for_line("control plane connected", patience());
        let edge = Edge {
            plane,
            echo: Some(echo),
            network: lab.ns("nb"),
            _balancer: balancer,
            gateway,
        };
        edge.changed(lab, "first");
        edge
    }

    /// A change that is written now arrives at the gateway.
    #[track_caller]
    fn changed(&self, lab: &Lab, name: &str) {
        let path = |kind: &str| format!("{}/core-entities/{kind}", self.plane);
        let url = self.echo.as_ref().unwrap().url();
        made(lab, &path("services"), &json!({"name": name, "url": url}));
        // Asked for: the answer with the id may have been lost.
        let service = format!("{}/{name}", path("services"));
        let id = eventually_some(&format!("{name} is there"), patience(), || {
            let (_, found) = api(lab, "GET", &service, &Value::Null);
            found["id"].as_str().map(str::to_owned)
        });
        let route = json!({"name": name, "paths": [format!("/{name}")], "service": {"id": id}});
        made(lab, &path("routes"), &route);
        eventually(&format!("/{name} is routed"), patience(), || {
            let asked = || get(format!("{PROXY}/{name}")).send();
            within(lab, "nb", asked).is_ok_and(|it| it.status == 200)
        });
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let (echo, network) = (self.echo.take(), &self.network);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                enter(network);
                drop(echo);
            });
        });
    }
}

#[test]
fn gateways_never_notice_what_happens_to_nodes() {
    let Some(_) = foreign("haproxy", "Debian package haproxy") else {
        return;
    };
    let Some(mut lab) = Lab::new("g") else { return };
    lab.whole();
    for node in DATA {
        lab.health_is(node, "/testall", "200");
    }
    let edge = Edge::start(&lab);
    let load = within(&lab, "nb", || {
        Load::expect_status(get(format!("{PROXY}/first")), 200, Duration::from_millis(5))
    });

    kill_the_leader(&mut lab);
    edge.changed(&lab, "killed");
    freeze_the_leader(&mut lab);
    edge.changed(&lab, "frozen");
    let (leader, _) = lab.leader(&NODES, &DATA);
    lab.cable(leader, "down");
    see_each_other(&lab, &without(leader));
    edge.changed(&lab, "cut");
    lab.cable(leader, "up");
    see_each_other(&lab, &NODES);
    let drained = data_without(leader)[0];
    lab.told(leader, &["drain", drained]).success();
    lab.is(leader, drained, "drained");
    edge.changed(&lab, "drained");
    lab.told(leader, &["uncordon", drained]).success();
    lab.is(leader, drained, "active");
    kill_two(&mut lab);
    edge.changed(&lab, "killed-two");
    kill_the_witness(&mut lab);

    // Nobody is there: the gateway goes on with what it has.
    for node in DATA {
        lab.running.get_mut(node).unwrap().kill9();
    }
    load.wait_for_more(200, patience());
    for node in DATA {
        lab.start(node);
    }
    edge.changed(&lab, "all-came-back");
    load.stop().assert_clean();
    let log = edge.gateway.output();
    assert!(!log.contains("panicked"), "{log}");
}
