//! Buckets in a real Redis server instead of the rate limiter's own memory.

use sallyport_testkit::{Echo, Program, eventually, foreign, free_port};
use serde_json::json;

use super::clients::calls;
use super::gateways::{counting_on, gateway};
use super::lab::Limiter;
use crate::lab::soon;

fn redis(port: u16) -> Option<Program> {
    let program = foreign("redis-server", "Debian package redis-server")?;
    let redis = Program::new(program)
        .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .args(["--requirepass", "s3cret", "--port", &port.to_string()])
        .start();
    redis.wait_for_line("Ready to accept connections", soon());
    Some(redis)
}

fn limiter(port: u16) -> Limiter {
    let limiter = Limiter::start(&format!(
        "redis: {{address: \"127.0.0.1:{port}\", password: s3cret, database: 3, answer_ms: 10000}}
buckets:
  ip: {{size: 10, per_second: 5}}
  fixed: {{size: 3}}
  window: {{per_hour: 4, fixed_window: true}}
  free: {{size: 7, unlimited: true}}
  few: {{size: 5, when_unreachable: refuse}}
"
    ));
    limiter
        .program
        .wait_for_line("buckets are in Redis", soon());
    limiter
}

#[test]
fn two_limiters_share_buckets_and_clients_notice_nothing() {
    let port = free_port();
    let Some(mut server) = redis(port) else {
        return;
    };
    let limiters = [limiter(port), limiter(port)];
    let [mut a, mut b] = [limiters[0].client(), limiters[1].client()];
    assert_eq!(a.take("fixed", "k"), (true, 2));
    assert_eq!(b.take("fixed", "k"), (true, 1));
    assert_eq!(a.take("window", "k"), (true, 3));
    assert_eq!(b.take("window", "k"), (true, 2));
    assert_eq!(a.take("free", "k"), (true, 7));
    // A type's name and a key do not run into each other.
    assert_eq!(a.take("fixed", ":k"), (true, 2));

    for generation in [1, 2] {
        let key = format!("g{generation}");
        let asked = json!([
            ["ping"],
            ["take", "ip", key],
            ["take", "ip", key, 11],
            ["take", "fixed", key, 2],
            ["put", "fixed", key, 1],
            ["put", "fixed", key],
            ["take", "ip", key, 9],
            ["wait", "ip", key, 3],
            ["take", "nope", key],
            ["wait", "fixed", key, 4],
        ]);
        let Some(answers) = calls(generation, &limiters[1].url(), &asked) else {
            return;
        };
        let result = |at: usize| &answers[at]["result"];
        assert_eq!(result(1)["remaining"], 9, "{answers:#?}");
        assert_eq!(result(1)["limit"], 10);
        assert_eq!(result(2)["conformant"], false);
        assert_eq!(result(3)["remaining"], 1);
        assert_eq!(result(4)["remaining"], 2);
        assert_eq!(result(5)["remaining"], 3);
        assert_eq!(result(6)["conformant"], true);
        assert_eq!(result(7)["conformant"], true);
        assert_eq!(result(7)["delayed"], true);
        assert!(answers[8]["error"].is_string());
        assert_eq!(result(9)["conformant"], false);
    }

    // many at once do not take more than there is
    let granted: usize = std::thread::scope(|scope| {
        let burst = |at: usize| {
            let mut client = limiters[at % 2].client();
            (0..40).filter(|_| client.take("few", "burst").0).count()
        };
        let threads: Vec<_> = (0..4).map(|at| scope.spawn(move || burst(at))).collect();
        threads.into_iter().map(|it| it.join().unwrap()).sum()
    });
    assert_eq!(granted, 5);

    // gateways count there as well
    let echo = Echo::start();
    let gateways = [0, 1].map(|at| gateway(&echo, &counting_on(&[&limiters[at]])));
    let statuses: Vec<u16> = (0..6)
        .map(|at| gateways[at % 2].get("/tolerant").send().unwrap().status)
        .collect();
    assert_eq!(statuses, [200, 200, 200, 200, 429, 429]);

    // without the server each type does what it says
    assert_eq!(a.take("few", "k"), (true, 4));
    server.kill9();
    eventually("it is noticed", soon(), || !a.take("few", "k").0);
    assert_eq!(a.take("fixed", "k"), (true, 2), "a bucket of its own");
    let strict = || gateways[0].get("/strict").send().unwrap().status;
    eventually("fault_tolerant decides", soon(), || strict() == 500);
    let _server = redis(port);
    eventually("it is back", soon(), || a.take("few", "new").0);
}
