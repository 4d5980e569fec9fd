//! Programs that run before the process.

use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use crate::image::{Image, failure, output};

/// LAU-15, LAU-16, LAU-17, LAU-18, LAU-19
#[test]
fn exec_d_runs_in_order_and_each_sees_the_last() {
    let image = Image::with_process(r#"command = ["printenv", "SEEN"]"#);
    let step =
        |mark: &str| format!("printf 'SEEN = \"%s%s\"' \"$SEEN\" {mark} >&3; test \"$(pwd)\" = \"$APP\"");
    image.script("a/exec.d/2", &step("a2"));
    image.script("a/exec.d/1", &step("a1"));
    image.script("a/exec.d/web/1", &step("aw"));
    image.script("a/exec.d/worker/1", &step("no"));
    image.script("b/exec.d/1", &step("b1"));
    let elsewhere = image.script("c/hidden", &step("c1"));
    fs::create_dir_all(image.path("layers/a_b/c/exec.d")).unwrap();
    symlink(elsewhere, image.path("layers/a_b/c/exec.d/link")).unwrap();
    image.script("d/exec.d/silent", "true");
    let app = fs::canonicalize(image.app()).unwrap();
    assert_eq!(output(image.web().env("APP", &app)), "a1a2awb1c1\n");
}

#[test]
fn lau_16_exec_d_has_no_input_and_keeps_its_output() {
    let image = Image::with_process(r#"command = ["cat"]"#);
    image.script("a/exec.d/1", "cat; echo said");
    let mut child = image.web().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"for the app\n").unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(text, "said\nfor the app\n");
}

#[test]
fn lau_20_a_failing_exec_d_program_stops_the_launch() {
    for (body, expected) in [
        ("exit 3", "failed (exit status: 3)"),
        ("echo 'A = 1' >&3", "`A` is not a string"),
        ("echo 'A' >&3", "wrote to descriptor 3 what is not valid"),
    ] {
        let image = Image::with_process(r#"command = ["echo", "started"]"#);
        image.script("a/exec.d/1", body);
        let message = failure(&mut image.web(), 82);
        assert!(message.contains("/exec.d/1`") && message.contains(expected), "{message}");
    }
    let image = Image::with_process(r#"command = ["echo", "started"]"#);
    image.layer("a/exec.d/1", "#!/bin/sh\n");
    assert!(failure(&mut image.web(), 82).contains("could not be run: Permission denied"));
    let image = Image::with_process(r#"command = ["echo", "started"]"#);
    image.script("a/exec.d/1", "true");
    symlink("nowhere", image.path("layers/a_b/a/exec.d/2")).unwrap();
    assert!(failure(&mut image.web(), 82).contains("/exec.d/2`: No such file"));
}

#[test]
fn lau_21_more_than_a_pipe_holds_and_no_descriptor_left_behind() {
    // The shell alone looks: a pipe to another program would be open in it for a moment.
    const LIST: &str = "cd /proc/$$/fd && echo *";
    let image = Image::with_process(&format!(r#"command = ["sh", "-c", "echo ${{#BIG}}; {LIST}"]"#));
    image.script(
        "a/exec.d/1",
        "printf 'BIG = \"' >&3; head -c 100000 /dev/zero | tr '\\0' x >&3; printf '\"' >&3",
    );
    // The test itself may have been started with descriptors of somebody else's.
    let before = output(Command::new("sh").args(["-c", LIST]).stdin(Stdio::null()));
    assert_eq!(output(image.web().stdin(Stdio::null())), format!("100000\n{before}"));
}
