use std::io::Read;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Mutex;

use fs_err as fs;
use oci_spec::image::MediaType;
use serde_json::{Value, json};

use super::super::{GENERIC, ProgramError};
use super::*;
use crate::cnb::api::ApiVersion;
use crate::cnb::labels::LIFECYCLE_METADATA;
use crate::cnb::report_toml::Report;
use crate::images::{LayoutImages, SavedImage};
use crate::oci::blob::BlobStore;
use crate::oci::digest::{DiffId, Digest};
use crate::oci::image::{Image, ImageConfiguration, Layer, MediaFamily};

const APP: &str = "registry.example/app:1";
const RUN: &str = "registry.example/run:1";

struct Fixture {
    root: tempfile::TempDir,
    images: LayoutImages,
}

impl Fixture {
    /// An app on a run image of one layer, and two other run images.
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let images = LayoutImages::new(root.path().join("images"), "amd64".to_owned());
        let fixture = Self { root, images };
        fixture.save(&fixture.image(&["old"], &Value::Null), RUN);
        let metadata = json!({
            "runImage": { "topLayer": fixture.layer("old").diff_id.to_string(), "reference": "x", "image": RUN },
        });
        fixture.save(&fixture.image(&["old", "app"], &metadata), APP);
        fixture.save(&fixture.image(&["new"], &Value::Null), RUN);
        fixture.save(&fixture.image(&["other"], &Value::Null), "other.example/run");
        fixture
    }

    fn layer(&self, name: &str) -> Layer {
        let blob = self.root.path().join(name);
        fs::write(&blob, format!("blob of {name}")).unwrap();
        let bytes = fs::read(&blob).unwrap();
        Layer {
            media_type: MediaType::ImageLayer,
            digest: Digest::of(&bytes),
            size: bytes.len() as u64,
            diff_id: DiffId(Digest::of(&bytes)),
            blob: blob.into(),
        }
    }

    fn image(&self, layers: &[&str], metadata: &Value) -> Image {
        let layers: Vec<Layer> = layers.iter().map(|name| self.layer(name)).collect();
        let diff_ids: Vec<String> = layers.iter().map(|layer| layer.diff_id.to_string()).collect();
        let labels = json!({ LIFECYCLE_METADATA: metadata.to_string() });
        let configuration = json!({
            "architecture": "amd64", "os": "linux",
            "config": { "Env": ["CNB_PLATFORM_API=0.12"], "Labels": labels },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let configuration: ImageConfiguration = serde_json::from_value(configuration).unwrap();
        Image { family: MediaFamily::Oci, configuration, layers }
    }

    fn save(&self, image: &Image, name: &str) {
        self.images.save(image, &[name.to_owned()], &(), &Cancel::default(), &mut |_| ()).unwrap();
    }

    fn find(&self, name: &str) -> FoundImage {
        self.images.find(name).unwrap().unwrap()
    }

    fn inputs(&self, images: &[&str]) -> Inputs {
        Inputs {
            api: PlatformApi::NEWEST,
            images: images.iter().map(|name| (*name).to_owned()).collect(),
            previous_image: None,
            run_image: None,
            force: false,
            report: self.root.path().join("layers/report.toml"),
        }
    }

    fn run(&self, inputs: &Inputs) -> Result<Vec<Event>, RebaserError> {
        let mut events = vec![];
        run(inputs, &self.images, &Cancel::default(), &mut |event| events.push(event))?;
        Ok(events)
    }

    fn layers(&self, name: &str) -> Vec<String> {
        let layers = self.find(name).image.layers;
        layers.iter().map(|layer| fs::read_to_string(layer.file().unwrap()).unwrap()).collect()
    }

    fn code(&self, inputs: &Inputs) -> u8 {
        ProgramError::from(self.run(inputs).unwrap_err()).code()
    }
}

#[expect(clippy::unnecessary_wraps, reason = "short for fields that may be left out")]
fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// RBS-01, RBS-17
#[test]
fn rbs_01_and_17_the_new_image_is_written_under_every_name_and_reported() {
    let fixture = Fixture::new();
    let names = [APP, "registry.example/app:2", "registry.example/copy"];
    let events = fixture.run(&fixture.inputs(&names)).unwrap();
    for name in names {
        assert_eq!(fixture.layers(name), ["blob of new", "blob of app"], "{name}");
    }
    let digest = fixture.find(APP).reference.split_once('@').unwrap().1.to_owned();
    let (_, manifest) = fixture.find(APP).image.documents_called("1");
    let report = Report::parse(&fs::read_to_string(fixture.inputs(&[]).report).unwrap()).unwrap();
    assert_eq!(report.image.tags, names);
    assert_eq!(report.image.digest, Some(digest));
    assert_eq!(report.image.manifest_size, Some(manifest.bytes.len() as u64));
    assert_eq!(events.iter().filter(|event| matches!(event, Event::ImageWritten { .. })).count(), 3);
}

#[test]
fn rbs_01_a_previous_image_is_worked_on_and_not_modified() {
    let fixture = Fixture::new();
    let before = fixture.find(APP);
    let inputs = Inputs { previous_image: text(APP), ..fixture.inputs(&["registry.example/new"]) };
    fixture.run(&inputs).unwrap();
    assert_eq!(fixture.find(APP), before);
    assert_eq!(fixture.layers("registry.example/new"), ["blob of new", "blob of app"]);
}

#[test]
fn rbs_01_names_on_several_registries_are_refused() {
    let fixture = Fixture::new();
    assert_eq!(fixture.code(&fixture.inputs(&[APP, "other.example/app"])), 3);
    assert_eq!(fixture.code(&fixture.inputs(&["No Name"])), 3);
}

#[test]
fn rbs_02_the_run_image_is_the_one_given_or_recorded() {
    let fixture = Fixture::new();
    let other = Inputs { run_image: text("other.example/run"), ..fixture.inputs(&[APP]) };
    assert_eq!(fixture.code(&other), 72, "it is not the one of the label");
    let events = fixture.run(&Inputs { force: true, ..other }).unwrap();
    assert!(matches!(&events[0], Event::Warning { message } if message.contains("other.example/run")));
    assert_eq!(fixture.layers(APP), ["blob of other", "blob of app"]);
    let metadata = &fixture.find(APP).image.configuration.config.labels[LIFECYCLE_METADATA];
    let metadata: Value = serde_json::from_str(metadata).unwrap();
    assert_eq!(metadata["runImage"]["reference"], fixture.find("other.example/run").reference.as_str());
    assert_eq!(metadata["runImage"]["image"], "other.example/run");
}

#[test]
fn rbs_02_without_a_run_image_nothing_is_done() {
    let fixture = Fixture::new();
    let before = fixture.find(APP);
    let given = Inputs { run_image: text("registry.example/none"), ..fixture.inputs(&[APP]) };
    assert_eq!(fixture.code(&given), GENERIC);
    fs::remove_dir_all(Path::new(fixture.find(RUN).reference.split_once('@').unwrap().0)).unwrap();
    assert_eq!(fixture.code(&fixture.inputs(&[APP])), 72, "no name can be read");
    assert_eq!(fixture.find(APP), before);
    let metadata = json!({ "runImage": { "topLayer": fixture.layer("old").diff_id.to_string() } });
    fixture.save(&fixture.image(&["old", "app"], &metadata), APP);
    assert_eq!(fixture.code(&fixture.inputs(&[APP])), 72, "there are no names");
    assert!(!given.report.exists());
}

#[test]
fn rbs_18_exit_codes_tell_arguments_from_failures() {
    let fixture = Fixture::new();
    assert_eq!(fixture.code(&fixture.inputs(&[])), 3);
    assert_eq!(fixture.code(&fixture.inputs(&["registry.example/none"])), 72);
    let unwritable = Inputs { report: fixture.root.path().join("old/report.toml"), ..fixture.inputs(&[APP]) };
    assert_eq!(fixture.code(&unwritable), 72, "the directory of the report is a file");
    fs::write(fixture.root.path().join("images/registry.example/busy"), "in the way").unwrap();
    assert_eq!(fixture.code(&fixture.inputs(&[APP, "registry.example/busy:1"])), 72);
}

/// The app's layers are left where they are: here their bytes are wrong and nobody may read them.
#[test]
fn rbs_04_no_layer_of_the_app_is_read() {
    let fixture = Fixture::new();
    let blob = fixture.find(APP).image.layers[1].file().unwrap().to_owned();
    let size = fs::metadata(&blob).unwrap().len();
    fs::write(&blob, "x".repeat(usize::try_from(size).unwrap())).unwrap();
    fs::set_permissions(&blob, std::fs::Permissions::from_mode(0o000)).unwrap();
    fixture.run(&fixture.inputs(&[APP])).unwrap();
    let rebased = fixture.find(APP).image;
    assert_eq!(rebased.layers.len(), 2);
    assert_eq!(rebased.layers[1].file(), Some(blob.as_path()));
    assert_eq!(fs::read_to_string(rebased.layers[0].file().unwrap()).unwrap(), "blob of new");
    // A copy has to be read, and is not made of wrong bytes.
    let copy = Inputs { previous_image: text(APP), ..fixture.inputs(&["registry.example/copy"]) };
    assert_eq!(fixture.code(&copy), 72);
}

/// RPT-06
#[test]
fn rpt_06_one_name_that_fails_fails_the_rebase_and_the_others_are_written() {
    let fixture = Fixture::new();
    fs::write(fixture.root.path().join("images/registry.example/busy"), "in the way").unwrap();
    let error = fixture.run(&fixture.inputs(&["registry.example/busy:1", APP])).unwrap_err();
    assert!(matches!(error, RebaserError::NoSuchImage { .. }));
    let inputs = Inputs { previous_image: text(APP), ..fixture.inputs(&["registry.example/busy:1", APP]) };
    let error = fixture.run(&inputs).unwrap_err();
    assert!(error.to_string().contains("registry.example/busy:1"), "{error}");
    assert_eq!(fixture.layers(APP), ["blob of new", "blob of app"]);
}

/// A daemon, which has ids and no registries.
struct Daemon<'a> {
    inner: &'a LayoutImages,
    saved: Mutex<Vec<String>>,
}

impl Images for Daemon<'_> {
    fn find(&self, name: &str) -> Result<Option<FoundImage>, ImagesError> {
        self.inner.find(name)
    }
    fn layer(&self, _: &FoundImage, _: &DiffId) -> Result<Box<dyn Read>, ImagesError> {
        unreachable!("no layer is read")
    }
    fn check_write(&self, _: &str) -> Result<(), ImagesError> {
        Ok(())
    }
    fn save(
        &self,
        _: &Image,
        names: &[String],
        _: &dyn BlobStore,
        _: &Cancel,
        _: &mut dyn EventSink,
    ) -> Result<SavedImage, ImagesError> {
        self.saved.lock().unwrap().extend_from_slice(names);
        Ok(SavedImage { names: names.to_vec(), id: text("sha256:id"), ..SavedImage::default() })
    }
    fn is_daemon(&self) -> bool {
        true
    }
}

/// RBS-01, RPT-01
#[test]
fn rbs_01_and_rpt_01_a_daemon_takes_names_of_several_registries_and_gives_an_id() {
    let fixture = Fixture::new();
    let daemon = Daemon { inner: &fixture.images, saved: Mutex::default() };
    let inputs = fixture.inputs(&[APP, "other.example/app"]);
    run(&inputs, &daemon, &Cancel::default(), &mut |_| {}).unwrap();
    assert_eq!(*daemon.saved.lock().unwrap(), [APP, "other.example/app"]);
    let report = fs::read_to_string(inputs.report).unwrap();
    assert_eq!(
        report,
        "[image]\n  tags = [\"registry.example/app:1\", \"other.example/app\"]\n  image-id = \"sha256:id\"\n"
    );
}

#[test]
fn rbs_05_a_rebaser_of_an_old_platform_api_still_goes_by_the_image() {
    let fixture = Fixture::new();
    let api = PlatformApi::supported(ApiVersion::zero(7)).unwrap();
    // No run image for this API: its label has no `stack`.
    assert_eq!(fixture.code(&Inputs { api, ..fixture.inputs(&[APP]) }), 72);
    let inputs = Inputs { api, run_image: text("other.example/run"), ..fixture.inputs(&[APP]) };
    fixture.run(&inputs).unwrap();
    assert_eq!(fixture.layers(APP), ["blob of other", "blob of app"]);
}
