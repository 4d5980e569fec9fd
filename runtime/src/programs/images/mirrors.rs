//! Which of a run image's names to use.

use super::Images;
use crate::cnb::run_toml::RunImageNames;
use crate::oci::reference::Reference;

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

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io::Read;

    use super::super::{FoundImage, ImagesError, SavedImage};
    use super::*;
    use crate::cancel::Cancel;
    use crate::oci::blob::BlobStore;
    use crate::oci::digest::DiffId;
    use crate::oci::image::{Image, ImageConfiguration, MediaFamily};

    /// Has images by name, and remembers what it was asked for.
    struct Named {
        names: Vec<&'static str>,
        asked: RefCell<Vec<String>>,
    }

    impl Images for Named {
        fn find(&self, name: &str) -> Result<Option<FoundImage>, ImagesError> {
            self.asked.borrow_mut().push(name.to_owned());
            let configuration: ImageConfiguration = serde_json::from_str(
                r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#,
            )
            .unwrap();
            let image = Image { family: MediaFamily::Oci, configuration, layers: vec![] };
            let found = FoundImage { reference: name.to_owned(), image };
            Ok(self.names.contains(&name).then_some(found))
        }
        fn layer(&self, _: &FoundImage, _: &DiffId) -> Result<Box<dyn Read>, ImagesError> {
            unreachable!("no layer is asked for")
        }
        fn check_write(&self, _: &str) -> Result<(), ImagesError> {
            Ok(())
        }
        fn save(
            &self,
            _: &Image,
            _: &[String],
            _: &dyn BlobStore,
            _: &Cancel,
        ) -> Result<SavedImage, ImagesError> {
            unreachable!("nothing is saved")
        }
    }

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
            let images = Named { names: readable.to_vec(), asked: RefCell::default() };
            assert_eq!(best_mirror(&images, output, &names), expected, "{output} {readable:?}");
        }
    }
}
