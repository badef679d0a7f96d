//! Declarative documents in both dialects: what is accepted, written flat, is accepted again as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sallyport_gateway::Configuration;
use sallyport_model::RouterFlavor;
use sallyport_model::declarative::{Format, parse, parse_text};
use sallyport_plugins::schemas;
use sallyport_wire::hashes;

fuzz_target!(|text: &str| {
    for format in [Format::File, Format::Payload] {
        let Ok(declared) = parse_text(text, format, schemas()) else {
            continue;
        };
        let again = parse(declared.value.clone(), Format::Payload, schemas());
        match again {
            Ok(again) => assert_eq!(again.value, declared.value),
            Err(problems) => panic!("refused by itself: {problems:?}"),
        }
        let hash = hashes(&declared.value).config;
        for flavor in RouterFlavor::ALL {
            _ = Configuration::empty(flavor).next(&declared, hash);
        }
    }
});
