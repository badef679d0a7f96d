//! Tasks live as long as the configuration that they belong to.

use sallyport_testkit::{Deadline, Echo};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::tests::{make, probe_tls};
use super::*;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Deadline::secs(30);
    while !is_so() {
        assert!(!deadline.passed(), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn probed(interval: f64) -> Value {
    json!({"healthchecks": {"active": {"healthy": {"interval": interval}}}})
}

fn start(balancers: &Arc<Balancers>) -> (CancellationToken, JoinHandle<()>) {
    let stop = CancellationToken::new();
    let keeping = keep(balancers.clone(), probe_tls(), stop.clone());
    (stop, tokio::spawn(keeping))
}

#[tokio::test]
async fn probes_start_and_end_with_their_configuration() {
    let (a, b) = (Echo::start(), Echo::start());
    let (to_a, to_b) = (a.addr().to_string(), b.addr().to_string());
    let balancers = Arc::new(Balancers::new(Dns::default()));
    let (stop, keeping) = start(&balancers);
    let first = make(&balancers, probed(0.02), &[(&to_a, 1)]);
    balancers.put_these_in_force(std::slice::from_ref(&first));
    until("a is probed", || a.count() > 2).await;
    let second = make(&balancers, probed(0.02), &[(&to_b, 1), (&to_a, 0)]);
    balancers.put_these_in_force(std::slice::from_ref(&second));
    until("b is probed", || b.count() > 2).await;
    until("nobody probes for the first", || {
        Arc::strong_count(&first) == 1
    })
    .await;
    let before = a.count();
    let more = b.count() + 5;
    until("b is probed on", || b.count() > more).await;
    assert_eq!(a.count(), before, "weight 0 is not probed");
    balancers.put_these_in_force(&[]);
    until("nobody probes for the second", || {
        Arc::strong_count(&second) == 1
    })
    .await;
    stop.cancel();
    keeping.await.unwrap();
}

#[tokio::test]
async fn the_same_settings_keep_their_task() {
    let a = Echo::start();
    let to_a = a.addr().to_string();
    let balancers = Arc::new(Balancers::new(Dns::default()));
    let (stop, keeping) = start(&balancers);
    let first = make(&balancers, probed(0.02), &[(&to_a, 1)]);
    balancers.put_these_in_force(std::slice::from_ref(&first));
    until("a is probed", || a.count() > 0).await;
    let holders = Arc::strong_count(&first);
    for _ in 0..20 {
        let again = make(&balancers, probed(0.02), &[(&to_a, 1)]);
        balancers.put_these_in_force(&[again]);
        tokio::task::yield_now().await;
    }
    let more = a.count() + 2;
    until("a is probed on", || a.count() > more).await;
    assert_eq!(Arc::strong_count(&first), holders, "one task, not many");
    stop.cancel();
    keeping.await.unwrap();
    assert_eq!(Arc::strong_count(&first), holders - 1);
}
