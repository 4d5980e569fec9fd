//! What is refused before any code of it runs.

use super::{raw_bytes, raw_site, site_of_bytes};
use crate::support::{Outcome, Site, guest};
use wapack_runtime::event::Event;

#[track_caller]
fn refused(bytes: &[u8], id: &str, text: &str) {
    let outcome = site_of_bytes("damaged", bytes).build();
    outcome.detect_failed_with(id, &format!("buildpack `test/damaged@1.0.0` cannot be loaded: {text}"));
}

#[test]
fn g21_other_worlds_are_refused_by_name() {
    for (name, id, text) in [
        ("core-module", "buildpack.not_a_component", "it is a core module, not a component"),
        ("empty-component", "buildpack.missing_export", "it does not export `detect`"),
        ("no-build", "buildpack.unsupported_import", "it imports `build`, which is not granted"),
        ("newer-contract", "buildpack.unsupported_import", "it imports `wapack:buildpack/"),
        ("newer-patch", "buildpack.unsupported_import", "it imports `wapack:buildpack/"),
        ("unknown-import", "buildpack.unsupported_import", "it imports `acme`, which is not granted"),
        (
            "unknown-function",
            "buildpack.unsupported_import",
            "it imports `launch-missiles`, which is not granted",
        ),
        ("mistyped-export", "buildpack.not_a_component", ""),
    ] {
        let outcome = raw_site(name).build();
        outcome.detect_failed_with(id, &format!("buildpack `test/{name}@1.0.0` cannot be loaded: {text}"));
    }
}

#[test]
fn g16_sockets_are_refused_at_load_with_the_name_of_the_import() {
    for name in ["connect", "send-datagram"] {
        Site::new()
            .guest(name)
            .build()
            .detect_failed_with("buildpack.unsupported_import", "it imports `wasi:sockets/");
    }
}

#[test]
fn g22_what_is_no_component_is_refused() {
    refused(b"", "buildpack.not_a_component", "it is empty");
    refused(b"#!/bin/sh\n", "buildpack.not_a_component", "it is not WebAssembly");
    refused(b"(component)", "buildpack.not_a_component", "it is WebAssembly text");
    let elf = std::fs::read("/proc/self/exe").expect("this program");
    refused(&elf[..4096], "buildpack.not_a_component", "it is a native program (ELF)");
    let whole = std::fs::read(guest("well-behaved")).expect("a component");
    refused(&whole[..whole.len() / 2], "buildpack.not_a_component", "it is not a valid component: ");
    refused(&raw_bytes("no-build")[..9], "buildpack.not_a_component", "it is not a valid component: ");
}

#[test]
fn g23_a_component_that_is_too_large_is_not_even_parsed() {
    let mut site = raw_site("unknown-import");
    site.policy.limits.component_bytes = 16;
    site.build().detect_failed_with("buildpack.compile_limit", "the component has ");
}

/// G23: a component that takes too much to compile is not compiled again in the next build.
#[test]
fn g23_what_could_not_be_compiled_is_remembered() {
    let mut site = Site::new().guest("well-behaved");
    // Less than a process needs before it has compiled anything.
    site.policy.limits.compile_memory_bytes = 1 << 20;
    let compiled = |outcome: &Outcome| {
        outcome.events.iter().filter(|event| matches!(event, Event::Compiling { .. })).count()
    };
    let first = site.build();
    assert_eq!(compiled(&first), 1);
    first.detect_failed_with("buildpack.compile_limit", "compiling it takes more than");
    let second = site.build();
    assert_eq!(compiled(&second), 0);
    second.detect_failed_with("buildpack.compile_limit", "compiling it takes more than");
    // With other limits it is tried again.
    site.policy.limits.compile_memory_bytes = 2 << 30;
    site.build().digest();
}
