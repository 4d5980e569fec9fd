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
        ["no end \\u{0} in sight no end \\u{0} in sight no end \\u{0} in si [line cut]"]
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
        assert!(
            !said.contains(|c: char| c.is_control() && c != '\t' || "\u{202e}\u{2066}\u{feff}".contains(c)),
            "{said}"
        );
    }
}

const GOLDEN: [&str; 29] = [
    "\\u{1b}[31mred\\u{1b}[0m",
    "\\u{1b}[2J\\u{1b}[Hcleared",
    "\\u{1b}]0;title\\u{7}",
    "\\u{1b}]52;c;aGk=\\u{7}",
    "\\u{1b}]8;;http://evil.example\\u{1b}\\link\\u{1b}]8;;\\u{1b}\\",
    "\\u{1b}P+q544e\\u{1b}\\",
    "\\u{1b}c",
    "\\u{9b}31m8-bit",
    "hidden\\u{d}shown",
    "back\\u{8}\\u{8}\\u{8}space",
    "bell\\u{7}",
    "form\\u{c}feed",
    "vertical\\u{b}tab",
    "del\\u{7f}",
    "\\u{202e}txt.exe",
    "\\u{2066}isolate\\u{2069}",
    "\\u{200f}mark",
    "\\u{feff}bom",
    "\\u{2028}separator",
    "::set-output name=token::stolen",
    "::add-mask::x",
    "::error::fake",
    "#\\u{23}vso[task.setvariable variable=x]y",
    "#\\u{23}[error]fake",
    "##teamcity[buildStatus text='fake']",
    "error: fake",
    "===> EXPORTING",
    "tab\tstays",
    "größe 😀 stays",
];

#[test]
fn g20_nothing_of_the_host_differs_between_two_builds() {
    let build = || Site::new().guest("look-around").build();
    let (one, two) = (build(), build());
    let seen = |outcome: &Outcome| -> Vec<String> {
        let lines = outcome.succeeded().lines().into_iter().map(str::to_owned);
        lines.filter(|line| !line.starts_with("took ")).collect()
    };
    assert_eq!(seen(&one), seen(&two));
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
        let wanted = format!("buildpack `test/bad-output@1.0.0` returned something invalid: {text}");
        assert_eq!((id, said), ("buildpack.bad_output", wanted), "{kind}");
    }
}

/// `KIND` and what is wrong with it.
const BAD_OUTPUTS: [(&str, &str); 20] = [
    ("layer-outside", "layer name `../x` is not valid: it has a path separator"),
    ("layer-not-opened", "layer `never` was never opened"),
    ("layer-twice", "layer `fine` is returned twice"),
    ("layer-metadata", "the metadata of layer `fine` is not TOML: unclosed array, expected `]`"),
    ("env-name", "layer `fine` sets a variable named `A=B`, which is not letters, digits and `_`"),
    ("env-name-path", "layer `fine` sets a variable named `../../x`, which is not letters, digits and `_`"),
    ("env-value", "the value of `A` in layer `fine` has a NUL or is too long"),
    ("env-process", "process type `../x` is not valid: it may have letters, digits, `.`, `_` and `-` only"),
    (
        "process-type",
        "process type `we b/..` is not valid: it may have letters, digits, `.`, `_` and `-` only",
    ),
    ("process-empty", "process `web` has no command"),
    ("process-nul", "process `web` has a NUL in its command"),
    ("process-twice", "process `web` is defined twice"),
    ("two-defaults", "more than one process is the default"),
    ("link-path", "the app link `../x` is not a path below its directory"),
    ("link-absolute", "the app link `/etc/x` is not a path below its directory"),
    ("link-target", "the target of an app link `../../x` is not a path below its directory"),
    ("link-layer", "the app link `x` points into layer `never`, which is not returned"),
    ("label-empty", "the key of a label `` is empty or has control characters"),
    ("unmet-unknown", "`never asked for` is unmet but was not in the plan"),
    ("store", "the metadata of `store` is not TOML: extra `=`, expected nothing"),
];

/// ENV-03, ENV-07
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
