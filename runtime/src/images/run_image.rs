//! Which of a run image's names to use, and which to write down.

use super::Images;
use crate::cnb::run_toml::{RunImageNames, RunToml};
use crate::oci::reference::{Reference, same_image};

/// The best name of a run image for an image called `output`: the first on the same
/// registry that can be read, else the first that can be read.
///
/// # Spec
/// `platform.md` 0.15 "Run Image Resolution"; RUN-02, RUN-04.
#[must_use]
pub fn best_mirror<'a>(images: &dyn Images, output: &str, names: &'a RunImageNames) -> Option<&'a str> {
    let registry = |name: &str| name.parse::<Reference>().ok().map(|name| name.registry().to_owned());
    let wanted = registry(output);
    let all = || std::iter::once(&names.image).chain(&names.mirrors).map(String::as_str);
    let is_near = |name: &&str| wanted.is_some() && registry(name) == wanted;
    let is_readable = |name: &&str| matches!(images.find(name), Ok(Some(_)));
    all().filter(is_near).find(is_readable).or_else(|| all().find(is_readable))
}

/// The names of the run image as the label of a new image has them: those of the
/// first entry of `run.toml` that has `analyzed`, the name the run image was found by.
/// Without such an entry, it is `analyzed` alone if image extensions took part, for
/// they may have chosen another one; else the first entry.
///
/// # Spec
/// RUN-05.
#[must_use]
pub fn recorded_names(offered: &RunToml, analyzed: &str, has_extensions: bool) -> Option<RunImageNames> {
    let has = |names: &&RunImageNames| {
        std::iter::once(&names.image).chain(&names.mirrors).any(|name| same_image(name, analyzed))
    };
    let first = offered.images.first()?;
    match offered.images.iter().find(has) {
        Some(names) => Some(names.clone()),
        None if has_extensions => Some(RunImageNames { image: analyzed.to_owned(), mirrors: vec![] }),
        None => Some(first.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::fixed::FixedImages;

    const NAMES: [&str; 4] = ["acme/run", "one.example/run", "docker.io/library/run", "two.example:5000/run"];

    /// RUN-02, RUN-04
    #[test]
    fn run_02_and_04_a_readable_name_on_the_same_registry_is_best() {
        let names = RunImageNames {
            image: NAMES[0].to_owned(),
            mirrors: NAMES[1..].iter().map(|name| (*name).to_owned()).collect(),
        };
        for (output, readable, expected) in [
            ("one.example/app", &NAMES[..], Some("one.example/run")),
            ("two.example:5000/app:1", &NAMES[..], Some("two.example:5000/run")),
            ("two.example/app", &NAMES[..], Some("acme/run")),
            ("app", &NAMES[..], Some("acme/run")),
            ("index.docker.io/x/app", &NAMES[1..], Some("docker.io/library/run")),
            ("one.example/app", &NAMES[2..], Some("docker.io/library/run")),
            ("one.example/app", &NAMES[3..], Some("two.example:5000/run")),
            ("one.example/app", &[], None),
            ("not a name", &NAMES[1..], Some("one.example/run")),
        ] {
            let images = FixedImages::named(readable);
            assert_eq!(best_mirror(&images, output, &names), expected, "{output} {readable:?}");
        }
    }

    #[test]
    fn run_05_the_entry_that_has_the_name_is_written_down() {
        let offered = RunToml::parse(
            "[[images]]\nimage = \"acme/run\"\nmirrors = [\"one.example/run:2\"]\n\
             [[images]]\nimage = \"run\"\nmirrors = [\"two.example/run\"]\n",
        )
        .unwrap();
        let pinned =
            "two.example/run@sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";
        for (analyzed, has_extensions, expected) in [
            ("docker.io/acme/run:latest", false, "acme/run"),
            ("one.example/run:2", true, "acme/run"),
            ("one.example/run", false, "acme/run"),
            ("docker.io/library/run", false, "run"),
            (pinned, false, "run"),
            ("other.example/run", false, "acme/run"),
            ("other.example/run", true, "other.example/run"),
        ] {
            let names = recorded_names(&offered, analyzed, has_extensions).unwrap();
            assert_eq!(names.image, expected, "{analyzed}");
            assert_eq!(names.mirrors.is_empty(), expected == "other.example/run", "{analyzed}");
        }
        assert_eq!(recorded_names(&RunToml::default(), "acme/run", true), None);
    }
}
