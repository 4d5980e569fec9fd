//! Becoming the process.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Stdio;

use crate::image::{Image, failure, output};

/// LAU-22, LAU-32
#[test]
fn the_process_takes_the_launchers_place() {
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

/// LAU-23, LAU-31
#[test]
fn a_relative_program_is_meant_from_the_app() {
    let image = Image::with_process("command = [\"./run\"]\nworking-dir = \"sub\"");
    let program = image.file("workspace/run", "#!/bin/sh\nbasename \"$(pwd)\"\n");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(image.app().join("sub")).unwrap();
    assert_eq!(output(&mut image.web()), "sub\n");
}

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
