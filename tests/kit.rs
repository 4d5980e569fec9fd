//! The test kit for authors of buildpacks, with the buildpacks that are built in.

use std::path::{Path, PathBuf};

use wapack_runtime::executor::DetectOutputs;
use wapack_runtime::testkit::TestKit;

use crate::support::target_directory;

/// A built-in buildpack as `cargo xtask embed` made it: `static-site`, `procfile`.
fn built_in(name: &str) -> TestKit {
    let directory = target_directory().join(format!("embed/builder/buildpacks/wapack_{name}/0.1.0"));
    assert!(directory.is_dir(), "`{}` is missing: run `cargo xtask embed` first", directory.display());
    TestKit::load(directory.join("buildpack.wasm"))
        .and_then(|kit| kit.buildpack_directory(&directory))
        .expect("the built-in buildpack loads")
}

fn sample() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../samples/website")
}

#[test]
fn a_website_becomes_a_server_and_a_process() {
    let mut kit = built_in("static-site");
    assert!(kit.detect(sample()).unwrap().is_pass());
    let built = kit.build(sample()).unwrap();
    let server = built.layer("server").unwrap();
    let elf = std::fs::read(server.path.join("bin/static-web-server")).unwrap();
    // ELF header: 64 bit, little-endian, machine 62 (x86-64).
    assert_eq!((&elf[..6], elf[18]), (&b"\x7fELF\x02\x01"[..], 62));
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &server.path.join("bin/static-web-server").metadata().unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o755);
    assert_eq!(built.processes.len(), 1);
    assert!(!server.restored);
    assert!(kit.build(sample()).unwrap().layer("server").unwrap().restored);
}

#[test]
fn another_architecture_gets_its_own_server() {
    let mut kit = built_in("static-site").arch("arm64");
    let built = kit.build(sample()).unwrap();
    let elf = std::fs::read(built.layer("server").unwrap().path.join("bin/static-web-server")).unwrap();
    // Machine 183 is AArch64.
    assert_eq!((&elf[..6], elf[18]), (&b"\x7fELF\x02\x01"[..], 183));
}

#[test]
fn an_app_without_a_procfile_is_not_detected() {
    let verdict = built_in("procfile").detect(sample()).unwrap();
    assert_eq!(verdict.outputs, DetectOutputs::Fail { reason: "no `Procfile`".to_owned() });
}

/// What the kit is for: hundreds of calls in one test run.
#[test]
fn a_hundred_detects_and_builds_run_in_one_test() {
    let mut kit = built_in("static-site");
    for round in 0..100 {
        assert!(kit.detect(sample()).unwrap().is_pass(), "round {round}");
        assert_eq!(kit.build(sample()).unwrap().processes.len(), 1, "round {round}");
    }
}
