//! Expressions of routes: no text eats the stack, and errors point into the text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sallyport_model::expression::{Expression, Subsystem};

fuzz_target!(|text: &str| {
    for subsystem in [Subsystem::Http, Subsystem::Stream] {
        if let Err(error) = Expression::parse(text, subsystem)
            && let Some((line, column)) = error.at
        {
            let width = text.lines().map(|line| line.chars().count()).max();
            assert!(line <= text.matches('\n').count() + 1, "{error}");
            assert!(column <= width.unwrap_or(0) + 2, "{error}");
        }
    }
});
