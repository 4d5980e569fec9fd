//! Processes that a shell starts, and profile scripts.

use std::fs;
use std::io::Read;
use std::process::Stdio;

use crate::image::{BUILDPACK, Image, needs_bash, output};

/// LAU-25, LAU-26, LAU-30
#[test]
fn profiles_share_a_shell_before_the_command() {
    needs_bash();
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

/// LAU-25: the parameters are the command and its arguments, as the reference has them.
#[test]
fn lau_25_profiles_see_what_is_going_to_run() {
    needs_bash();
    let image = Image::new("");
    image.file("workspace/.profile", "export SEEN=\"$# $1 $2\"");
    assert_eq!(output(image.launcher("launcher").args(["printf", "%s|", "$SEEN"])), "3 printf %s||");
    assert_eq!(output(image.launcher("launcher").arg("echo \"$SEEN\"")), "1 echo \"$SEEN\" \n");
}

#[test]
fn lau_28_each_word_of_a_shell_process_is_expanded_once() {
    needs_bash();
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

/// A shell process of a buildpack of `api`.
fn process(api: &str, command: &str, args: &str) -> Image {
    Image::new(&format!(
        "[[buildpacks]]\nid = \"a/b\"\napi = \"{api}\"\n[[processes]]\ntype = \"web\"\n\
         command = '{command}'\nargs = {args}\ndirect = false\nbuildpack-id = \"a/b\"\n"
    ))
}

#[test]
fn lau_27_without_arguments_the_command_is_a_script() {
    needs_bash();
    for api in ["0.2", "0.8", "0.12"] {
        let image = process(api, "echo \"$A\" && echo \"b  c\"; exit 0", "[]");
        assert_eq!(output(image.web().env("A", "x  y")), "x  y\nb  c\n", "{api}");
    }
    let image = Image::new("");
    assert_eq!(output(image.launcher("launcher").arg("echo \"$A\" && echo b").env("A", "1")), "1\nb\n");
}

#[test]
fn lau_28_with_arguments_each_is_one_word() {
    needs_bash();
    for api in ["0.4", "0.8", "0.12"] {
        let image = process(api, "printf", r#"["%s|", "$A", "$Q"]"#);
        image.file("workspace/.profile", "export A='from  profile'");
        assert_eq!(output(image.web().env("Q", "say \"hi\" 'x'")), "from  profile|say \"hi\" 'x'|", "{api}");
    }
}

#[test]
fn lau_29_before_api_0_4_arguments_are_those_of_the_script() {
    needs_bash();
    for api in ["0.2", "0.3"] {
        let image = process(api, "echo \"$1-$2\"", r#"["$A", "b c"]"#);
        assert_eq!(output(image.web().env("A", "x")), "$A-b c\n", "{api}");
    }
}

#[test]
fn lau_32_a_shell_process_ends_with_its_own_code() {
    needs_bash();
    assert_eq!(process("0.8", "exit 9", "[]").web().output().unwrap().status.code(), Some(9));
    let missing = process("0.8", "no-such-program", r#"["x"]"#).web().output().unwrap();
    assert_eq!(missing.status.code(), Some(127));
}
