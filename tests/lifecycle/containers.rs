//! The programs in the containers of a platform: a builder image made of files of this
//! machine, volumes, and nobody who is root where buildpacks run.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::components::{BUILD, add_component, begin_again, says};
use super::daemon::Docker;
use super::fixture::{Ended, IMAGE, Lifecycle, Platform};
use crate::support::target_directory;

/// The user of the builder image.
const CNB: u32 = 1000;
const BUILDER: &str = "registry.example/builder:1";
const RUN_IMAGE: &str = "registry.example/run:1";

/// What scripts of tests need.
const TOOLS: [&str; 4] = ["sh", "cat", "mkdir", "id"];

/// Files of this machine: tools, a program, and the libraries that they are started with.
fn ground(programs: &[&Path]) -> BTreeSet<(PathBuf, String)> {
    let path = std::env::var("PATH").unwrap_or_default();
    let find = |tool: &str| {
        let mut places = std::env::split_paths(&path).map(|directory| directory.join(tool));
        places.find(|place| place.is_file()).unwrap_or_else(|| panic!("there is no `{tool}`"))
    };
    let mut files: BTreeSet<(PathBuf, String)> =
        TOOLS.iter().map(|tool| (find(tool), format!("bin/{tool}"))).collect();
    let started: Vec<PathBuf> = files
        .iter()
        .map(|(file, _)| file.clone())
        .chain(programs.iter().map(|file| (*file).to_owned()))
        .collect();
    for program in started {
        // A static program has none.
        let listed = Command::new("ldd").arg(&program).output().expect("`ldd`");
        for word in String::from_utf8_lossy(&listed.stdout).split_whitespace() {
            if let Some(name) = word.strip_prefix('/') {
                files.insert((PathBuf::from(word), name.to_owned()));
            }
        }
    }
    files
}

/// A tar, and the directories that are in it: without an entry, nobody but root could enter one.
struct Tar(tar::Builder<File>, BTreeSet<PathBuf>);

impl Tar {
    fn new(path: &Path) -> Self {
        let mut tar = Self(tar::Builder::new(File::create(path).expect("a file")), BTreeSet::new());
        tar.text("etc/passwd", "root:x:0:0::/:/bin/sh\ncnb:x:1000:1000::/home/cnb:/bin/sh\n");
        tar.directory("tmp", 0o1777);
        tar
    }

    fn header(mode: u32, size: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode);
        header.set_size(size);
        header
    }

    fn parents(&mut self, name: &str) {
        let parents: Vec<&Path> = Path::new(name).ancestors().skip(1).collect();
        for parent in parents.into_iter().rev().filter(|parent| !parent.as_os_str().is_empty()) {
            if self.1.insert(parent.to_owned()) {
                self.directory(parent.to_str().expect("a test's own name"), 0o755);
            }
        }
    }

    fn text(&mut self, name: &str, text: &str) {
        self.parents(name);
        let mut header = Self::header(0o644, text.len() as u64);
        self.0.append_data(&mut header, name, text.as_bytes()).expect("an entry");
    }

    fn directory(&mut self, name: &str, mode: u32) {
        let mut header = Self::header(mode, 0);
        header.set_entry_type(tar::EntryType::Directory);
        self.0.append_data(&mut header, name, std::io::empty()).expect("an entry");
    }

    fn file(&mut self, from: &Path, name: &str) {
        self.parents(name);
        let file = File::open(from).expect("a file");
        let mut header = Self::header(0o755, file.metadata().expect("a file").len());
        self.0.append_data(&mut header, name, file).expect("an entry");
    }

    fn link(&mut self, name: &str, target: &str) {
        let mut header = Self::header(0o777, 0);
        header.set_entry_type(tar::EntryType::Symlink);
        self.0.append_link(&mut header, name, target).expect("an entry");
    }
}

/// A builder image with a component and a script in it, and a run image.
fn import_images(docker: &Docker, platform: &Platform) {
    let program = platform.lifecycle.program("lifecycle");
    let ground = ground(&[&program]);
    let import = |name: &str, changes: &[&str], fill: &dyn Fn(&mut Tar)| {
        let path = platform.path("image.tar");
        let mut tar = Tar::new(&path);
        for (from, to) in &ground {
            tar.file(from, to);
        }
        fill(&mut tar);
        tar.0.finish().expect("a tar");
        let path = path.display().to_string();
        let mut arguments = vec!["import"];
        arguments.extend(changes.iter().flat_map(|change| ["-c", change]));
        arguments.extend([path.as_str(), name]);
        docker.call(&arguments).succeeded();
    };
    import(RUN_IMAGE, &["ENV PATH=/bin"], &|_| {});
    let changes = ["ENV PATH=/bin", "ENV CNB_USER_ID=1000", "ENV CNB_GROUP_ID=1000", "USER 1000:1000"];
    import(BUILDER, &changes, &|tar| {
        // The program itself is mounted: with all that debuggers want, it is large.
        tar.text("cnb/lifecycle/lifecycle", "");
        tar.file(&target_directory().join("embed/launcher/linux-amd64"), "cnb/lifecycle/launcher");
        for name in ["analyzer", "detector", "restorer", "builder", "exporter", "creator"] {
            tar.link(&format!("cnb/lifecycle/{name}"), "lifecycle");
        }
        tar.parents("cnb/x");
        tar.0.append_dir_all("cnb/buildpacks", platform.path("buildpacks")).expect("entries");
        tar.text("cnb/order.toml", &std::fs::read_to_string(platform.path("order.toml")).expect("a file"));
        tar.text("cnb/run.toml", &format!("[[images]]\nimage = \"{RUN_IMAGE}\"\n"));
    });
}

struct Containers {
    // Ended before its directories go.
    docker: Docker,
    platform: Platform,
}

impl Containers {
    fn new() -> Option<Self> {
        let platform = Platform::new(Lifecycle::ours(), "0.15");
        let docker = Docker::start(&platform)?;
        add_component(&platform, "careful", "well-behaved");
        let script = format!("echo \"script of $(id -u)\"\n{BUILD}");
        platform.buildpack("one", "0.10", "exit 0", &script);
        platform.order(&["careful", "one"]);
        // Without it the image says how often it was built.
        platform.file("platform/env/COUNT", "no", 0o644);
        import_images(&docker, &platform);
        Some(Self { docker, platform })
    }

    /// A program in a container of its own; root's have the engine.
    fn run(&self, program: &str, as_root: bool, arguments: &[&str]) -> Ended {
        let mut words = vec!["run".to_owned(), "--rm".to_owned(), "--network=none".to_owned()];
        words.extend(["-e".to_owned(), "CNB_PLATFORM_API=0.15".to_owned()]);
        let mut mount = |from: &str, to: &str| words.extend(["-v".to_owned(), format!("{from}:{to}")]);
        let lifecycle = self.platform.lifecycle.program("lifecycle").display().to_string();
        mount(&lifecycle, "/cnb/lifecycle/lifecycle");
        for (name, place) in
            [("app", "/workspace"), ("layers", "/layers"), ("platform", "/platform"), ("cache", "/cache")]
        {
            // The cache is not there where buildpacks run by themselves.
            if name != "cache" || as_root {
                mount(&self.platform.path(name).display().to_string(), place);
            }
        }
        if as_root {
            mount(self.docker.socket.trim_start_matches("unix://"), "/var/run/docker.sock");
            words.extend(["-u".to_owned(), "root".to_owned()]);
        }
        words.extend([BUILDER.to_owned(), format!("/cnb/lifecycle/{program}")]);
        words.extend(arguments.iter().map(|word| (*word).to_owned()));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.docker.call(&words).succeeded()
    }

    fn give_away(&self) {
        for name in ["app", "layers", "cache"] {
            chown(self.platform.path(name), Some(CNB), Some(CNB)).expect("root gives");
        }
    }

    fn phases(&self) -> Ended {
        self.give_away();
        let in_daemon = |rest: &[&'static str]| -> Vec<&'static str> { [&["-daemon"], rest].concat() };
        self.run("analyzer", true, &in_daemon(&["-run-image", RUN_IMAGE, IMAGE]));
        self.run("detector", false, &["-app", "/workspace"]);
        self.run("restorer", true, &in_daemon(&["-cache-dir", "/cache"]));
        let ended = self.run("builder", false, &["-app", "/workspace"]);
        self.run("exporter", true, &in_daemon(&["-cache-dir", "/cache", "-app", "/workspace", IMAGE]));
        ended
    }

    fn creator(&self) -> Ended {
        self.give_away();
        let arguments =
            ["-daemon", "-cache-dir", "/cache", "-app", "/workspace", "-run-image", RUN_IMAGE, IMAGE];
        self.run("creator", true, &arguments)
    }

    fn image_id(&self) -> String {
        self.docker.run(&["image", "inspect", "-f", "{{.Id}}", IMAGE]).expect("the image")
    }
}

/// WSM-04, CRE-01, CLI-11: a component and a script in one group in containers, as the user of
/// the builder; what holds the component there is said; the image is the same from one
/// process and from five, the first time and the second.
#[test]
fn wsm_04_cre_01_components_and_scripts_build_in_the_containers_of_a_platform() {
    let Some(containers) = Containers::new() else { return };
    let ended = containers.phases();
    says(&ended, &["components are held by their cell", "program: Filled", "script of 1000"]);
    says(&ended, &["classic sees TOOLS=yes"]);
    let id = containers.image_id();

    begin_again(&containers.platform);
    let ended = containers.phases();
    says(&ended, &["program: Restored", "assets: Kept", "counter: Restored", "tools: Filled"]);
    assert_eq!(containers.image_id(), id);

    begin_again(&containers.platform);
    let ended = containers.creator();
    says(&ended, &["components are held by their cell", "program: Restored", "assets: Kept"]);
    says(&ended, &["script of 1000", "Reusing layer 'acme/careful:assets'"]);
    assert_eq!(containers.image_id(), id);

    let linked =
        ["run", "--rm", "--network=none", "--entrypoint=launcher", IMAGE, "--", "cat", "/workspace/linked"];
    assert_eq!(containers.docker.run(&linked).as_deref(), Some("1"), "a file of a kept layer");
}
