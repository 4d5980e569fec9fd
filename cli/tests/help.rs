use crate::site::Site;

#[test]
fn help_names_every_command_and_shows_examples() {
    Site::new().run(&["--help"]).with(0).says(&[
        "Usage: wapack",
        "build    Build an image of an app",
        "detect   Find out which buildpacks would build an app",
        "rebase   Put the app of an image on another run image",
        "inspect  Look into a buildpack, an image, or the isolation of this machine",
        "config   Show the policy",
        "Examples:",
        "wapack build my/app",
    ]);
}

#[test]
fn help_of_build_names_every_flag_and_exit_code() {
    let ended = Site::new().run(&["build", "--help"]).with(0);
    for flag in [
        "<NAME>",
        "--path",
        "--builder",
        "--buildpack",
        "--env",
        "--run-image",
        "--cache-dir",
        "--no-network",
        "--offline",
        "--source",
        "--output",
        "--policy",
        "--grant",
        "--compression",
        "--launcher",
        "--user",
        "--process-type",
        "--keep-work-dir",
        "--update",
        "--output-format",
        "--verbose",
        "--quiet",
        "--no-color",
        "--target",
        "default-process",
        "--descriptor",
        "--include-git",
        "--env-file",
        "--tag",
        "--clear-cache",
        "--previous-image",
        "--explain",
        "--verify",
        "--creation-time",
        "--sbom-output-dir",
    ] {
        assert!(ended.out.contains(flag), "no {flag} in\n{}", ended.out);
    }
    ended.says(&["skopeo inspect oci:", "Exit codes:", "Use no network", "20  no buildpack takes part"]);
}

#[test]
fn arguments_that_are_not_known_are_code_2_with_a_suggestion() {
    let site = Site::new();
    site.run(&["build", "--buildpak", "x", "app"]).with(2).complains(&["--buildpak", "--buildpack"]);
    site.run(&["biuld"]).with(2).complains(&["unrecognized subcommand 'biuld'", "build"]);
    site.run(&["build"]).with(2).complains(&["<NAME>"]);
    site.run(&["build", "--grant", "network", "app"]).with(2).complains(&["`network` is not a grant"]);
    site.run(&["build", "--launcher", "maybe", "app"]).with(2).complains(&["auto", "always", "never"]);
    site.run(&[]).with(2).complains(&["Usage: wapack"]);
}

#[test]
fn a_closed_pipe_is_no_panic() {
    let mut child = Site::new().command(&["--help"]).spawn().unwrap();
    drop(child.stdout.take());
    let ended: crate::site::Ended = child.wait_with_output().unwrap().into();
    assert!(!ended.err.contains("panicked"), "{}", ended.err);
}
