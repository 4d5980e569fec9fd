//! How programs start, refuse to start, and say so.

use super::fixture::{Lifecycle, Platform, is_root};
use crate::image::tools::skip;

fn platform() -> Platform {
    Platform::new(Lifecycle::ours(), "0.15")
}

/// CLI-06: warnings and errors on standard error, one line for an error.
#[test]
fn cli_06_errors_are_one_line_on_standard_error() {
    let mut platform = platform();
    let ended = platform.run("analyzer", &["-layers"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (2, ""));
    assert_eq!(ended.stderr, "ERROR: failed to parse flags: flag needs an argument: -layers\n");
    platform.variables.remove("CNB_PLATFORM_API");
    let ended = platform.run("detector", &["-x"]);
    assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.lines().count()), (11, "", 1));
    assert!(ended.stderr.starts_with("ERROR: failed to get platform API version"), "{}", ended.stderr);
    let ended = platform.run("lifecycle", &["-version"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    assert!(ended.stdout.starts_with("0.21."), "{}", ended.stdout);
}

/// DET-16: as root, and only as root.
#[test]
fn det_16_detector_and_builder_refuse_root() {
    if !is_root() {
        skip("not run as root, so there is nothing to refuse");
        return;
    }
    let platform = platform();
    for (program, phase) in [("detector", "detect"), ("builder", "build")] {
        let ended = platform.run_as_we_are(program, &[]);
        assert_eq!(ended.code, 1, "{}", ended.said());
        assert!(ended.stderr.contains(&format!("ERROR: failed to {phase}: refusing to run as root")));
    }
}

/// CLI-11: whoever is not root cannot become somebody else.
#[test]
fn cli_11_a_user_cannot_become_another() {
    let mut platform = platform();
    platform.set("CNB_USER_ID", "4321");
    platform.variables.remove("CNB_CACHE_DIR");
    let ended = platform.run("analyzer", &["-layers", "/nonexistent", super::fixture::IMAGE]);
    assert_eq!(ended.code, 1, "{}", ended.said());
    assert!(ended.stderr.contains("ERROR: failed to exec as user 4321:"), "{}", ended.stderr);
}

/// RPT-05, CLI-10
#[test]
fn rpt_05_layouts_need_to_be_asked_for_twice() {
    let mut platform = platform();
    platform.variables.remove("CNB_EXPERIMENTAL_MODE");
    let ended = platform.run("analyzer", &[super::fixture::IMAGE]);
    assert_eq!(ended.code, 1, "{}", ended.said());
    assert!(ended.stderr.contains("experimental features are disabled"), "{}", ended.stderr);
}
