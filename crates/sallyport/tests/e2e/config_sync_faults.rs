//! A bad line between gateway and control plane, and either of them gone in the middle of a rollout:
//! traffic never notices, and every change arrives.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use sallyport_testkit::http::get;
use sallyport_testkit::{Deadline, Echo, Fault, FaultProxy, Load};
use serde_json::{Value, json};

use crate::lab::{Control, Gateway, Pair, after_reconnect, soon};

struct Line {
    control: Control,
    proxy: FaultProxy,
    gateway: Gateway,
    load: Load,
    echo: Echo,
}

impl Line {
    #[track_caller]
    fn start() -> Line {
        Line::start_set("")
    }

    /// With this line in the gateway's `kong.conf`.
    #[track_caller]
    fn start_set(conf: &str) -> Line {
        let echo = Echo::start();
        let control = Control::start();
        control.route_to("first", echo.port());
        let dir = tempfile::tempdir().unwrap();
        let pair = Pair::make(dir.path());
        control.pin(&pair.cert());
        let proxy = FaultProxy::start(control.port);
        let name = Control::node_name(&control.prefix);
        let gateway = Gateway::start_at((&control, proxy.port(), &name), dir, &pair, conf);
        gateway.wait_for("/first", 200, soon());
        let load = Load::expect_status(get(gateway.url("/first")), 200, Duration::from_millis(5));
        Line {
            control,
            proxy,
            gateway,
            load,
            echo,
        }
    }
}

#[test]
fn a_bad_line_costs_no_request_and_no_change() {
    let line = Line::start();
    let Line {
        control,
        proxy,
        gateway,
        load,
        echo,
    } = &line;
    // slow is not broken: changes come through it
    for (name, fault) in [
        ("delayed", Fault::Delay(Duration::from_millis(50))),
        ("slow", Fault::Slow(64)),
    ] {
        proxy.set(fault);
        control.route_to(name, echo.port());
        gateway.wait_for(&format!("/{name}"), 200, after_reconnect());
    }
    // what is cut off in the middle comes anew once the line is good again
    for (name, fault) in [("truncated", Fault::Truncate(40)), ("cut", Fault::Cut)] {
        let before = gateway.program.lines();
        proxy.set(fault);
        control.route_to(name, echo.port());
        gateway
            .program
            .wait_for_line_after(before, "no control plane", soon());
        assert_eq!(gateway.status_of(&format!("/{name}")), 404);
        proxy.set(Fault::None);
        gateway.wait_for(&format!("/{name}"), 200, after_reconnect());
    }
    control.wait_in_sync(1);
    load.wait_for_more(20, soon());
    let log = gateway.program.output();
    assert!(!log.contains("would not be what was published"), "{log}");
    assert!(!log.contains("panicked"), "{log}");
    line.load.stop().assert_clean();
}

#[test]
fn a_line_that_is_dead_on_one_side_only_is_noticed() {
    let line = Line::start();
    line.proxy.set(Fault::Silent);
    line.control.route_to("meanwhile", line.echo.port());
    // 45 s without a frame
    line.gateway
        .program
        .wait_for_line("silent for too long", Deadline::secs(120));
    line.proxy.set(Fault::None);
    line.proxy.reset();
    line.gateway.wait_for("/meanwhile", 200, after_reconnect());
    line.control.wait_in_sync(1);
    line.load.stop().assert_clean();
}

#[test]
fn what_comes_late_over_an_older_link_changes_nothing() {
    overtaken("");
}

#[test]
fn what_comes_late_over_an_older_link_changes_nothing_with_whole_configurations() {
    overtaken("sallyport_sync = v1");
}

/// What the gateway says of a change is still on its way when it has dialled again and said more.
fn overtaken(conf: &str) {
    let line = Line::start_set(conf);
    let Line {
        control,
        proxy,
        gateway,
        ..
    } = &line;
    control.wait_in_sync(1);
    proxy.hold();
    let before = gateway.program.lines();
    control.route_to("held", line.echo.port());
    gateway
        .program
        .wait_for_line_after(before, "configuration in force", soon());
    proxy.part();
    control.route_to("newer", line.echo.port());
    gateway.wait_for("/newer", 200, after_reconnect());
    control.wait_in_sync(1);
    let before = control.program.lines();
    proxy.release();
    control
        .program
        .wait_for_line_after(before, "data plane disconnected", soon());
    assert_eq!(control.in_sync(), 1, "it says that it runs the newest");
    // and the newer link is the one that is believed
    control.route_to("last", line.echo.port());
    gateway.wait_for("/last", 200, soon());
    control.wait_in_sync(1);
    line.load.stop().assert_clean();
}

#[test]
fn either_side_may_die_at_any_step_of_a_rollout() {
    rollout("");
}

#[test]
fn either_side_may_die_at_any_step_of_a_rollout_of_whole_configurations() {
    rollout("sallyport_sync = v1");
}

/// Two gateways behind a load balancer: requests go to each in turn, and to the other when a
/// connection breaks. Whatever is answered is an answer to a client.
struct Balanced {
    urls: [String; 2],
    /// Paths that every gateway has on its disk.
    paths: Mutex<Vec<String>>,
    /// Ends and returns of the second gateway; odd while it is away.
    turns: AtomicUsize,
    /// Answers by gateway.
    answers: [AtomicUsize; 2],
}

impl Balanced {
    fn new(gateways: [&Gateway; 2]) -> Arc<Balanced> {
        Arc::new(Balanced {
            urls: gateways.map(|gateway| gateway.url("")),
            paths: Mutex::new(vec!["/first".to_owned()]),
            turns: AtomicUsize::new(0),
            answers: Default::default(),
        })
    }

    /// The second gateway is about to go, or is back.
    fn turn(&self) {
        self.turns.fetch_add(1, Ordering::SeqCst);
    }

    fn paths(&self) -> MutexGuard<'_, Vec<String>> {
        self.paths.lock().unwrap()
    }

    /// Answers of the second gateway so far.
    fn answers_of_the_mortal(&self) -> usize {
        self.answers[1].load(Ordering::SeqCst)
    }

    /// The request of this number.
    fn once(&self, number: usize) -> Result<(), String> {
        let path = {
            let paths = self.paths();
            paths[number / 2 % paths.len()].clone()
        };
        let turns = self.turns.load(Ordering::SeqCst);
        let which = number % 2;
        match self.ask(which, &path)? {
            Ok(()) => Ok(()),
            Err(broken) => {
                let went = turns % 2 == 1 || turns != self.turns.load(Ordering::SeqCst);
                if which == 0 || !went {
                    return Err(format!("gateway {which}, {path}: {broken}"));
                }
                self.ask(0, &path)?
            }
        }
    }

    /// An answer must be the right one; a connection may break.
    fn ask(&self, which: usize, path: &str) -> Result<Result<(), String>, String> {
        match get(format!("{}{path}", self.urls[which])).send() {
            Ok(answer) if answer.status == 200 => {
                self.answers[which].fetch_add(1, Ordering::SeqCst);
                Ok(Ok(()))
            }
            Ok(answer) => {
                let (status, text) = (answer.status, answer.text());
                Err(format!("gateway {which}, {path}: {status} {text}"))
            }
            Err(error) => Ok(Err(error.to_string())),
        }
    }
}

/// With this line in `kong.conf` of the gateways.
fn rollout(conf: &str) {
    let echo = Echo::start();
    let mut control = Control::start();
    control.route_to("first", echo.port());
    let gateway = |seat: &str| {
        let dir = tempfile::tempdir().unwrap();
        let pair = Pair::make(dir.path());
        control.pin(&pair.cert());
        let conf = format!("cluster_dp_labels = site:lab,seat:{seat}\n{conf}");
        Gateway::start_set(&control, dir, &pair, &conf)
    };
    let (steady, mut mortal) = (gateway("steady"), gateway("mortal"));
    mortal.wait_for("/first", 200, soon());
    steady.wait_for("/first", 200, soon());
    control.wait_in_sync(2);
    labels_are_listed(&control);
    let balanced = Balanced::new([&steady, &mortal]);
    let (behind, mut number) = (balanced.clone(), 0);
    let load = Load::start(Duration::from_millis(5), move || {
        number += 1;
        behind.once(number)
    });
    for step in 0..4 {
        let name = format!("step-{step}");
        match step {
            // the control plane dies as soon as the change is acknowledged
            0 => {
                control.route_to(&name, echo.port());
                control.kill9();
                control.start_again();
            }
            // it dies when the change is live, and a gateway in the meantime
            1 => {
                control.route_to(&name, echo.port());
                steady.wait_for(&format!("/{name}"), 200, after_reconnect());
                control.kill9();
                balanced.turn();
                mortal.kill9_and_start();
                balanced.turn();
                assert_eq!(mortal.status_of("/first"), 200, "from its own disk");
                control.start_again();
            }
            // a gateway dies while the change is on its way
            2 => {
                control.route_to(&name, echo.port());
                balanced.turn();
                mortal.kill9_and_start();
                balanced.turn();
            }
            // both at once
            _ => {
                control.route_to(&name, echo.port());
                balanced.turn();
                mortal.program.kill9();
                control.kill9();
                control.start_again();
                mortal.kill9_and_start();
                balanced.turn();
            }
        }
        for gateway in [&steady, &mortal] {
            gateway.wait_for(&format!("/{name}"), 200, after_reconnect());
        }
        control.wait_in_sync(2);
        balanced.paths().push(format!("/{name}"));
        let served = balanced.answers_of_the_mortal();
        load.wait_for_more(20, soon());
        assert!(
            balanced.answers_of_the_mortal() > served,
            "it has its share again"
        );
    }
    load.stop().assert_clean();
}

/// Both gateways, each with what its `kong.conf` says.
#[track_caller]
fn labels_are_listed(control: &Control) {
    let path = format!("/v2/control-planes/{}/nodes", control.id);
    let nodes = control.api("GET", &path, &Value::Null).json();
    let nodes = nodes["items"].as_array().unwrap();
    let mut labels: Vec<_> = nodes.iter().map(|node| node["labels"].clone()).collect();
    labels.sort_by_key(ToString::to_string);
    let expected = ["mortal", "steady"].map(|seat| json!({"site": "lab", "seat": seat}));
    assert_eq!(labels, expected);
}
