//! What processes need: made by real compilers, and judged by the real loader.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use wapack_runtime::fault::Diagnose as _;
use wapack_runtime::oci::layout::read_image;
use wapack_runtime::phase::export::{Base, RunImage};

use super::layout::debian;
use super::run::embedded;
use super::tools::{have, run};
use crate::support::{Site, found};

/// An app with a `Procfile`.
fn site(procfile: &str) -> Site {
    let mut site = Site::new();
    site.launcher = Some(embedded("launcher/linux-amd64"));
    site.buildpacks.push(embedded("builder/buildpacks/wapack_procfile/0.1.0"));
    fs::write(site.path("app/Procfile"), procfile).expect("a file");
    site
}

fn run_image(layout: &Path) -> RunImage {
    let image = read_image(layout, Some("debian"), None).expect("the base");
    RunImage { base: Base::Image(Box::new(found(&image))), name: "debian:test".into(), mirrors: vec![] }
}

fn program(site: &Site, path: &str, bytes: &[u8]) {
    let path = site.path("app").join(path);
    fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    fs::write(&path, bytes).expect("a file");
    fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("a mode");
}

/// Compiles a program, or a library, into the app.
fn compile(site: &Site, compiler: &str, path: &str, source: &str, arguments: &[&str]) {
    let output = site.path("app").join(path);
    fs::create_dir_all(output.parent().expect("a parent")).expect("a directory");
    let mut command = Command::new(compiler);
    command.args(["-x", "c", "-", "-x", "none", "-o"]).arg(&output).args(arguments);
    let mut child =
        command.current_dir(site.path("app")).stdin(Stdio::piped()).spawn().expect("the compiler is there");
    child.stdin.take().expect("it was asked for").write_all(source.as_bytes()).expect("it reads");
    assert!(child.wait().expect("it ends").success(), "{command:?}");
}

/// The error of a build: id, text and cause, hint.
fn refusal(site: &Site) -> (&'static str, String, String) {
    let error = site.build().result.expect_err("a refusal");
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(next) = cause {
        if !text.contains(&next.to_string()) {
            text = format!("{text}: {next}");
        }
        cause = next.source();
    }
    assert!(!site.path("image/index.json").exists() || site.path("built").exists(), "no image is made");
    (error.id(), text, error.hint().unwrap_or_default())
}

const MAIN: &str = "int answer(void); int main(void) { return answer(); }";
const LIBRARY: &str = "int answer(void) { return 42; }";

#[test]
fn a_program_with_a_library_of_its_own_needs_both_loader_and_library() {
    if !have(&["gcc"]) {
        return;
    }
    let mut site = site("web: ./bin/main\n");
    compile(&site, "gcc", "lib/libanswer.so", LIBRARY, &["-shared", "-fPIC", "-Wl,-soname,libanswer.so"]);
    compile(&site, "gcc", "bin/main", MAIN, &["lib/libanswer.so", "-Wl,-rpath,$ORIGIN/../lib"]);
    let (id, text, hint) = refusal(&site);
    assert_eq!(id, "export.no_loader");
    assert_eq!(
        text,
        "process `web` cannot start on the run image `scratch`: `/workspace/bin/main` of the app needs the \
         loader `/lib64/ld-linux-x86-64.so.2`, which is not in the image"
    );
    assert_eq!(
        hint,
        "take a run image that has glibc, such as one made from Debian with `libc6` (`--run-image oci:DIR:NAME`)"
    );
    let Some(base) = debian() else { return };
    site.run_image = run_image(&base);
    let first = site.build().digest();
    assert_eq!(site.build().digest(), first);
    fs::write(site.path("built"), "").expect("a file");
    fs::remove_file(site.path("app/lib/libanswer.so")).expect("it is there");
    let (id, text, _) = refusal(&site);
    assert_eq!(id, "export.no_libraries");
    assert!(
        text.ends_with("`/workspace/bin/main` of the app does not find the library `libanswer.so`"),
        "{text}"
    );
}

#[test]
fn static_programs_need_nothing_and_those_of_musl_need_musl() {
    if !have(&["gcc", "musl-gcc"]) {
        return;
    }
    let source = "int main(void) { return 0; }";
    let on_scratch = site("web: ./server\n");
    compile(&on_scratch, "musl-gcc", "server", source, &["-static"]);
    on_scratch.build().digest();
    let Some(base) = debian() else { return };
    let mut on_debian = site("web: ./server\n");
    on_debian.run_image = run_image(&base);
    compile(&on_debian, "musl-gcc", "server", source, &[]);
    let (id, text, hint) = refusal(&on_debian);
    assert_eq!(id, "export.no_loader");
    assert!(text.contains("`/lib/ld-musl-x86_64.so.1`"), "{text}");
    assert_eq!(hint, "take a run image that has musl (`--run-image oci:DIR:NAME`)");
}

#[test]
fn programs_for_other_processors_and_scripts_without_interpreter() {
    if !have(&["musl-gcc"]) {
        return;
    }
    let site = site("web: ./server\n");
    compile(&site, "musl-gcc", "server", "int main(void) { return 0; }", &["-static"]);
    let mut bytes = fs::read(site.path("app/server")).expect("a file");
    // `e_machine`: 183 is AArch64.
    bytes[18..20].copy_from_slice(&[183, 0]);
    program(&site, "server", &bytes);
    let (id, text, _) = refusal(&site);
    assert_eq!(id, "export.wrong_machine");
    assert!(
        text.ends_with("`/workspace/server` of the app is a program for `arm64`, the image is for `amd64`")
    );
    for (script, expected) in [
        ("#!/usr/bin/python9\n", "needs `/usr/bin/python9`, which is not in the image"),
        ("#!/bin/sh\r\necho\r\n", "needs `/bin/sh\\r`, which is not in the image"),
        ("#!/workspace/env node\n", "needs `node`, which is not in the image"),
        ("#!/workspace/env -S A=1 node --x\n", "needs `node`, which is not in the image"),
    ] {
        program(&site, "server", script.as_bytes());
        bytes[18..20].copy_from_slice(&[62, 0]);
        program(&site, "env", &bytes);
        let (id, text, hint) = refusal(&site);
        assert_eq!(id, "export.no_interpreter");
        assert!(text.ends_with(expected), "{text}");
        assert_eq!(hint.contains("line ends"), script.contains('\r'), "{hint}");
    }
    fs::set_permissions(site.path("app/server"), Permissions::from_mode(0o644)).expect("a mode");
    let (id, _, hint) = refusal(&site);
    assert_eq!((id, hint.as_str()), ("export.not_executable", "make it executable: `chmod +x server`"));
    fs::remove_file(site.path("app/server")).expect("it is there");
    let (id, text, _) = refusal(&site);
    assert_eq!(id, "export.no_program");
    assert!(text.ends_with("`./server` is not in the image"), "{text}");
}

#[test]
fn a_shell_that_is_not_there_is_an_error_of_the_build() {
    let mut site = site("web: echo $HOME | cat\n");
    let (id, text, hint) = refusal(&site);
    assert_eq!(id, "export.no_program");
    assert!(text.contains("`bash` is in no directory of `PATH`: `/usr/local/sbin:"), "{text}");
    assert!(
        hint.starts_with("this process starts through a shell: take a run image that has `bash`"),
        "{hint}"
    );
    let Some(base) = debian() else { return };
    site.run_image = run_image(&base);
    site.build().digest();
}

/// All programs of a Debian, and what the loader inside says of each.
fn programs_of(layout: &Path, bundle: &Path) -> Vec<(String, BTreeSet<String>)> {
    let mut umoci = Command::new("umoci");
    run(umoci.args(["unpack", "--image"]).arg(format!("{}:debian", layout.display())).arg(bundle));
    let root = bundle.join("rootfs");
    let mut programs = Vec::new();
    let directories = ["bin", "sbin", "usr/bin", "usr/sbin"].map(|name| root.join(name));
    for entry in directories.iter().flat_map(|directory| fs::read_dir(directory).expect("programs")) {
        let path = entry.expect("an entry").path();
        let path = path.strip_prefix(&root).expect("it is below").to_str().expect("a name");
        let path = format!("/{path}");
        let Ok(bytes) = fs::read(root.join(&path[1..])) else { continue };
        if !bytes.starts_with(b"\x7fELF") {
            continue;
        }
        let output = Command::new("chroot")
            .arg(&root)
            .args(["/lib64/ld-linux-x86-64.so.2", "--list", &path])
            .output()
            .expect("chroot");
        // It ends at the first one; no program here misses two.
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let missing = text.lines().filter_map(|line| {
            let rest = line.split_once("error while loading shared libraries: ")?.1;
            rest.split(':').next()
        });
        programs.push((path, missing.map(str::to_owned).collect()));
    }
    programs.sort();
    programs
}

/// The run image as the loader in it sees it: whole, and with libraries taken away by whiteouts.
#[test]
fn programs_of_debian_start_where_their_loader_says_so() {
    if !have(&["umoci", "chroot", "tar"]) {
        return;
    }
    let Some(base) = debian() else { return };
    let mut site = site("");
    let programs = programs_of(&base, &site.path("whole"));
    assert!(programs.len() > 5, "{programs:?}");
    assert!(programs.iter().all(|(_, missing)| missing.is_empty()), "{programs:?}");
    let lines = |programs: &[&String]| -> String {
        let line = |(number, path)| format!("p{number}: {path}");
        programs.iter().enumerate().map(line).collect::<Vec<_>>().join("\n")
    };
    let all: Vec<&String> = programs.iter().map(|(path, _)| path).collect();
    fs::write(site.path("app/Procfile"), lines(&all)).expect("a file");
    site.run_image = run_image(&base);
    site.build().digest();

    // The same Debian without the libraries of some.
    let broken = site.path("broken");
    run(Command::new("cp").arg("-r").arg(&base).arg(&broken));
    let root = site.path("whole/rootfs");
    let gone = site.path("gone");
    let mut names = BTreeSet::new();
    for directory in ["lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"] {
        for entry in fs::read_dir(root.join(directory)).expect("libraries") {
            let name = entry.expect("an entry").file_name().into_string().expect("a name");
            if ["libtinfo", "libm-", "libm."].iter().any(|start| name.starts_with(start)) {
                let real = fs::canonicalize(root.join(directory)).expect("a directory");
                let directory =
                    real.strip_prefix(fs::canonicalize(&root).expect("a directory")).expect("inside");
                fs::create_dir_all(gone.join(directory)).expect("a directory");
                fs::write(gone.join(directory).join(format!(".wh.{name}")), "").expect("a file");
                names.insert(name);
            }
        }
    }
    assert!(!names.is_empty());
    let packed = site.path("gone.tar");
    run(Command::new("tar").arg("-C").arg(&gone).arg("-cf").arg(&packed).arg("."));
    let mut umoci = Command::new("umoci");
    let image = format!("{}:debian", broken.display());
    run(umoci.args(["raw", "add-layer", "--image", &image]).arg(&packed));
    let programs = programs_of(&broken, &site.path("less"));
    let (sound, unsound): (Vec<_>, Vec<_>) = programs.iter().partition(|(_, missing)| missing.is_empty());
    assert!(!sound.is_empty() && unsound.len() > 1, "{programs:?}");
    site.run_image = run_image(&broken);
    let sound: Vec<&String> = sound.into_iter().map(|(path, _)| path).collect();
    fs::write(site.path("app/Procfile"), lines(&sound)).expect("a file");
    site.build().digest();
    fs::write(site.path("built"), "").expect("a file");
    for (path, missing) in unsound.into_iter().take(12) {
        fs::write(site.path("app/Procfile"), lines(&[path])).expect("a file");
        let (id, text, _) = refusal(&site);
        assert_eq!(id, "export.no_libraries", "{text}");
        let named: BTreeSet<String> =
            text.split('`').filter(|part| part.starts_with("lib")).map(str::to_owned).collect();
        assert_eq!(&named, missing, "{path}: {text}");
    }
}
