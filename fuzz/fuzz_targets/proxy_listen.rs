//! The grammar of listen properties: a listener prints as its address.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sallyport_gateway::conf::listener::listeners;

fuzz_target!(|text: &str| {
    let Ok(read) = listeners(text) else {
        return;
    };
    for listener in &read {
        _ = listener.options();
        let printed = listener.to_string();
        let again = listeners(&printed).expect("an address alone is a listener");
        assert_eq!(
            (&again[0].host, again[0].port),
            (&listener.host, listener.port)
        );
    }
});
