//! The real launcher against a layers directory, as a container would start it.

#![expect(clippy::unwrap_used, reason = "helpers of tests; clippy.toml reaches only the tests themselves")]

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

const LAUNCHER: &str = env!("CARGO_BIN_EXE_launcher");

/// An image's directories on disk.
struct Image {
    root: TempDir,
}

impl Image {
    fn new(metadata: &str) -> Self {
        let image = Self { root: TempDir::new().unwrap() };
        fs::create_dir_all(image.app()).unwrap();
        image.file("layers/config/metadata.toml", metadata);
        image
    }

    /// One direct process `web` of a current buildpack `a/b`.
    fn with_process(command: &str) -> Self {
        Self::new(&format!(
            "{BUILDPACK}\n[[processes]]\ntype = \"web\"\ndirect = true\nbuildpack-id = \"a/b\"\n{command}\n"
        ))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn app(&self) -> PathBuf {
        self.path("workspace")
    }

    /// A file of layer `layer` of buildpack `a/b`.
    fn layer(&self, name: &str, contents: &str) -> PathBuf {
        self.file(&format!("layers/a_b/{name}"), contents)
    }

    fn file(&self, name: &str, contents: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, contents).unwrap();
        path
    }

    fn script(&self, name: &str, body: &str) -> PathBuf {
        let path = self.layer(name, &format!("#!/bin/sh\n{body}\n"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// The launcher under the name of a process type, with an image's environment.
    fn launcher(&self, name: &str) -> Command {
        let mut command = Command::new(LAUNCHER);
        command
            .arg0(format!("/cnb/process/{name}"))
            .env_clear()
            .env("PATH", "/cnb/process:/cnb/lifecycle:/usr/bin:/bin")
            .env("CNB_PLATFORM_API", "0.15")
            .env("CNB_LAYERS_DIR", self.path("layers"))
            .env("CNB_APP_DIR", self.app());
        command
    }

    fn web(&self) -> Command {
        self.launcher("web")
    }
}

const BUILDPACK: &str = "[[buildpacks]]\nid = \"a/b\"\nversion = \"1\"\napi = \"0.12\"\n";

/// What a launch printed; it must have succeeded, and printed nothing of its own.
fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    assert_eq!(errors, "");
    String::from_utf8(output.stdout).unwrap()
}

/// The one line a failed launch printed.
fn failure(command: &mut Command, code: i32) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let errors = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(code), "{errors}");
    assert_eq!(stdout, b"", "a failed launch starts nothing");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    errors.strip_prefix("ERROR: failed to launch: ").expect(&errors).trim_end().to_owned()
}

fn has_bash() -> bool {
    Path::new("/bin/bash").exists()
}

#[test]
fn lau_03_07_the_name_chooses_the_process_and_user_arguments_replace_the_defaults() {
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

#[test]
fn lau_10_11_the_process_does_not_see_the_launchers_settings() {
    let image = Image::with_process(r#"command = ["env"]"#);
    assert_eq!(
        output(image.web().env("CNB_EXEC_ENV", "test").env("CNB_DEPRECATION_MODE", "quiet").env("MINE", "1")),
        "CNB_EXEC_ENV=test\nMINE=1\nPATH=/usr/bin:/bin\n"
    );
}

/// ENV-25, LAU-08
#[test]
fn lau_12_13_env_16_17_layers_change_the_environment_in_order() {
    let image = Image::with_process(r#"command = ["env"]"#);
    image.layer("a/bin/x", "");
    image.layer("b/bin/x", "");
    image.layer("b/lib/x", "");
    image.layer("a/env/OVER", "env");
    image.layer("a/env.launch/OVER", "launch");
    image.layer("a/env.launch/web/OVER", "web");
    image.layer("a/env.launch/worker/OVER", "worker");
    image.layer("a/env.build/OVER", "build");
    image.layer("a/env/LIST.append", "a");
    image.layer("a/env/LIST.delim", ":");
    image.layer("b/env/LIST.append", "b");
    image.layer("b/env/LIST.delim", ":");
    image.layer("b/env/GIVEN.default", "lost");
    image.layer("b/env/WANTED.default", "kept");
    image.layer("a.toml", "[types]");
    let layers = image.path("layers/a_b");
    let layers = layers.to_str().unwrap();
    let web = output(image.web().env("GIVEN", "user").env("OVER", "user"));
    assert_eq!(
        web,
        format!(
            "GIVEN=user\nLD_LIBRARY_PATH={layers}/b/lib\nLIST=a:b\nOVER=web\n\
             PATH={layers}/b/bin:{layers}/a/bin:/usr/bin:/bin\nWANTED=kept\n"
        )
    );
    // Without a process type nothing that belongs to a type applies (LAU-08).
    let user = output(image.launcher("launcher").args(["--", "printenv", "OVER"]));
    assert_eq!(user, "launch\n");
}

#[test]
fn env_17_later_buildpacks_come_first_and_missing_ones_are_skipped() {
    let image = Image::new(
        "[[buildpacks]]\nid = \"z\"\napi = \"0.9\"\n[[buildpacks]]\nid = \"gone\"\napi = \"0.9\"\n\
         [[buildpacks]]\nid = \"a\"\napi = \"0.9\"\n",
    );
    image.file("layers/z/l/bin/x", "");
    image.file("layers/a/l/bin/x", "");
    let layers = image.path("layers");
    let layers = layers.to_str().unwrap();
    assert_eq!(
        output(image.launcher("launcher").args(["--", "printenv", "PATH"])),
        format!("{layers}/a/l/bin:{layers}/z/l/bin:/usr/bin:/bin\n")
    );
}

#[test]
fn lau_16_to_19_exec_d_runs_in_order_and_each_sees_the_last() {
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

/// LAU-32
#[test]
fn lau_22_the_process_takes_the_launchers_place() {
    let image = Image::with_process(r#"command = ["sh", "-c", "echo $$; exit 7"]"#);
    let mut child = image.web().stdout(Stdio::piped()).spawn().unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text.trim(), child.id().to_string());
    assert_eq!(child.wait().unwrap().code(), Some(7));
}

#[test]
fn lau_22_the_name_is_as_written_and_found_in_the_new_path() {
    let image = Image::with_process(r#"command = ["mine"]"#);
    image.layer("a/env/ZERO", "");
    let bin = image.path("layers/a_b/a/bin");
    fs::create_dir_all(&bin).unwrap();
    symlink("/bin/sh", bin.join("mine")).unwrap();
    assert_eq!(output(image.web().args(["-c", "tr '\\0' ' ' </proc/$$/cmdline | cut -d' ' -f1"])), "mine\n");
}

#[test]
fn lau_23_31_a_relative_program_is_meant_from_the_app() {
    let image = Image::with_process("command = [\"./run\"]\nworking-dir = \"sub\"");
    let program = image.file("workspace/run", "#!/bin/sh\nbasename \"$(pwd)\"\n");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(image.app().join("sub")).unwrap();
    assert_eq!(output(&mut image.web()), "sub\n");
}

/// LAU-33
#[test]
fn lau_24_a_command_that_cannot_run_is_named() {
    let message = |command: &str| {
        let image = Image::with_process(&format!("command = [\"{command}\"]"));
        image.layer("a/bin/plain", "not executable");
        image.file("workspace/noexec", "x");
        let strange = image.file("workspace/strange", "#!/no/such/interpreter\n");
        fs::set_permissions(strange, fs::Permissions::from_mode(0o755)).unwrap();
        failure(&mut image.web(), 82)
    };
    assert_eq!(message("nowhere").split(" in PATH").next().unwrap(), "`nowhere` was not found");
    assert!(message("plain").starts_with("`plain` is not executable: "));
    assert!(message("./noexec").contains("Permission denied"));
    assert!(message("./missing").contains("No such file"));
    assert!(message("./strange").contains("the interpreter or loader it names is not in this image"));
}

/// API-07, LAU-01, LAU-02, LAU-33
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

#[test]
fn lau_25_26_30_profiles_share_a_shell_before_the_command() {
    if !has_bash() {
        return;
    }
    let image = Image::new(&format!(
        "{BUILDPACK}[[processes]]\ntype = \"web\"\ncommand = \"echo \\\"$SEEN\\\" && basename \\\"$PWD\\\"\"\n\
         buildpack-id = \"a/b\"\nworking-dir = \"sub\"\n"
    ));
    fs::create_dir(image.app().join("sub")).unwrap();
    image.layer("a/profile.d/1.sh", "name=$(basename \"$0\"); export SEEN=$name");
    image.layer("a/profile.d/web/1.sh", "SEEN=$SEEN-aw");
    image.layer("a/profile.d/worker/1.sh", "SEEN=$SEEN-no");
    image.layer("b/profile.d/1.sh", "SEEN=$SEEN-b:$(basename \"$PWD\")");
    image.file("workspace/.profile", "SEEN=$SEEN-app");
    assert_eq!(output(&mut image.web()), "web-aw-b:workspace-app\nsub\n");
}

#[test]
fn lau_28_each_word_of_a_shell_process_is_expanded_once() {
    if !has_bash() {
        return;
    }
    let image = Image::new("");
    image.file("workspace/.profile", "export WORDS='two  words' QUOTED='say \"hi\"'");
    let printed = output(image.launcher("launcher").args([
        "printf",
        "%s|",
        "$WORDS",
        "$QUOTED",
        "*",
        "-n",
        "$(echo x)",
    ]));
    assert_eq!(printed, "two  words|say \"hi\"|*|-n|x|");
    let mut child =
        image.launcher("launcher").args(["sh", "-c", "echo \\$\\$"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text.trim(), child.id().to_string());
    child.wait().unwrap();
}
