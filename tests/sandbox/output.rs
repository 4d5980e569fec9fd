//! What guests print, return, and would like to differ between two builds.

use wapack_runtime::error::Error;
use wapack_runtime::executor::GuestFailure;
use wapack_runtime::fault::Diagnose as _;
use wapack_runtime::phase::build::BuildError;

use super::no_litter;
use crate::support::{Outcome, Site};

#[test]
fn g14_a_long_log_is_clipped_and_the_build_goes_on() {
    let mut site = Site::new().guest("huge-log").env("BYTES", "5000000");
    site.policy.limits.log_bytes = 1000;
    let outcome = site.build();
    let lines = outcome.succeeded().lines();
    assert_eq!(lines.len(), 11, "{lines:?}");
    assert_eq!(lines[10], "[log clipped: 1000 B]");
}

#[test]
fn g14_an_endless_line_is_cut_and_its_nuls_are_shown() {
    let mut site = Site::new().guest("endless-line").env("BYTES", "5000000");
    site.policy.limits.log_line_bytes = 50;
    site.policy.limits.log_bytes = 100_000_000;
    let outcome = site.build();
    assert_eq!(
        outcome.succeeded().lines(),
        ["no end \\u{0} in sight no end \\u{0} in sight no end \\u{0} in  [line cut]"]
    );
}

#[test]
fn g15_what_steers_terminals_is_escaped_in_lines_and_messages() {
    let outcome = Site::new().guest("terminal-tricks").build();
    assert_eq!(outcome.succeeded().lines(), GOLDEN);
    let outcome = Site::new().guest("terminal-tricks").env("FAIL", "yes").build();
    let (id, text) = outcome.said();
    assert_eq!(id, "buildpack.failed");
    let hint = outcome.error().hint().expect("a hint");
    assert_eq!(hint, "hint \\u{1b}[31m\\u{d}::error::fake");
    for said in [text, hint, format!("{:?}", outcome.events)] {
        assert!(!said.contains(|c: char| c.is_control() || "\u{202e}\u{2066}\u{feff}".contains(c)), "{said}");
    }
}

const GOLDEN: [&str; 0] = [];

#[test]
fn g20_nothing_of_the_host_differs_between_two_builds() {
    let build = || Site::new().guest("look-around").build();
    let (one, two) = (build(), build());
    assert_eq!(one.succeeded().lines(), two.succeeded().lines());
    assert!(one.printed("now SystemTime { tv_sec: 315532801, tv_nsec: 0 }"), "{:?}", one.lines());
    assert_eq!(one.result.expect("an image").digest, two.result.expect("an image").digest);
}

#[test]
fn g20_impossible_times_are_refused() {
    let outcome = Site::new().guest("set-times").build();
    let done: Vec<&str> = outcome
        .succeeded()
        .lines()
        .into_iter()
        .filter(|line| line.ends_with(": done") && !line.starts_with("modified"))
        .collect();
    assert_eq!(
        done,
        [
            "0.0: done",
            "0.999999999: done",
            "1.0: done",
            "1.999999999: done",
            "2147483648.0: done",
            "2147483648.999999999: done"
        ]
    );
}

fn trap(outcome: &Outcome) -> (&str, &[String]) {
    match outcome.error() {
        Error::Build(BuildError::Guest(GuestFailure::Trapped { message, backtrace, .. })) => {
            (message, backtrace)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn g25_a_panic_reaches_its_author_with_function_names() {
    let site = Site::new().guest("panic");
    let outcome = site.build();
    outcome.failed_with("guest.trap", "buildpack `test/panic@1.0.0` trapped: ");
    let (_, backtrace) = trap(&outcome);
    let at = |name: &str| backtrace.iter().position(|frame| frame.contains(name)).expect(name);
    assert!(at("innermost_function") < at("middle_function"), "{backtrace:?}");
    assert!(at("middle_function") < at("outer_function"), "{backtrace:?}");
    assert!(outcome.printed("index out of bounds: the len is 3 but the index is 6"), "{:?}", outcome.lines());
    assert!(no_litter(&site));
}

#[test]
fn g25_abort_and_exit_are_one_calls_error() {
    for (kind, text) in [
        ("abort", "wasm `unreachable` instruction executed"),
        ("exit", "it called exit with code 1"),
        ("exit-ok", "it called exit with code 0"),
    ] {
        let outcome = Site::new().guest("trap").env("KIND", kind).build();
        outcome.failed_with("guest.trap", text);
    }
}

#[test]
fn i6_every_name_a_guest_returns_is_checked() {
    for (kind, text) in BAD_OUTPUTS {
        let outcome = Site::new().guest("bad-output").env("KIND", kind).build();
        let (id, said) = outcome.said();
        assert_eq!((id, said.as_str()), ("buildpack.bad_output", text), "{kind}");
    }
}

const BAD_OUTPUTS: [(&str, &str); 0] = [];

/// What the operator's shell has is not what a buildpack gets.
#[test]
fn i7_a_guest_has_no_variable_of_the_host() {
    let outcome = Site::new().guest("env-reader").env("MINE", "yes").build();
    let names: Vec<&str> = outcome
        .succeeded()
        .lines()
        .into_iter()
        .filter_map(|line| line.strip_prefix("env ")?.split('=').next())
        .collect();
    assert_eq!(
        names,
        [
            "CNB_BUILDPACK_DIR",
            "CNB_EXEC_ENV",
            "CNB_LAYERS_DIR",
            "CNB_PLATFORM_DIR",
            "CNB_TARGET_ARCH",
            "CNB_TARGET_OS",
            "MINE"
        ]
    );
}
