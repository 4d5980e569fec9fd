//! What the image is for, as far as the run image says; the rest is this machine's.

use std::path::Path;

use crate::cnb::analyzed_toml::Analyzed;
use crate::cnb::target::{Distro, Target};
use crate::text::harmless;
use crate::toml_text;

/// Says which distribution a system is.
pub(super) const OS_RELEASE: &str = "/etc/os-release";

/// The target of a build.
///
/// # Spec
/// `platform.md` 0.15 "Target Data"; TGT-01, TGT-05.
pub(super) fn target_of(analyzed: &Analyzed, os_release: &Path) -> Target {
    let known = analyzed.run_image.as_ref().and_then(|image| image.target.as_ref());
    let mut target = known
        .map_or(Target { os: String::new(), arch: String::new(), variant: None, distro: None }, Target::from);
    if target.os.is_empty() {
        "linux".clone_into(&mut target.os);
    }
    if target.arch.is_empty() {
        host_architecture().clone_into(&mut target.arch);
    }
    target.distro = target
        .distro
        .filter(|distro| *distro != Distro::default())
        .or_else(|| Distro::of_os_release(&toml_text::read(os_release).ok()?));
    target
}

/// The architecture of this program, as images name it.
pub(super) fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Where the run image and the build environment are of different systems.
///
/// # Spec
/// TGT-13: what one of them does not say is no difference.
pub(super) fn disagreements(analyzed: &Analyzed, os_release: &Path) -> Vec<String> {
    let known = analyzed.run_image.as_ref().and_then(|image| image.target.as_ref());
    let Some(run) = known.map(Target::from) else { return Vec::new() };
    let mut found = Vec::new();
    let here = toml_text::read(os_release).ok().and_then(|text| Distro::of_os_release(&text));
    if let (Some(run), Some(here)) = (&run.distro, &here)
        && run.contradicts(here)
    {
        found.push(format!(
            "the run image is {} {}, and this build environment is {} {}",
            harmless(&run.name),
            harmless(&run.version),
            harmless(&here.name),
            harmless(&here.version)
        ));
    }
    let here = host_architecture();
    if !run.arch.is_empty() && run.arch != here {
        let run = harmless(&run.arch);
        found.push(format!("the run image is for {run}, and this build environment is for {here}"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tgt_05_the_distribution_of_this_machine_where_the_run_image_says_none() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("os-release");
        std::fs::write(&file, "NAME=\"My OS\"\nVERSION_ID=\"22.04 \"\nID=ubuntu\nID_LIKE=debian\n").unwrap();
        let target = target_of(&Analyzed::default(), &file);
        assert_eq!(target.os, "linux");
        assert!(!target.arch.is_empty());
        assert_eq!(target.distro, Some(Distro { name: "ubuntu".into(), version: "22.04".into() }));
        assert_eq!(target_of(&Analyzed::default(), Path::new("/missing")).distro, None);

        let text = "[run-image]\nreference = \"x\"\n[run-image.target]\nos = \"linux\"\narch = \"arm64\"\n\
                    [run-image.target.distro]\nname = \"debian\"\nversion = \"12\"\n";
        let target = target_of(&Analyzed::parse(text).unwrap(), &file);
        assert_eq!(target.arch, "arm64");
        assert_eq!(target.distro, Some(Distro { name: "debian".into(), version: "12".into() }));
    }

    /// TGT-05, TGT-13
    #[test]
    fn tgt_13_different_systems_of_run_image_and_build_environment_are_told() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("os-release");
        std::fs::write(&file, "ID=acme\nVERSION_ID=\"7\"\n").unwrap();
        let told = |more: &str, os_release: &Path| {
            let text = format!("[run-image]\n[run-image.target]\nos = \"plan9\"\n{more}");
            disagreements(&Analyzed::parse(&text).unwrap(), os_release)
        };
        let distro = "[run-image.target.distro]\nname = \"acme\"\nversion = ";
        assert_eq!(
            told(&format!("{distro}\"8\"\n"), &file),
            ["the run image is acme 8, and this build environment is acme 7"]
        );
        let nothing: [String; 0] = [];
        assert_eq!(told(&format!("{distro}\"7\"\n"), &file), nothing);
        assert_eq!(told(&format!("{distro}\"\"\n"), &file), nothing);
        assert_eq!(told(&format!("{distro}\"8\"\n"), Path::new("/missing")), nothing);
        assert_eq!(told("arch = \"s390x\"\n", &file).len(), 1);
        assert_eq!(told("", &file), nothing);
        assert_eq!(disagreements(&Analyzed::default(), &file), nothing);
        let target = target_of(&Analyzed::parse("[run-image.target]\nos = \"plan9\"\n").unwrap(), &file);
        assert_eq!((target.os.as_str(), target.arch.as_str()), ("plan9", host_architecture()));
    }
}
