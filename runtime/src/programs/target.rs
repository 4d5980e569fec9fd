//! What the image is for, as far as the run image says; the rest is this machine's.

use std::path::Path;

use crate::cnb::analyzed_toml::Analyzed;
use crate::cnb::target::{Distro, Target};
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
    if target.distro.is_none() {
        if target.os.is_empty() {
            "linux".clone_into(&mut target.os);
        }
        if target.arch.is_empty() {
            match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            }
            .clone_into(&mut target.arch);
        }
        target.distro = toml_text::read(os_release).ok().and_then(|text| distro_of(&text));
    }
    target
}

/// `ID` and `VERSION_ID` of an `os-release` file, without quotes and blanks.
fn distro_of(text: &str) -> Option<Distro> {
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix('='));
        line.map(|value| value.trim_matches(['"', '\'', ' ', '\t']).to_owned()).unwrap_or_default()
    };
    let distro = Distro { name: value("ID"), version: value("VERSION_ID") };
    (distro != Distro::default()).then_some(distro)
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
}
