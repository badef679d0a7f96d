//! Catalogues of network contracts.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sallyport_contract::Catalogue;

fuzz_target!(|text: &str| {
    _ = Catalogue::parse(text);
});
