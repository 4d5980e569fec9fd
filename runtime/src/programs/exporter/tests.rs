use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;

use serde_json::{Value, json};

use super::*;
use crate::cnb::api::ApiVersion;
use crate::event::LayerSource;
use crate::oci::digest::{DiffId, Digest, HashingWriter};
use crate::oci::gzip::GzipWriter;
use crate::oci::image::{History, Image, ImageConfiguration, MediaFamily, RootFs, RunConfiguration};
use crate::oci::layer::LayerWriter;
use crate::phase::export::write_layer;
use crate::programs::ProgramError;
use crate::programs::images::LayoutImages;

/// Writes the layer of a directory by the rules of section 7.2, knowing nothing of our code:
/// digest of the tar, then the digests of the layers of the app's slices.
const TAR_RULES: &str = r"
import hashlib, os, stat, struct, sys
root, order, uid, gid = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
chosen = sys.argv[5:]
out = hashlib.sha256()
def header(path, st, uid, gid, kind, size, target):
    def octal(value, width): return b'%0*o\0' % (width - 1, value)
    name = path.encode()
    assert len(name) <= 100 and name.isascii() and target.isascii()
    parts = [name.ljust(100, b'\0'), octal(stat.S_IMODE(st.st_mode), 8), octal(uid, 8), octal(gid, 8),
             octal(size, 12), octal(315532801, 12), b' ' * 8, kind, target.encode().ljust(100, b'\0'),
             b'ustar\x0000', b'\0' * 64, octal(0, 8), octal(0, 8), b'\0' * 167]
    block = bytearray(b''.join(parts))
    block[148:156] = b'%06o\0 ' % sum(block)
    assert len(block) == 512
    out.update(block)
def add(path, uid, gid):
    st = os.lstat(path)
    if stat.S_ISDIR(st.st_mode): header(path, st, uid, gid, b'5', 0, '')
    elif stat.S_ISLNK(st.st_mode): header(path, st, uid, gid, b'2', 0, os.readlink(path))
    elif stat.S_ISFIFO(st.st_mode): header(path, st, uid, gid, b'6', 0, '')
    elif stat.S_ISREG(st.st_mode):
        data = open(path, 'rb').read()
        header(path, st, uid, gid, b'0', len(data), '')
        out.update(data + b'\0' * (-len(data) % 512))
def below(path):
    yield path
    if os.path.isdir(path) and not os.path.islink(path):
        for name in sorted(os.listdir(path)): yield from below(path + '/' + name)
paths = [root + '/' + name if name else root for name in chosen] or list(below(root))
if order == 'sorted': paths.sort()
if chosen != ['-']:
    end = 1
    while (end := root.find('/', end)) > 0:
        st = os.stat(root[:end])
        header(root[:end], st, st.st_uid, st.st_gid, b'5', 0, '')
        end += 1
    for path in paths: add(path, uid, gid)
out.update(b'\0' * 1024)
print('sha256:' + out.hexdigest())
";

const UID: u32 = 1234;
const GID: u32 = 4321;

/// Everything an exporter is told of, below one directory.
struct Site {
    root: tempfile::TempDir,
    images: LayoutImages,
    inputs: Inputs,
    events: RefCell<Vec<Event>>,
}

const METADATA: &str = r#"buildpack-default-process-type = "web"
[[buildpacks]]
id = "acme/node"
version = "1.2"
api = "0.12"
homepage = "https://example.com"
[[processes]]
type = "job"
command = ["run it"]
args = []
direct = false
buildpack-id = "acme/node"
[[processes]]
type = "web"
command = ["serve", "a b"]
args = ["-v"]
direct = true
buildpack-id = "acme/node"
exec-env = ["production"]
"#;

impl Site {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        // The directories above have names of their own; links would only be told by their targets.
        let path = fs::canonicalize(root.path()).unwrap();
        let at = |name: &str| path.join(name);
        let inputs = Inputs {
            api: PlatformApi::NEWEST,
            exec_env: ExecEnv::default(),
            images: vec!["registry.example/app:1".to_owned()],
            analyzed: at("layers/analyzed.toml"),
            app: at("app"),
            cache_dir: None,
            cache_image: None,
            extended: at("layers/extended"),
            group: at("layers/group.toml"),
            launcher: at("launcher"),
            launcher_sbom: at("launcher-sbom"),
            layers: at("layers"),
            parallel: false,
            process_type: None,
            project_metadata: at("layers/project-metadata.toml"),
            report: at("layers/report.toml"),
            run: at("run.toml"),
            owner: (UID, GID),
            source_date_epoch: None,
            scratch: at("scratch"),
        };
        let images = LayoutImages::new(at("images"), "amd64".to_owned());
        let site = Self { root, images, inputs, events: RefCell::default() };
        for directory in ["app", "scratch", "launcher-sbom"] {
            fs::create_dir(at(directory)).unwrap();
        }
        site.write("launcher", "#!launcher");
        site.write("layers/config/metadata.toml", METADATA);
        site.write("layers/group.toml", "[[group]]\nid = \"acme/node\"\nversion = \"1.2\"\napi = \"0.12\"\n");
        site.write("run.toml", "[[images]]\nimage = \"other\"\n[[images]]\nimage = \"docker.io/library/run\"\nmirrors = [\"mirror.example/run\"]\n");
        let reference = site.run_image("run", MediaFamily::Oci);
        site.analyzed(&reference, "");
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        fs::canonicalize(self.root.path()).unwrap().join(name)
    }

    fn write(&self, name: &str, contents: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
    }

    fn mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// A file and its mode.
    fn file(&self, name: &str, contents: &str, mode: u32) {
        self.write(name, contents);
        self.mode(name, mode);
    }

    fn layer(&self, name: &str, toml: &str) {
        self.write(&format!("layers/acme_node/{name}.toml"), toml);
    }

    fn analyzed(&self, run_image: &str, more: &str) {
        let text = format!("{more}\n[run-image]\nreference = \"{run_image}\"\nimage = \"run\"\n");
        self.write("layers/analyzed.toml", &text);
    }

    /// Saves a run image of one layer; its reference.
    fn run_image(&self, name: &str, family: MediaFamily) -> String {
        let history = |text: &str, empty_layer| History {
            created_by: Some(text.to_owned()),
            created: Some("2024-01-02T03:04:05Z".to_owned()),
            empty_layer,
            ..History::default()
        };
        let layer = self.blob("etc", family);
        let run = RunConfiguration {
            user: Some("1000:1000".to_owned()),
            env: vec!["PATH=/usr/bin".to_owned()],
            cmd: vec!["sh".to_owned()],
            labels: [("own".to_owned(), "x".to_owned())].into(),
            other: [("StopSignal".to_owned(), json!("SIGINT"))].into(),
            ..RunConfiguration::default()
        };
        let configuration = ImageConfiguration {
            created: None,
            author: None,
            architecture: "amd64".to_owned(),
            variant: None,
            os: "linux".to_owned(),
            os_version: None,
            config: run,
            rootfs: RootFs { kind: "layers".to_owned(), diff_ids: vec![layer.diff_id.clone()] },
            history: vec![history("ENV A", true), history("ADD rootfs", false)],
            other: BTreeMap::new(),
        };
        let image = Image { family, configuration, layers: vec![layer] };
        self.save(&image, name)
    }

    fn save(&self, image: &Image, name: &str) -> String {
        let blobs = ScratchBlobs::new(&self.inputs.scratch).unwrap();
        self.images.save(image, &[name.to_owned()], &blobs, &Cancel::default()).unwrap();
        self.images.find(name).unwrap().unwrap().reference
    }

    /// A layer with one file of that name.
    fn blob(&self, name: &str, family: MediaFamily) -> Layer {
        let mut tar = LayerWriter::new(Vec::new());
        tar.file(format!("/{name}").as_bytes(), 0o644, Owner::ROOT, 1, b"x".as_slice()).unwrap();
        let tar = tar.finish().unwrap();
        let mut gzip = GzipWriter::new(HashingWriter::new(Vec::new())).unwrap();
        io::Write::write_all(&mut gzip, &tar).unwrap();
        let (digest, size, bytes) = gzip.finish().unwrap().finish();
        let blob = self.path(&format!("scratch/{name}.blob"));
        fs::write(&blob, bytes).unwrap();
        Layer { media_type: family.layer(), digest, size, diff_id: DiffId(Digest::of(&tar)), blob }
    }

    fn api(&mut self, minor: u64) {
        self.inputs.api = PlatformApi::supported(ApiVersion::zero(minor)).unwrap();
    }

    fn try_export(&self) -> Result<Image, ExporterError> {
        self.events.borrow_mut().clear();
        let mut sink = |event| self.events.borrow_mut().push(event);
        run(&self.inputs, &self.images, &Cancel::default(), &mut sink)?;
        Ok(self.images.find(&self.inputs.images[0]).unwrap().unwrap().image)
    }

    fn export(&self) -> Image {
        self.try_export().unwrap_or_else(|error| panic!("{error:?}"))
    }

    /// The exit code, and everything that is said.
    fn failure(&self) -> (u8, String) {
        let error = ProgramError::from(self.try_export().unwrap_err());
        let mut text = String::new();
        let mut cause: Option<&dyn std::error::Error> = Some(&error);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        (error.code(), text)
    }

    /// The image just exported becomes the previous one.
    fn becomes_previous(&self, image: &Image) {
        let found = self.images.find(&self.inputs.images[0]).unwrap().unwrap();
        let analyzed = Analyzed {
            previous_image: Some(found.reference),
            metadata: serde_json::from_value(label(image, "io.buildpacks.lifecycle.metadata")).unwrap(),
            run_image: Analyzed::parse(&fs::read_to_string(&self.inputs.analyzed).unwrap())
                .unwrap()
                .run_image,
            build_image: None,
            extend_build_image: false,
        };
        fs::write(&self.inputs.analyzed, analyzed.to_toml().unwrap()).unwrap();
    }

    /// What the layer of a directory is by the rules; `chosen` are paths below it instead of everything.
    fn expected(&self, directory: &str, order: &str, chosen: &[&str]) -> String {
        let path = self.path(directory);
        let output = Command::new("python3")
            .args(["-c", TAR_RULES, path.to_str().unwrap(), order, &UID.to_string(), &GID.to_string()])
            .args(chosen)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    fn warnings(&self) -> Vec<String> {
        let events = self.events.borrow();
        let warnings = events.iter().filter_map(|event| match event {
            Event::Warning { message } => Some(message.clone()),
            _ => None,
        });
        warnings.collect()
    }

    /// Names of the layers that were not compressed again.
    fn reused(&self) -> Vec<String> {
        let events = self.events.borrow();
        let names = events.iter().filter_map(|event| match event {
            Event::LayerExported { name, source: LayerSource::Reused, .. } => Some(name.clone()),
            _ => None,
        });
        names.collect()
    }
}

const LAUNCH: &str = "[types]\nlaunch = true\n";

fn label(image: &Image, name: &str) -> Value {
    serde_json::from_str(&image.configuration.config.labels[name]).unwrap()
}

fn lifecycle(image: &Image) -> Value {
    label(image, "io.buildpacks.lifecycle.metadata")
}

fn build(image: &Image) -> Value {
    label(image, "io.buildpacks.build.metadata")
}

fn diff_ids(image: &Image) -> Vec<String> {
    image.configuration.rootfs.diff_ids.iter().map(ToString::to_string).collect()
}

fn lines(image: &Image) -> Vec<&str> {
    image.configuration.history.iter().map(|entry| entry.created_by.as_deref().unwrap_or("")).collect()
}

/// TAR-05, TAR-06, TAR-07, TAR-08, TAR-09, TAR-14: a layer, the bills of materials and the config.
#[test]
fn tar_05_to_09_directories_become_layers_as_they_are_on_disk() {
    let site = Site::new();
    site.layer("mods", LAUNCH);
    let mods = "layers/acme_node/mods";
    site.file(&format!("{mods}/bin/suid"), "s", 0o4711);
    site.file(&format!("{mods}/bin/sgid"), "g", 0o2750);
    site.file(&format!("{mods}/a-b"), "1", 0o600);
    site.file(&format!("{mods}/a/b"), "2", 0o444);
    site.file(&format!("{mods}/sticky/x"), "x", 0o666);
    site.mode(&format!("{mods}/sticky"), 0o1777);
    site.mode(&format!("{mods}/a"), 0o2700);
    fs::hard_link(site.path(&format!("{mods}/a-b")), site.path(&format!("{mods}/second"))).unwrap();
    symlink("nowhere/", site.path(&format!("{mods}/link"))).unwrap();
    let fifo = site.path(&format!("{mods}/fifo"));
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o620),
        0,
    )
    .unwrap();
    site.mode(&format!("{mods}/fifo"), 0o620);
    let _socket = std::os::unix::net::UnixListener::bind(site.path(&format!("{mods}/socket"))).unwrap();
    site.mode(mods, 0o750);
    site.mode("layers/acme_node", 0o711);
    site.mode("layers", 0o1775);
    site.write("layers/sbom/launch/acme_node/mods/sbom.cdx.json", "{}");
    site.file("layers/sbom/launch/sbom.legacy.json", "null", 0o600);
    site.write("layers/sbom/build/secret", "not in the image");

    let image = site.export();
    let ids = diff_ids(&image);
    assert_eq!(ids[1], site.expected(mods, "walk", &[]));
    assert_eq!(ids[2], site.expected("layers/sbom/launch", "walk", &[]));
    assert_eq!(ids[3], site.expected("app", "sorted", &[]));
    assert_eq!(ids[5], site.expected("layers/config", "walk", &[]));
    // V2, with one process more; made by an independent script.
    assert_eq!(ids.len(), 7);
    let metadata = lifecycle(&image);
    assert_eq!(metadata["buildpacks"][0]["layers"]["mods"]["sha"], json!(ids[1]));
    assert_eq!(metadata["sbom"]["sha"], json!(ids[2]));
    assert_eq!(metadata["app"], json!([{"sha": ids[3]}]));
    assert_eq!(metadata["launcher"]["sha"], json!(ids[4]));
    assert_eq!(metadata["config"]["sha"], json!(ids[5]));
    assert_eq!(metadata["process-types"]["sha"], json!(ids[6]));
    assert_eq!(metadata["runImage"]["topLayer"], json!(ids[0]));
    assert!(site.warnings().iter().any(|warning| warning.contains("socket")), "{:?}", site.warnings());
}

/// TAR-06: whoever owns what is above a layer, and whatever its mode.
#[test]
fn tar_06_what_is_above_keeps_its_owner() {
    let site = Site::new();
    site.layer("x", LAUNCH);
    site.write("layers/acme_node/x/f", "f");
    let image = site.export();
    let output = Command::new("tar")
        .args(["--list", "--verbose", "--numeric-owner", "--absolute-names", "--gzip", "--file"])
        .arg(&image.layers[1].blob)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let owner_of = |path: &Path| {
        let name = path.to_str().unwrap();
        let line = text.lines().find(|line| line.ends_with(&format!(" {name}"))).expect(name);
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    let layer = site.path("layers/acme_node/x");
    assert_eq!(owner_of(&layer), format!("{UID}/{GID}"));
    assert_eq!(owner_of(&layer.join("f")), format!("{UID}/{GID}"));
    for parent in layer.ancestors().skip(1).filter(|parent| parent.parent().is_some()) {
        let metadata = fs::metadata(parent).unwrap();
        assert_eq!(owner_of(parent), format!("{}/{}", metadata.uid(), metadata.gid()), "{parent:?}");
    }
}

/// EXP-03, EXP-04, SLC-03, SLC-04, SLC-05: a directory that lost everything to one slice is
/// not there for the next, and no layer is left out.
#[test]
fn slc_03_to_05_slices_of_an_app_on_disk() {
    let site = Site::new();
    for name in ["static/a.css", "static/sub/b.css", "README.md", "deep/a/x", "deep/z/q", "main.js"] {
        site.file(&format!("app/{name}"), name, 0o640);
    }
    fs::create_dir(site.path("app/emptydir")).unwrap();
    let slices = "[[slices]]\npaths = [\"static/*\", \"*.md\"]\n[[slices]]\npaths = [\"nothing\"]\n\
                  [[slices]]\npaths = [\"static\", \"deep/a\"]\n";
    site.write("layers/config/metadata.toml", &format!("{METADATA}{slices}"));
    let image = site.export();
    let app: Vec<String> = lifecycle(&image)["app"]
        .as_array()
        .unwrap()
        .iter()
        .map(|layer| layer["sha"].as_str().unwrap().to_owned())
        .collect();
    let first = ["", "static", "static/a.css", "static/sub", "static/sub/b.css", "README.md"];
    assert_eq!(app[0], site.expected("app", "sorted", &first));
    assert_eq!(app[1], site.expected("app", "sorted", &["-"]));
    assert_eq!(app[2], site.expected("app", "sorted", &["", "deep", "deep/a", "deep/a/x"]));
    assert_eq!(
        app[3],
        site.expected("app", "sorted", &["", "deep", "deep/z", "deep/z/q", "main.js", "emptydir"])
    );
    assert_eq!(
        lines(&image)[1..5],
        ["Application Slice: 1", "Application Slice: 2", "Application Slice: 3", "Application Slice: 4",]
    );
}

/// SLC-01, EXP-08: and nothing is saved.
#[test]
fn slc_01_a_malformed_pattern_is_a_failed_export() {
    let site = Site::new();
    site.write("layers/config/metadata.toml", "[[slices]]\npaths = [\"[\"]\n");
    let (code, text) = site.failure();
    assert_eq!(code, 62, "{text}");
    assert!(site.images.find("registry.example/app:1").unwrap().is_none());
}

/// EXP-01, EXP-02, IMG-01 to IMG-04, IMG-08, IMG-09
#[test]
fn img_01_to_04_what_the_image_starts_with() {
    let site = Site::new();
    site.layer("x", LAUNCH);
    site.write("layers/acme_node/x/f", "f");
    let image = site.export();
    let run = &image.configuration.config;
    let (layers, app) = (site.path("layers"), site.path("app"));
    assert_eq!(
        run.env,
        [
            "PATH=/cnb/process:/cnb/lifecycle:/usr/bin".to_owned(),
            format!("CNB_LAYERS_DIR={}", layers.display()),
            format!("CNB_APP_DIR={}", app.display()),
            "CNB_PLATFORM_API=0.15".to_owned(),
            "CNB_DEPRECATION_MODE=quiet".to_owned(),
        ]
    );
    assert_eq!(run.working_dir.as_deref(), app.to_str());
    assert_eq!(run.cmd, Vec::<String>::new());
    assert_eq!(run.user.as_deref(), Some("1000:1000"));
    assert_eq!(run.other["StopSignal"], "SIGINT");
    assert_eq!(run.labels["own"], "x");
    assert_eq!(
        lines(&image),
        [
            "ADD rootfs",
            "Layer: 'x', Created by buildpack: acme/node@1.2",
            "Application Layer",
            "Buildpacks Application Launcher",
            "Buildpacks Launcher Config",
            "Buildpacks Process Types",
        ]
    );
}

#[test]
fn img_05_what_is_started() {
    let mut site = Site::new();
    assert_eq!(site.export().configuration.config.entrypoint, ["/cnb/process/web"]);
    site.inputs.process_type = Some("job".to_owned());
    assert_eq!(site.export().configuration.config.entrypoint, ["/cnb/process/job"]);
    site.inputs.process_type = Some("none".to_owned());
    assert_eq!(site.failure().0, 62);
    site.inputs.process_type = None;
    site.write("layers/config/metadata.toml", "");
    let image = site.export();
    assert_eq!(image.configuration.config.entrypoint, ["/cnb/lifecycle/launcher"]);
    // EXP-03: without a process there is no layer of process types.
    assert_eq!(lifecycle(&image)["process-types"]["sha"], "");
    assert_eq!(image.layers.len(), 4);
}

#[test]
fn img_06_the_time_of_an_image() {
    let mut site = Site::new();
    let created = |site: &Site| site.export().configuration.created.unwrap();
    assert_eq!(created(&site), "1980-01-01T00:00:01Z");
    for bad in ["tomorrow", "-1", "1e9", "99999999999999"] {
        site.inputs.source_date_epoch = Some(bad.to_owned());
        assert_eq!(created(&site), "1980-01-01T00:00:01Z");
        assert!(site.warnings().iter().any(|warning| warning.contains("SOURCE_DATE_EPOCH")), "{bad}");
    }
    site.inputs.source_date_epoch = Some("1700000000".to_owned());
    let image = site.export();
    // As `date -u -d @1700000000` says.
    assert_eq!(image.configuration.created.as_deref(), Some("2023-11-14T22:13:20Z"));
    assert!(image.configuration.history.iter().all(|entry| entry.created == image.configuration.created));
    site.api(8);
    assert_eq!(created(&site), "1980-01-01T00:00:01Z");
}

#[test]
fn img_07_history_says_nothing_before_platform_api_0_12() {
    let mut site = Site::new();
    site.api(11);
    let image = site.export();
    assert_eq!(image.configuration.history.len(), image.layers.len());
    let entries = serde_json::to_value(&image.configuration.history).unwrap();
    for entry in entries.as_array().unwrap() {
        assert_eq!(*entry, json!({"created": "1980-01-01T00:00:01Z"}));
    }
}

#[test]
fn img_10_the_family_is_the_run_images() {
    let site = Site::new();
    let reference = site.run_image("docker-run", MediaFamily::Docker);
    site.analyzed(&reference, "");
    let image = site.export();
    assert_eq!(image.family, MediaFamily::Docker);
    assert!(image.layers.iter().all(|layer| layer.media_type == MediaFamily::Docker.layer()));
}

#[test]
fn img_12_the_same_directories_give_the_same_manifest() {
    let site = Site::new();
    for number in 0..40 {
        site.layer(&format!("l{number}"), LAUNCH);
        site.write(&format!("layers/acme_node/l{number}/f"), &"x".repeat(number * 1000));
    }
    let first = site.export().documents();
    for _ in 0..3 {
        assert_eq!(site.export().documents(), first);
    }
}

/// LBL-11, LBL-12, PRC-06: forms of older platforms.
#[test]
fn lbl_12_labels_by_platform_api() {
    let mut site = Site::new();
    let label = build(&site.export());
    assert_eq!(label["processes"][1]["command"], json!(["serve", "a b"]));
    assert_eq!(label["processes"][1]["args"], json!(["-v"]));
    assert_eq!(label["processes"][0]["direct"], false);
    assert_eq!(label["processes"][1]["exec-env"], json!(["production"]));
    assert_eq!(label["processes"][0]["buildpackID"], "acme/node");
    assert_eq!(
        label["buildpacks"],
        json!([{"id": "acme/node", "version": "1.2", "homepage": "https://example.com", "api": "0.12"}])
    );
    assert_eq!(label["buildpack-default-process-type"], "web");
    assert!(label.get("bom").is_none());
    site.api(9);
    let label = build(&site.export());
    assert_eq!(label["processes"][1]["command"], "serve");
    assert_eq!(label["processes"][1]["args"], json!(["a b", "-v"]));
    assert!(label.get("bom").is_none());
    site.api(8);
    assert_eq!(build(&site.export())["bom"], Value::Null);
    let bom = "[[bom]]\nname = \"x\"\n[bom.metadata]\nv = 1\n[bom.buildpack]\nid = \"a\"\nversion = \"1\"\n";
    site.write("layers/config/metadata.toml", &format!("{METADATA}{bom}"));
    let expected = json!([{"name": "x", "metadata": {"v": 1}, "buildpack": {"id": "a", "version": "1"}}]);
    assert_eq!(build(&site.export())["bom"], expected);
}

/// EXE-03, LBL-17
#[test]
fn exe_03_the_execution_environment_is_recorded_from_platform_api_0_15_on() {
    let mut site = Site::new();
    site.inputs.exec_env = "test".parse().unwrap();
    let image = site.export();
    assert_eq!(image.configuration.config.labels["io.buildpacks.exec-env"], "test");
    assert_eq!(lifecycle(&image)["exec-env"], "test");
    assert!(!image.configuration.config.env.iter().any(|entry| entry.starts_with("CNB_EXEC_ENV")));
    site.api(14);
    let image = site.export();
    assert!(!image.configuration.config.labels.contains_key("io.buildpacks.exec-env"));
    assert!(lifecycle(&image).get("exec-env").is_none());
}

#[test]
fn lbl_13_and_16_labels_of_platform_and_buildpacks() {
    let site = Site::new();
    assert_eq!(site.export().configuration.config.labels["io.buildpacks.project.metadata"], "{}");
    site.write(
        "layers/project-metadata.toml",
        "[source]\ntype = \"git\"\n[source.version]\ncommit = \"ab\"\n",
    );
    let labels = "[[labels]]\nkey = \"own\"\nvalue = \"1\"\n[[labels]]\nkey = \"own\"\nvalue = \"2\"\n";
    site.write("layers/config/metadata.toml", &format!("{METADATA}{labels}"));
    let image = site.export();
    assert_eq!(image.configuration.config.labels["own"], "2");
    assert_eq!(label(&image, "io.buildpacks.project.metadata")["source"]["version"]["commit"], "ab");
    site.write("layers/project-metadata.toml", "source");
    assert_eq!(site.failure().0, 1);
}

#[test]
fn run_05_names_of_the_run_image() {
    let mut site = Site::new();
    let image = site.export();
    let names = json!({"image": "docker.io/library/run", "mirrors": ["mirror.example/run"]});
    let record = &lifecycle(&image)["runImage"];
    assert_eq!((&record["image"], &record["mirrors"]), (&names["image"], &names["mirrors"]));
    assert_eq!(lifecycle(&image)["stack"]["runImage"], names);
    let run = site.images.find("run").unwrap().unwrap();
    assert_eq!(record["reference"], run.reference);
    fs::remove_file(site.path("run.toml")).unwrap();
    let label = lifecycle(&site.export());
    assert!(label["runImage"].get("image").is_none() && label["runImage"].get("mirrors").is_none());
    // Before Platform API 0.12 the names come from `stack.toml`, and are in one place only.
    site.api(11);
    site.write("run.toml", "[run-image]\nimage = \"stack-run\"\n");
    let label = lifecycle(&site.export());
    assert!(label["runImage"].get("image").is_none());
    assert_eq!(label["stack"]["runImage"]["image"], "stack-run");
}

/// LYR-14, LYR-16, LYR-18, LBL-01, STO-01
#[test]
fn lyr_14_launch_layers_are_in_the_image_with_their_metadata() {
    let site = Site::new();
    site.layer("a.b ü", &format!("{LAUNCH}build = true\n[metadata]\nn = 9007199254740993\n"));
    fs::create_dir(site.path("layers/acme_node/a.b ü")).unwrap();
    site.layer("build", "[[unmet]]\nname = \"x\"\n");
    site.layer("only-build", "[types]\nbuild = true\n");
    site.write("layers/acme_node/only-build/f", "f");
    site.write("layers/acme_node/no-toml/f", "f");
    site.write("layers/acme_node/store.toml", "[metadata]\nk = 1\n");
    let image = site.export();
    let record = &lifecycle(&image)["buildpacks"][0];
    let ids = diff_ids(&image);
    let expected = json!({
        "key": "acme/node", "version": "1.2", "store": {"metadata": {"k": 1}},
        "layers": {"a.b ü": {"sha": ids[1], "data": {"n": 9_007_199_254_740_993_i64}, "build": true, "launch": true, "cache": false}},
    });
    assert_eq!(*record, expected);
    assert_eq!(image.layers.len(), 6);
}

/// EXP-10, EXP-11, EXP-13
#[test]
fn exp_10_and_11_unchanged_layers_are_taken_from_the_previous_image() {
    let site = Site::new();
    for name in ["same", "changed", "gone"] {
        site.layer(name, LAUNCH);
        site.write(&format!("layers/acme_node/{name}/f"), name);
    }
    site.write("layers/sbom/launch/x", "{}");
    site.write("app/main.js", "main");
    let first = site.export();
    assert_eq!(site.reused(), Vec::<String>::new());
    // As others compress: the blobs of the previous image have to be found in the new one.
    let previous = recompressed(&site, &first);
    site.save(&previous, "registry.example/app:1");
    site.becomes_previous(&previous);
    fs::remove_dir_all(site.path("layers/acme_node/gone")).unwrap();
    fs::remove_file(site.path("layers/acme_node/gone.toml")).unwrap();
    site.write("layers/acme_node/changed/f", "other");
    let second = site.export();
    assert_eq!(
        site.reused(),
        ["acme/node:same", "sbom", "app", "launcher", "launcher config", "process types"]
    );
    let digests =
        |image: &Image| -> Vec<Digest> { image.layers.iter().map(|layer| layer.digest.clone()).collect() };
    // changed, gone, same, …: the base and the changed one are new, the gone one is left out.
    assert_eq!(digests(&second)[2..], digests(&previous)[3..]);
    assert_ne!(digests(&second)[1], digests(&previous)[1]);

    site.analyzed(
        &Analyzed::parse(&fs::read_to_string(&site.inputs.analyzed).unwrap())
            .unwrap()
            .run_image
            .unwrap()
            .reference,
        "",
    );
    let fresh = site.export();
    assert_eq!(fresh.configuration, second.configuration);
    assert_ne!(digests(&fresh)[2..], digests(&second)[2..]);
}

/// The same image with blobs of another compression.
fn recompressed(site: &Site, image: &Image) -> Image {
    let mut image = image.clone();
    for (number, layer) in image.layers.iter_mut().enumerate().skip(1) {
        let output = Command::new("sh")
            .args(["-c", "gzip -dc < \"$0\" | gzip -1n"])
            .arg(&layer.blob)
            .output()
            .unwrap();
        layer.digest = Digest::of(&output.stdout);
        layer.size = output.stdout.len() as u64;
        layer.blob = site.path(&format!("scratch/{number}.again"));
        fs::write(&layer.blob, output.stdout).unwrap();
    }
    image
}

#[test]
fn exp_10_a_slice_is_any_layer_of_the_previous_app() {
    let site = Site::new();
    site.write("app/a", "a");
    site.write("app/b", "b");
    let slices = |first: &str, second: &str| {
        format!("{METADATA}[[slices]]\npaths = [\"{first}\"]\n[[slices]]\npaths = [\"{second}\"]\n")
    };
    site.write("layers/config/metadata.toml", &slices("a", "b"));
    let first = site.export();
    site.becomes_previous(&first);
    site.write("layers/config/metadata.toml", &slices("b", "a"));
    site.export();
    let reused = site.reused();
    for name in ["app slice 1", "app slice 2", "app slice 3"] {
        assert!(reused.iter().any(|reused| reused == name), "{name} in {reused:?}");
    }
}

/// LYR-15, EXP-12
#[test]
fn lyr_15_a_layer_without_contents_stays_as_it_was() {
    let site = Site::new();
    site.layer("kept", &format!("{LAUNCH}[metadata]\nv = 1\n"));
    site.write("layers/acme_node/kept/f", "f");
    let first = site.export();
    site.becomes_previous(&first);
    fs::remove_dir_all(site.path("layers/acme_node/kept")).unwrap();
    site.layer("kept", &format!("{LAUNCH}[metadata]\nv = 2\n"));
    let second = site.export();
    assert_eq!(second.layers[1].digest, first.layers[1].digest);
    assert_eq!(lines(&second)[1], "Layer: 'kept', Created by buildpack: acme/node@1.2");
    let record = &lifecycle(&second)["buildpacks"][0]["layers"]["kept"];
    assert_eq!((&record["data"]["v"], &record["sha"]), (&json!(2), &json!(diff_ids(&first)[1])));
    // A platform may leave out blobs; then the layer cannot stay.
    site.becomes_previous(&second);
    let images = site.path("images/registry.example/app/1/blobs/sha256");
    fs::remove_file(images.join(first.layers[1].digest.hex())).unwrap();
    let (code, text) = site.failure();
    assert!(code == 62 && text.contains("`kept`"), "{code} {text}");
    site.layer("kept", LAUNCH);
    site.layer("new", LAUNCH);
    fs::remove_file(site.path("layers/acme_node/kept.toml")).unwrap();
    let (code, text) = site.failure();
    assert!(code == 62 && text.contains("`new`"), "{code} {text}");
}

#[test]
fn lyr_17_a_cached_layer_without_contents_fails_the_export() {
    let site = Site::new();
    site.layer("x", LAUNCH);
    site.write("layers/acme_node/x/f", "f");
    site.becomes_previous(&site.export());
    fs::remove_dir_all(site.path("layers/acme_node/x")).unwrap();
    site.layer("x", "[types]\nlaunch = true\ncache = true\n");
    let (code, text) = site.failure();
    assert!(code == 62 && text.contains("to be cached"), "{code} {text}");
}

#[test]
fn exp_07_files_of_buildpacks_that_cannot_be_read_fail_the_export() {
    for (name, text) in
        [("x", "types"), ("x", "[types]\nlaunch = 1\n"), ("x", "launch = true\n"), ("store", "[")]
    {
        let site = Site::new();
        site.layer(name, text);
        let (code, said) = site.failure();
        assert!(code == 62 && said.contains("acme/node@1.2"), "{text}: {code} {said}");
    }
    let site = Site::new();
    site.write("layers/config/metadata.toml", "processes = 1");
    assert_eq!(site.failure().0, 1);
    let site = Site::new();
    site.write("layers/analyzed.toml", "run-image = 1");
    assert_eq!(site.failure().0, 3);
}

/// A buildpack must not lead the exporter out of its directory.
#[test]
fn links_in_the_place_of_directories_are_not_followed() {
    let site = Site::new();
    site.write("secret/f", "secret");
    site.write("secret/x.toml", LAUNCH);
    site.write("secret/x/f", "secret");
    symlink(site.path("secret"), site.path("layers/acme_node")).unwrap();
    let (code, text) = site.failure();
    assert!(code == 62 && text.contains("acme_node` is not a directory"), "{code} {text}");
    fs::remove_file(site.path("layers/acme_node")).unwrap();
    site.layer("x", LAUNCH);
    symlink("../../secret", site.path("layers/acme_node/x")).unwrap();
    symlink("../secret", site.path("layers/sbom")).unwrap();
    let image = site.export();
    // The link itself, and no layer of bills of materials.
    assert_eq!(diff_ids(&image)[1], site.expected("layers/acme_node/x", "walk", &[""]));
    assert_eq!(image.layers.len(), 6);
    // Nothing is written through the link either.
    site.write("launcher-sbom/sbom.cdx.json", "{}");
    assert_eq!(site.failure().0, 62);
    assert!(!site.path("secret/launch").exists());
}

#[test]
fn sbom_11_the_launchers_bill_of_materials_is_in_the_image() {
    let mut site = Site::new();
    site.write("launcher-sbom/launcher.sbom.cdx.json", "{\"l\":1}");
    site.write("launcher-sbom/sbom.spdx.json", "{\"s\":1}");
    site.write("launcher-sbom/other.json", "{}");
    let image = site.export();
    assert_eq!(diff_ids(&image)[1], site.expected("layers/sbom/launch", "walk", &[]));
    let copied = |name: &str| {
        let directory = site.path("layers/sbom/launch/buildpacksio_lifecycle/launcher");
        fs::read_to_string(directory.join(name)).unwrap()
    };
    assert_eq!(copied("sbom.cdx.json"), "{\"l\":1}");
    assert_eq!(copied("sbom.spdx.json"), "{\"s\":1}");
    assert!(lifecycle(&image)["sbom"]["sha"].is_string());
    fs::remove_dir_all(site.path("layers/sbom")).unwrap();
    site.api(10);
    assert!(lifecycle(&site.export()).get("sbom").is_none());
}

#[test]
fn sbom_08_bills_of_materials_of_the_build_stay_outside() {
    let mut site = Site::new();
    site.write("layers/sbom/build/acme_node/sbom.cdx.json", "{}");
    site.write("layers/sbom/cache/acme_node/x/sbom.cdx.json", "{}");
    assert!(lifecycle(&site.export()).get("sbom").is_none());
    site.write("layers/sbom/launch/sbom.legacy.json", "null");
    let image = site.export();
    assert_eq!(lines(&image)[1], "Software Bill-of-Materials");
    assert_eq!(lifecycle(&image)["sbom"]["sha"], json!(site.expected("layers/sbom/launch", "walk", &[])));
    site.api(7);
    assert!(lifecycle(&site.export()).get("sbom").is_none());
}

/// RPT-01, EXP-06
#[test]
fn rpt_01_every_name_is_saved_and_reported() {
    let mut site = Site::new();
    site.inputs.images = vec![
        "registry.example/app:1".to_owned(),
        "registry.example/app:2".to_owned(),
        "registry.example/b".to_owned(),
    ];
    let image = site.export();
    for name in &site.inputs.images {
        let found = site.images.find(name).unwrap().unwrap().image;
        assert_eq!(found.documents(), image.documents(), "{name}");
    }
    // As it is under the first name, which it says.
    let (_, manifest) = image.documents_called("1");
    let report: toml::Table = fs::read_to_string(&site.inputs.report).unwrap().parse().unwrap();
    let expected = toml::toml! {
        [image]
        tags = ["registry.example/app:1", "registry.example/app:2", "registry.example/b"]
    };
    assert_eq!(report["image"]["tags"], expected["image"]["tags"]);
    assert_eq!(report["image"]["digest"].as_str(), Some(manifest.digest.as_str()));
    assert_eq!(report["image"]["manifest-size"].as_integer(), i64::try_from(manifest.bytes.len()).ok());
    assert_eq!(report.len(), 1);
}

#[test]
fn rpt_02_a_report_that_cannot_be_written_fails_the_export() {
    let mut site = Site::new();
    site.inputs.report = site.path("launcher/report.toml");
    assert_eq!(site.failure().0, 62);
}

#[test]
fn rpt_03_old_platforms_are_told_what_the_build_was_made_with() {
    let mut site = Site::new();
    site.api(8);
    site.layer("build", "[[bom]]\nname = \"x\"\n[bom.metadata]\nv = 1\n");
    site.export();
    let report: toml::Table = fs::read_to_string(&site.inputs.report).unwrap().parse().unwrap();
    let entry = report["build"]["bom"][0].as_table().unwrap();
    let expected: toml::Table = toml::toml! {
        name = "x"
        [metadata]
        v = 1
        [buildpack]
        id = "acme/node"
        version = "1.2"
    };
    assert_eq!(*entry, expected);
}

#[test]
fn rpt_06_a_name_that_fails_fails_the_export() {
    let mut site = Site::new();
    site.inputs.images.push("registry.example/app:2".to_owned());
    site.write("images/registry.example/app/2", "in the way");
    let (code, text) = site.failure();
    assert!(code == 62 && text.contains("app:2"), "{code} {text}");
    assert!(site.images.find("registry.example/app:1").unwrap().is_some());
}

/// API-07, EXP-07: before anything is made.
#[test]
fn api_07_and_codes_of_what_is_wrong_before() {
    let mut site = Site::new();
    site.write("layers/group.toml", "[[group]]\nid = \"acme/node\"\nversion = \"1.2\"\napi = \"0.99\"\n");
    assert_eq!(site.failure().0, 12);
    site.write("layers/group.toml", "[");
    assert_eq!(site.failure().0, 1);
    site.write("layers/analyzed.toml", "");
    assert_eq!(site.failure().0, 3);
    for names in [vec![], vec!["No Name"], vec!["one.example/a", "two.example/a"]] {
        site.inputs.images = names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(site.failure().0, 3, "{names:?}");
    }
    let site = Site::new();
    site.analyzed("missing.example/run", "");
    assert_eq!(site.failure().0, 1);
}

/// EXP-01, EXP-03, LBL-14: with what image extensions made of the run image.
#[test]
fn exp_01_an_extended_run_image_is_the_base() {
    let site = Site::new();
    let found = site.images.find("run").unwrap().unwrap();
    let mut extended = found.image.clone();
    let layer = site.blob("curl", MediaFamily::Docker);
    extended.layers.push(layer.clone());
    extended.configuration.rootfs.diff_ids.push(layer.diff_id.clone());
    let line = "Layer: 'RUN apt', Created by extension: acme/curl";
    extended.configuration.history.push(History { created_by: Some(line.to_owned()), ..History::default() });
    extended.configuration.config.labels.insert("io.buildpacks.rebasable".to_owned(), "true".to_owned());
    extended.configuration.config.env.push("CURL=1".to_owned());
    let reference = site.save(&extended, "extended");
    // The platform has the layers of the run image elsewhere.
    let from = site.path("images/index.docker.io/library/extended/latest");
    fs::remove_file(from.join("blobs/sha256").join(extended.layers[0].digest.hex())).unwrap();
    let to = site.path("layers/extended/run");
    fs::create_dir_all(&to).unwrap();
    fs::rename(&from, to.join(reference.rsplit_once('@').unwrap().1)).unwrap();

    let image = site.export();
    assert!(!diff_ids(&image).contains(&layer.diff_id.to_string()), "it is not to be extended");
    let text = fs::read_to_string(&site.inputs.analyzed).unwrap();
    site.write("layers/analyzed.toml", &format!("{text}extend = true\n"));
    let image = site.export();
    assert_eq!(diff_ids(&image)[1], layer.diff_id.to_string());
    assert_eq!(lines(&image)[..3], ["ADD rootfs", line, "Application Layer"]);
    assert_eq!(image.layers[1].media_type, MediaFamily::Oci.layer());
    assert_eq!(image.configuration.config.labels["io.buildpacks.rebasable"], "true");
    assert!(image.configuration.config.env.contains(&"CURL=1".to_owned()));
    // What a rebase replaces ends below.
    assert_eq!(lifecycle(&image)["runImage"]["topLayer"], json!(diff_ids(&image)[0]));
    assert_eq!(lifecycle(&image)["runImage"]["reference"], found.reference);
}

#[test]
fn a_layer_whose_digest_is_known_is_not_read() {
    let site = Site::new();
    for name in ["x", "new"] {
        site.layer(name, LAUNCH);
        site.write(&format!("layers/acme_node/{name}/f"), "before");
    }
    let first = site.export();
    site.becomes_previous(&first);
    for name in ["x", "new"] {
        site.write(&format!("layers/acme_node/{name}/f"), "after");
    }
    let known = [("x", first.layers[2].diff_id.clone()), ("new", DiffId(Digest::of(b"nowhere")))]
        .map(|(name, diff_id)| (("acme/node".parse().unwrap(), name.parse().unwrap()), diff_id));
    let known = KnownDiffIds::from(known);
    run_knowing(&known, &site.inputs, &site.images, &Cancel::default(), &mut |_| ()).unwrap();
    let second = site.images.find("registry.example/app:1").unwrap().unwrap().image;
    assert_eq!(second.layers[2], first.layers[2]);
    // One that the previous image does not have is made.
    assert_eq!(diff_ids(&second)[1], site.expected("layers/acme_node/new", "walk", &[]));
}

/// TAR-08, CAC-01: what a cache keeps of a layer is what an image has of it.
#[test]
fn tar_08_a_directory_alone_is_written_like_a_layer() {
    let site = Site::new();
    site.layer("x", LAUNCH);
    site.file("layers/acme_node/x/a/b", "ab", 0o755);
    site.file("layers/acme_node/x/a-b", "a-b", 0o600);
    let path = site.path("layers/acme_node/x");
    let write = |path: &Path| {
        let (owner, cancel) = (Owner { uid: UID.into(), gid: GID.into() }, Cancel::default());
        write_layer(path.to_str().unwrap(), owner, TreeLimits::default(), &cancel, Vec::new()).unwrap()
    };
    let (diff_id, tar) = write(&path).unwrap();
    assert_eq!(diff_id.to_string(), site.expected("layers/acme_node/x", "walk", &[]));
    assert_eq!(Digest::of(&tar), diff_id.0);
    assert_eq!(diff_ids(&site.export())[1], diff_id.to_string());
    assert_eq!(write(&path.join("missing")), None);
}

#[test]
fn nothing_is_left_in_the_scratch_directory() {
    let site = Site::new();
    site.export();
    let left: Vec<_> =
        fs::read_dir(site.path("scratch")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["etc.blob"]);
}
