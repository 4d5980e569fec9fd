//! The exporter on directories as buildpacks leave them: what its tests share.

mod image;
mod layers;
mod outcome;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;

use serde_json::{Value, json};

use super::*;
use crate::cnb::api::ApiVersion;
use crate::event::LayerSource;
use crate::images::LayoutImages;
use crate::oci::digest::{DiffId, Digest, HashingWriter};
use crate::oci::encoder::{Encoders, Encoding};
use crate::oci::image::{History, Image, ImageConfiguration, MediaFamily, RootFs, RunConfiguration};
use crate::oci::layer::LayerWriter;
use crate::phase::export::write_layer;
use crate::programs::ProgramError;

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
            compression: None,
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
        self.images.save(image, &[name.to_owned()], &blobs, &Cancel::default(), &mut |_| ()).unwrap();
        self.images.find(name).unwrap().unwrap().reference
    }

    /// A layer with one file of that name.
    fn blob(&self, name: &str, family: MediaFamily) -> Layer {
        let mut tar = LayerWriter::new(Vec::new());
        tar.file(format!("/{name}").as_bytes(), 0o644, Owner::ROOT, 1, b"x".as_slice()).unwrap();
        let tar = tar.finish().unwrap();
        let encoders = Encoders::new(Encoding::Gzip);
        let mut gzip = encoders.writer(HashingWriter::new(Vec::new()));
        io::Write::write_all(&mut gzip, &tar).unwrap();
        let (digest, size, bytes) = gzip.finish().unwrap().finish();
        let blob = self.path(&format!("scratch/{name}.blob"));
        fs::write(&blob, bytes).unwrap();
        Layer {
            media_type: family.layer(),
            digest,
            size,
            diff_id: DiffId(Digest::of(&tar)),
            blob: blob.into(),
        }
    }

    fn api(&mut self, minor: u64) {
        self.inputs.api = PlatformApi::supported(ApiVersion::zero(minor)).unwrap();
    }

    fn try_export(&self) -> Result<Image, ExporterError> {
        self.events.borrow_mut().clear();
        let mut sink = |event| self.events.borrow_mut().push(event);
        run(&self.inputs, ImagePlaces::one(&self.images), &Cancel::default(), &mut sink)?;
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
