use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::super::bindings::buildpack::wapack::buildpack::files::UnpackOptions;
use super::super::cell::OpenedDirectory;
use super::super::filesystem::{MountSpec, Quota};
use super::*;
use crate::cnb::id::LayerName;
use crate::cnb::layer::LayerTypes;
use crate::executor::Refusal;
use crate::limits::Limits;

/// A source that is a directory; everything arrives at once, or in the order it is told.
struct Directory {
    files: PathBuf,
    last_first: bool,
}

impl CellCalls for Directory {
    fn open_layer(&mut self, _: &LayerName, _: LayerTypes, _: &str) -> Result<OpenedDirectory, Refusal> {
        unreachable!("downloads open no layer")
    }

    fn update_layer(&mut self, _: &LayerName) -> Result<OwnedFd, Refusal> {
        unreachable!("downloads update no layer")
    }

    fn fetch(
        &mut self,
        artifacts: Vec<ArtifactRequest>,
        arrived: &mut dyn FnMut(usize, Result<OwnedFd, Refusal>),
    ) {
        let mut order: Vec<usize> = (0..artifacts.len()).collect();
        if self.last_first {
            order.reverse();
        }
        for index in order {
            let file = fs::File::open(self.files.join(&artifacts[index].path));
            arrived(
                index,
                file.map(OwnedFd::from).map_err(|error| Refusal {
                    id: "source.not_found".to_owned(),
                    message: error.to_string(),
                    hint: None,
                }),
            );
        }
    }
}

/// A table with a layer at `/layers/own`, and one at `/layers/old` that has a lower side.
fn table(directory: &Path, limits: &Limits) -> MountTable {
    let mut table = MountTable::new(Quota::new(limits, (0, 0)));
    for name in ["own", "old", "lower"] {
        fs::create_dir_all(directory.join(name)).unwrap();
    }
    let open = |name: &str| Some(fs::File::open(directory.join(name)).unwrap().into());
    for (name, lower) in [("own", None), ("old", open("lower"))] {
        table.mount(MountSpec {
            guest_path: format!("/layers/{name}"),
            lower,
            upper: open(name),
            writable: true,
            hidden: vec![],
        });
    }
    table
}

fn artifact(path: &str, destination: &str) -> Artifact {
    Artifact {
        source: "npm".to_owned(),
        path: path.to_owned(),
        integrity: None,
        destination: destination.to_owned(),
        unpack: Some(UnpackOptions {
            strip_components: 1,
            skip_links: true,
            rename: vec![(".gitignore".to_owned(), ".npmignore".to_owned())],
        }),
    }
}

/// What a directory takes of the quota, as `stat` sees it.
fn on_disk(directory: &Path) -> (u64, u64) {
    let mut sum = (0, 0);
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.path().symlink_metadata().unwrap();
        sum.1 += 1;
        if metadata.is_dir() {
            let inner = on_disk(&entry.path());
            sum = (sum.0 + inner.0, sum.1 + inner.1);
        } else if metadata.is_file() {
            sum.0 += metadata.size();
        }
    }
    sum
}

/// How fast a directory of npm's tarballs is unpacked:
/// `WAPACK_TARBALLS=<directory> cargo test --release -p wapack-runtime -- --ignored --nocapture speed`
#[test]
#[ignore = "needs a directory of tarballs; measures, asserts only that they unpack"]
#[expect(clippy::print_stderr, reason = "a measurement that is started by hand")]
fn speed() {
    let files = PathBuf::from(std::env::var_os("WAPACK_TARBALLS").expect("a directory"));
    let mut names: Vec<_> = fs::read_dir(&files).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    let artifacts: Vec<Artifact> = names
        .iter()
        .map(|name| {
            let name = name.to_str().unwrap();
            artifact(name, &format!("/layers/own/node_modules/{name}"))
        })
        .collect();
    for _ in 0..3 {
        let directory = tempfile::tempdir().unwrap();
        let limits = Limits::default();
        let mut table = table(directory.path(), &limits);
        let started = std::time::Instant::now();
        let result =
            fetch(&mut Directory { files: files.clone(), last_first: false }, &mut table, &artifacts);
        let took = started.elapsed();
        let used = table.quota().used();
        eprintln!("{} archives, {} entries, {} MB: {took:?}", names.len(), used.1, used.0 / 1_000_000);
        result.map_err(|error| error.message).unwrap();
        assert_eq!(used, on_disk(&directory.path().join("own")));
    }
}
