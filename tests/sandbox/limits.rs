//! What a guest may use up: time, memory, tables, handles, bytes of one call.

use std::time::{Duration, Instant};

use super::worker::while_running;
use super::{no_litter, raw_site, verdicts};
use crate::support::Site;

/// Guest with a limit of one second of CPU time, in both calls.
fn one_second_of_cpu(mut site: Site) -> Site {
    site.policy.limits.build_cpu_seconds = 1;
    site.policy.limits.detect_cpu_seconds = 1;
    // So that a test without its defence ends, too.
    site.policy.limits.build_wall_seconds = 20;
    site.policy.limits.detect_wall_seconds = 20;
    site
}

/// Milliseconds after the word `reached` of a message.
fn reached_milliseconds(text: &str) -> u64 {
    let (_, rest) = text.split_once("reached ").expect("it names what was reached");
    let number: String = rest.chars().filter(char::is_ascii_digit).take(4).collect();
    number.parse().expect("seconds with three decimals")
}

#[test]
fn g1_a_loop_in_build_ends_near_the_limit_and_its_neighbour_builds() {
    let site = one_second_of_cpu(Site::new().guest("spin-in-build"));
    let (neighbour, outcome) = while_running(&site, |_| Site::new().guest("well-behaved").build());
    neighbour.succeeded();
    let (_, text) = outcome.said();
    outcome.failed_with(
        "guest.cpu_limit",
        "buildpack `test/spin-in-build@1.0.0` used up its CPU time (limit 1.000 s, reached 1.",
    );
    assert!(reached_milliseconds(&text) <= 1250, "{text}");
    assert!(no_litter(&site));
}

/// WSM-02
#[test]
fn g1_a_loop_in_detect_ends_near_the_limit() {
    let outcome = one_second_of_cpu(Site::new().guest("spin-in-detect")).build();
    let (_, text) = outcome.said();
    outcome.detect_failed_with("guest.cpu_limit", "`detect_cpu_seconds`");
    assert!(reached_milliseconds(&text) <= 1250, "{text}");
}

/// WSM-02
#[test]
fn g1_start_functions_and_realloc_are_code_too() {
    for name in ["spin-in-start", "spin-in-realloc"] {
        let outcome = one_second_of_cpu(raw_site(name)).build();
        outcome.detect_failed_with("guest.cpu_limit", "used up its CPU time (limit 1.000 s");
    }
}

/// A guest whose wall time is over after a second.
fn one_second(name: &str) -> Site {
    let mut site = Site::new().guest(name);
    site.policy.limits.build_wall_seconds = 1;
    site.policy.limits.detect_wall_seconds = 1;
    site
}

#[test]
fn g2_whoever_blocks_inside_the_host_is_stopped_with_the_worker() {
    std::thread::scope(|scope| {
        for name in ["sleep", "poll", "nap-forever"] {
            scope.spawn(move || {
                let site = one_second(name);
                let started = Instant::now();
                let (pid, outcome) = while_running(&site, |pid| pid);
                outcome.failed_with("guest.wall_limit", "did not end in time (limit 1.000 s, reached 1.");
                assert!(reached_milliseconds(&outcome.said().1) <= 2000, "{:?}", outcome.said());
                assert!(started.elapsed() < Duration::from_secs(20));
                assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "the worker is gone");
                assert!(no_litter(&site));
            });
        }
    });
}

#[test]
fn g2_standard_input_is_empty() {
    let outcome = one_second("read-stdin").build();
    assert_eq!(outcome.succeeded().lines(), ["stdin: 0 bytes"]);
}

#[test]
fn g2_a_detect_that_hangs_costs_only_its_own_answer() {
    let mut site = one_second("sleep-in-detect").guest("well-behaved").guest("env-reader");
    site.policy.limits.detect_wall_seconds = 2;
    let outcome = site.build();
    outcome.detect_failed_with("guest.wall_limit", "test/sleep-in-detect@1.0.0");
    let verdicts = verdicts(&outcome);
    assert_eq!(verdicts.len(), 3, "{verdicts:?}");
    assert!(verdicts[0].1.starts_with("Error"), "{verdicts:?}");
    assert_eq!((verdicts[1].1.as_str(), verdicts[2].1.as_str()), ("Pass", "Pass"));
    assert!(no_litter(&site));
}

/// A guest that prints without a pause must not keep the parent from looking at the clock.
#[test]
fn g2_a_flood_of_lines_does_not_stop_the_clock() {
    let mut site = one_second("huge-log").env("BYTES", "10000000000");
    site.policy.limits.log_bytes = 1 << 40;
    let outcome = site.build();
    outcome.failed_with("guest.wall_limit", "did not end in time (limit 1.000 s, reached ");
    assert!(reached_milliseconds(&outcome.said().1) <= 3000, "{:?}", outcome.said());
}

const MIB: u64 = 1024 * 1024;

#[test]
fn g4_memory_is_summed_and_the_process_stays_small() {
    let mut site = Site::new().guest("grow-memory").env("BYTES", "268435456");
    site.policy.limits.memory_bytes = 48 * MIB;
    let (peak, outcome) = while_running(&site, super::worker::peak_memory);
    let said = outcome.succeeded().lines().join("\n");
    assert!(said.starts_with("no more after "), "{said}");
    // The engine and its code, besides what the guest was given.
    assert!(peak < (48 + 64) * MIB, "{} MiB", peak / MIB);
}

#[test]
fn g4_start_up_over_the_limit_is_refused_with_the_limit() {
    for (name, id, text) in [
        ("huge-memory", "guest.memory_limit", "used up its memory (limit 1 GiB, reached 3.9 GiB)"),
        ("many-memories", "guest.memory_limit", "used up its memory (limit 1 GiB, reached 1.0 GiB)"),
        ("many-instances", "guest.memory_limit", "has too many memories"),
        ("huge-tables", "guest.table_limit", "has too many tables (limit 64, reached 65)"),
        ("many-tables", "guest.table_limit", "has too many tables"),
    ] {
        let site = raw_site(name);
        let outcome = site.build();
        outcome.detect_failed_with(id, text);
        assert!(no_litter(&site));
    }
}

#[test]
fn g4_a_table_stops_growing_at_the_limit() {
    // The start function ends when growing fails; then `detect` traps, as it is written.
    let outcome = raw_site("grow-table").build();
    outcome.detect_failed_with("guest.table_limit", "used up its table elements (limit 1000000, reached 1");
}

#[test]
fn g5_each_knob_has_an_id_of_its_own() {
    let bytes = (3 * MIB).to_string();
    let site = |name: &str| Site::new().guest(name).env("BYTES", &bytes);
    site("huge-random").build().failed_with(
        "guest.random_limit",
        "buildpack `test/huge-random@1.0.0` asked for too many random bytes at once (limit 1 MiB",
    );
    site("huge-result").build().failed_with(
        "guest.result_limit",
        "buildpack `test/huge-result@1.0.0` returned too much (limit 1 MiB, reached 3.0 MiB)",
    );
    for name in ["huge-result", "huge-argument"] {
        let mut site = site(name);
        site.policy.limits.hostcall_bytes = 2 * MIB;
        site.build().failed_with("guest.hostcall_limit", "passed too much in one host call (limit 2 MiB");
    }
    let mut site = Site::new().guest("many-handles");
    site.policy.limits.handles = 60;
    site.build().failed_with("guest.handle_limit", "holds too many handles (limit 60, reached ");
}

#[test]
fn g5_open_files_are_bounded() {
    let mut site = Site::new().guest("many-handles");
    site.policy.limits.open_files = 100;
    let outcome = site.build();
    assert_eq!(outcome.succeeded().lines(), ["refused after 100: OutOfMemory"]);
}

#[test]
fn g5_a_listing_is_bounded() {
    let mut site = Site::new().guest("huge-directory").env("COUNT", "2000");
    site.policy.limits.hostcall_bytes = 256 * 1024;
    site.build().failed_with("guest.hostcall_limit", "passed too much in one host call (limit 256 KiB");
}

#[test]
fn g6_recursion_is_a_trap_and_no_crash() {
    Site::new().guest("recurse").build().failed_with(
        "guest.stack_limit",
        "buildpack `test/recurse@1.0.0` overflowed its stack (limit 512 KiB",
    );
    raw_site("recurse-in-start").build().detect_failed_with("guest.stack_limit", "overflowed its stack");
}

#[test]
fn g25_a_trap_in_the_start_function_is_one_calls_error() {
    raw_site("trap-in-start").build().detect_failed_with("guest.trap", "unreachable");
}
