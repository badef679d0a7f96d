//! `kong.conf` as text, and the environment over it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sallyport_gateway::conf::Conf;

fuzz_target!(|input: (&str, &str)| {
    let (file, value) = input;
    _ = Conf::load(Some(file), [], &["key-auth", "rate-limiting"]);
    let environment = value.split('\n').filter_map(|line| line.split_once('='));
    let environment = environment.map(|(name, value)| (format!("KONG_{name}"), value.to_owned()));
    _ = Conf::load(None, environment, &["key-auth"]);
});
