//! Which process runs, and with which arguments.

use crate::image::{BUILDPACK, Image, failure, needs_bash, output};

/// LAU-03, LAU-07
#[test]
fn the_name_chooses_the_process_and_user_arguments_replace_the_defaults() {
    let image = Image::with_process(
        r#"command = ["printf", "%s|", "fixed"]
args = ["default"]"#,
    );
    assert_eq!(output(&mut image.web()), "fixed|default|");
    assert_eq!(output(image.web().args(["a", "b c"])), "fixed|a|b c|");
}

#[test]
fn lau_04_a_user_command_needs_no_shell() {
    let image = Image::new("");
    assert_eq!(
        output(image.launcher("launcher").args(["--", "printf", "%s|", "$HOME", "x y"])),
        "$HOME|x y|"
    );
    let message = failure(&mut image.launcher("launcher"), 82);
    assert!(message.contains("no command was given"), "{message}");
}

/// LAU-01, API-07
#[test]
fn exit_codes_of_the_launcher_itself() {
    let image = Image::with_process(r#"command = ["true"]"#);
    assert!(failure(image.web().env_remove("CNB_PLATFORM_API"), 11).contains("is not set"));
    assert!(failure(image.web().env("CNB_PLATFORM_API", "0.99"), 11).contains("`0.99` is not supported"));
    assert!(failure(image.web().env("CNB_LAYERS_DIR", "/nowhere"), 82).contains("metadata.toml"));
    assert!(failure(image.web().env("CNB_APP_DIR", "/nowhere"), 82).contains("`/nowhere`"));
    let old = Image::new("[[buildpacks]]\nid = \"a/b\"\napi = \"9.9\"\n");
    assert!(failure(old.launcher("launcher").args(["--", "true"]), 12).contains("buildpack API `9.9`"));
    let bad = Image::new("[[processes]]\ntype = 1\n");
    assert!(failure(&mut bad.web(), 82).contains("`type` is not a string"));
}

/// What a process with one default argument gets, by Platform API, Buildpack API and shape of its command.
#[test]
fn lau_07_user_arguments_by_api() {
    for (platform, buildpack, command, args, alone, with_user) in [
        ("0.15", "0.12", r#"["printf", "%s|", "fixed"]"#, r#"["d"]"#, "fixed|d|", "fixed|a|b c|"),
        ("0.15", "0.9", r#"["printf", "%s|", "fixed"]"#, r#"["d"]"#, "fixed|d|", "fixed|a|b c|"),
        // Several elements are of a newer buildpack, whatever is written there.
        ("0.10", "0.8", r#"["printf", "%s|", "fixed"]"#, r#"["d"]"#, "fixed|d|", "fixed|a|b c|"),
        ("0.15", "0.12", r#""echo""#, r#"["d"]"#, "d\n", "a b c\n"),
        ("0.15", "0.8", r#""echo""#, r#"["d"]"#, "d\n", "d a b c\n"),
        ("0.10", "0.7", r#""echo""#, r#"["d"]"#, "d\n", "d a b c\n"),
        ("0.9", "0.12", r#""echo""#, r#"["d"]"#, "d\n", "d a b c\n"),
        ("0.7", "0.9", r#""echo""#, r#"["d"]"#, "d\n", "d a b c\n"),
    ] {
        let image = Image::new(&format!(
            "[[buildpacks]]\nid = \"a/b\"\napi = \"{buildpack}\"\n[[processes]]\ntype = \"web\"\n\
             command = {command}\nargs = {args}\ndirect = true\nbuildpack-id = \"a/b\"\n"
        ));
        let web = || {
            let mut web = image.web();
            web.env("CNB_PLATFORM_API", platform);
            web
        };
        assert_eq!(output(&mut web()), alone, "{platform} {buildpack} {command}");
        assert_eq!(output(web().args(["a", "b c"])), with_user, "{platform} {buildpack} {command}");
    }
}

/// LAU-07: nobody knows what the arguments of a buildpack that is not there would mean.
#[test]
fn lau_07_a_process_of_an_unknown_buildpack_takes_no_arguments() {
    let image = |direct: bool, of: &str| {
        Image::new(&format!(
            "[[processes]]\ntype = \"web\"\ncommand = [\"printf\"]\nargs = [\"%s|\"]\ndirect = {direct}\n{of}"
        ))
    };
    assert_eq!(output(&mut image(true, "").web()), "|");
    let message = failure(image(true, "").web().arg("x"), 82);
    assert!(message.contains("which the image does not list"), "{message}");
    // A shell process needs to know even without.
    needs_bash();
    assert_eq!(output(&mut image(false, "").web()), "|");
    let message = failure(&mut image(false, "buildpack-id = \"gone\"\n").web(), 82);
    assert!(message.contains("buildpack `gone`"), "{message}");
}

#[test]
fn a_process_without_a_command_keeps_nobody_else_from_running() {
    let image = Image::new("[[processes]]\ntype = \"empty\"\ndirect = true\ncommand = [\"\"]\n");
    assert_eq!(output(image.launcher("launcher").args(["--", "echo", "hi"])), "hi\n");
    assert_eq!(failure(&mut image.launcher("empty"), 82), "process `empty` has no command");
}

/// LAU-01, API-09
#[test]
fn lau_01_platform_apis_from_0_7_to_0_15_are_spoken() {
    let image = Image::with_process(r#"command = ["true"]"#);
    for minor in 7..=15 {
        // None of them is deprecated, so the strictest mode changes nothing.
        output(
            image.web().env("CNB_PLATFORM_API", format!("0.{minor}")).env("CNB_DEPRECATION_MODE", "error"),
        );
    }
    for api in ["", "0.6", "0.16", "1.0", "new"] {
        failure(image.web().env("CNB_PLATFORM_API", api), 11);
    }
}

/// API-07, API-10
#[test]
fn api_07_and_10_buildpack_apis_from_0_2_to_0_12_are_understood() {
    let start = |api: &str| {
        let image = Image::new(&format!("[[buildpacks]]\nid = \"a/b\"\napi = \"{api}\"\n"));
        let mut command = image.launcher("launcher");
        let result = command.args(["--", "true"]).output().unwrap();
        result.status.code()
    };
    for minor in 2..=12 {
        assert_eq!(start(&format!("0.{minor}")), Some(0), "0.{minor}");
    }
    for api in ["", "0.1", "0.13", "1.0"] {
        assert_eq!(start(api), Some(12), "{api}");
    }
}

/// LAU-02, CON-29
#[test]
fn lau_02_without_readable_metadata_nothing_starts() {
    let image = Image::with_process(r#"command = ["true"]"#);
    assert!(
        failure(image.web().env("CNB_LAYERS_DIR", "/nowhere"), 82).contains("/nowhere/config/metadata.toml")
    );
    for text in ["not toml", "processes = 1", "[[processes]]\ntype = 1\n"] {
        failure(&mut Image::new(text).web(), 82);
    }
}

#[test]
fn lau_05_the_variable_for_a_process_type_only_warns() {
    let image = Image::new(&format!(
        "{BUILDPACK}[[processes]]\ntype = \"web\"\ncommand = [\"echo\", \"web\"]\ndirect = true\n\
         [[processes]]\ntype = \"worker\"\ncommand = [\"echo\", \"worker\"]\ndirect = true\n"
    ));
    let result = image.web().env("CNB_PROCESS_TYPE", "worker").output().unwrap();
    assert_eq!(String::from_utf8(result.stdout).unwrap(), "web\n");
    let warning = String::from_utf8(result.stderr).unwrap();
    assert!(warning.starts_with("WARNING: ") && warning.contains("worker"), "{warning}");
    // And nothing chooses a process when the entrypoint does not.
    let mut none = image.launcher("launcher");
    assert_eq!(none.env("CNB_PROCESS_TYPE", "worker").output().unwrap().status.code(), Some(82));
}

#[test]
fn lau_06_processes_of_other_execution_environments_do_not_start() {
    let image = Image::with_process("command = [\"echo\", \"hi\"]\nexec-env = [\"test\"]");
    assert!(failure(&mut image.web(), 82).contains("execution environment"));
    assert_eq!(output(image.web().env("CNB_EXEC_ENV", "test")), "hi\n");
    assert_eq!(output(image.web().env("CNB_PLATFORM_API", "0.14")), "hi\n");
    for all in ["exec-env = [\"*\"]", "exec-env = []", ""] {
        output(&mut Image::with_process(&format!("command = [\"echo\", \"hi\"]\n{all}")).web());
    }
    // Empty is `production`.
    let image = Image::with_process("command = [\"echo\", \"hi\"]\nexec-env = [\"production\"]");
    assert_eq!(output(image.web().env("CNB_EXEC_ENV", "")), "hi\n");
}

#[test]
fn lau_33_an_error_is_one_line_on_standard_error() {
    let result = Image::new("").web().output().unwrap();
    let text = String::from_utf8(result.stderr).unwrap();
    assert!(text.starts_with("ERROR: failed to launch: ") && text.lines().count() == 1, "{text}");
    assert_eq!(result.stdout, b"");
}
