//! The extender on files that lie there.

use std::path::Path;

use super::*;
use crate::programs::ProgramError;

/// Extends with these files below `<generated>`; `acme/x` is in the group.
fn extend(root: &Path, api: u64, kind: ExtendKind, files: &[(&str, &str)]) -> Result<(), ExtendError> {
    let group = root.join("group.toml");
    if !group.exists() {
        std::fs::write(&group, "[[group-extensions]]\nid = \"acme/x\"\nversion = \"1\"\napi = \"0.10\"\n")
            .unwrap();
    }
    for (name, text) in files {
        let path = root.join("generated").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let path = |name: &str| root.join(name);
    let inputs = Inputs {
        api: PlatformApi::supported(ApiVersion::zero(api)).unwrap(),
        exec_env: ExecEnv::default(),
        kind,
        analyzed: path("analyzed.toml"),
        app: path("app"),
        build_config: path("build-config"),
        buildpacks: path("buildpacks"),
        extended: path("extended"),
        generated: path("generated"),
        group,
        layers: path("layers"),
        plan: path("plan.toml"),
        platform: path("platform"),
        owner: None,
    };
    run(&inputs, &mut |_| {})
}

/// The error and its exit code; empty when there is none.
fn said(api: u64, kind: ExtendKind, files: &[(&str, &str)]) -> (String, u8) {
    let temp = tempfile::tempdir().unwrap();
    match extend(temp.path(), api, kind, files) {
        Ok(()) => (String::new(), 0),
        Err(error) => {
            let text = error.to_string().replace(temp.path().to_str().unwrap(), "ROOT");
            (text, ProgramError::from(error).code())
        }
    }
}

#[test]
fn ext_06_a_dockerfile_with_from_only_needs_no_extending() {
    let run = ("acme_x/run.Dockerfile", "FROM other\n");
    let build = ("acme_x/build.Dockerfile", "ARG base_image\nFROM ${base_image}\n");
    assert_eq!(said(13, ExtendKind::Run, &[run]), (String::new(), 0));
    assert_eq!(said(13, ExtendKind::Build, &[run, build]), (String::new(), 0));
    assert_eq!(said(13, ExtendKind::Build, &[]), (String::new(), 0));
    // Ignored, and the one of the other image.
    let changes = "ARG base_image\nFROM ${base_image}\nRUN x\n";
    let others = [("acme_x/run.Dockerfile.ignore", changes), ("acme_x/build.Dockerfile", changes)];
    assert_eq!(said(13, ExtendKind::Run, &others), (String::new(), 0));
}

/// EXT-13, CLI-14
#[test]
fn ext_13_a_dockerfile_with_instructions_is_refused_by_name_line_and_instruction() {
    let text = "ARG base_image\nFROM ${base_image}\n\n# comment\nRUN apt-get install -y \\\n  curl\nUSER 1\n";
    let refused = |file: &str, kind: &str| {
        format!(
            "image extension `acme/x@1` changes the {kind} image, which wapack does not do: \
             `ROOT/generated/{file}`, line 5: `RUN apt-get install -y   curl`"
        )
    };
    let file = "acme_x/build.Dockerfile";
    assert_eq!(said(13, ExtendKind::Build, &[(file, text)]), (refused(file, "build"), 102));
    let file = "acme_x/run.Dockerfile";
    assert_eq!(said(13, ExtendKind::Run, &[(file, text)]), (refused(file, "run"), 102));
    // EXT-07: before Platform API 0.13.
    let file = "run/acme_x/Dockerfile";
    assert_eq!(said(12, ExtendKind::Run, &[(file, text)]), (refused(file, "run"), 102));
    assert_eq!(said(13, ExtendKind::Run, &[(file, text)]), (String::new(), 0));
}

#[test]
fn api_07_the_api_of_an_extension_is_verified_again() {
    let temp = tempfile::tempdir().unwrap();
    let group = "[[group-extensions]]\nid = \"acme/x\"\nversion = \"1\"\napi = \"0.13\"\n";
    std::fs::write(temp.path().join("group.toml"), group).unwrap();
    let error = extend(temp.path(), 13, ExtendKind::Build, &[]).unwrap_err();
    assert_eq!(ProgramError::from(error).code(), 12);
}

/// The extender runs as root, and others wrote what it reads.
#[test]
fn links_are_not_followed() {
    let secret = "FROM a\nSECRET here\n";
    let link = |from: &str, to: &str| {
        let temp = tempfile::tempdir().unwrap();
        let elsewhere = temp.path().join("elsewhere");
        for directory in [&elsewhere, &temp.path().join("generated/acme_x")] {
            std::fs::create_dir_all(directory).unwrap();
        }
        std::fs::create_dir_all(elsewhere.join("acme_x")).unwrap();
        for name in ["run.Dockerfile", "acme_x/run.Dockerfile"] {
            std::fs::write(elsewhere.join(name), secret).unwrap();
        }
        let link = temp.path().join(from);
        if link.is_dir() {
            std::fs::remove_dir_all(&link).unwrap();
        }
        std::os::unix::fs::symlink(elsewhere.join(to), link).unwrap();
        extend(temp.path(), 13, ExtendKind::Run, &[]).unwrap_err()
    };
    for (from, to) in
        [("generated", ""), ("generated/acme_x", ""), ("generated/acme_x/run.Dockerfile", "run.Dockerfile")]
    {
        let error = link(from, to);
        assert!(matches!(error, ExtendError::Read { .. }), "{from}: {error:?}");
    }
}
