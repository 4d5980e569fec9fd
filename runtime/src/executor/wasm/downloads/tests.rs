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

/// A gzipped tar of files, each below `package/`.
fn tarball(files: &[(&str, &[u8])]) -> Vec<u8> {
    let encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut builder = tar::Builder::new(encoder);
    for (name, contents) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(contents.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, format!("package/{name}"), *contents).unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap()
}

struct Fetching {
    directory: tempfile::TempDir,
    result: Result<(), HostError>,
    used: (u64, u64),
}

/// Fetches from a directory with these files.
fn run(sources: &[(&str, Vec<u8>)], artifacts: &[Artifact], last_first: bool, limits: &Limits) -> Fetching {
    let directory = tempfile::tempdir().unwrap();
    let files = directory.path().join("source");
    fs::create_dir(&files).unwrap();
    for (name, bytes) in sources {
        fs::write(files.join(name), bytes).unwrap();
    }
    let mut table = table(directory.path(), limits);
    let result = fetch(&mut Directory { files, last_first }, &mut table, artifacts);
    let used = table.quota().used();
    let (own, old) = (on_disk(&directory.path().join("own")), on_disk(&directory.path().join("old")));
    assert_eq!(used, (own.0 + old.0, own.1 + old.1), "what is charged is what is there");
    Fetching { directory, result, used }
}

#[test]
fn packages_inside_packages_may_arrive_in_any_order() {
    let depth = 12;
    let packages: Vec<(String, Vec<u8>)> = (0..depth)
        .map(|number| {
            let text = format!("{{\"name\":\"p{number}\"}}");
            let index = vec![b'x'; 10_000 * number];
            (
                format!("p{number}.tgz"),
                tarball(&[("package.json", text.as_bytes()), ("lib/index.js", &index)]),
            )
        })
        .collect();
    let sources: Vec<(&str, Vec<u8>)> =
        packages.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    // node_modules/p0, node_modules/p0/node_modules/p1, and so on, in both kinds of layers.
    for layer in ["own", "old"] {
        let artifacts: Vec<Artifact> = (0..depth)
            .map(|number| {
                let names: Vec<String> = (0..=number).map(|above| format!("node_modules/p{above}")).collect();
                artifact(sources[number].0, &format!("/layers/{layer}/{}", names.join("/")))
            })
            .collect();
        for last_first in [false, true] {
            let fetching = run(&sources, &artifacts, last_first, &Limits::default());
            fetching.result.map_err(|error| error.message).unwrap();
            // For each: two files, `lib`, itself and the `node_modules` it is in.
            assert_eq!(fetching.used.1, 5 * depth as u64);
            let mut place = fetching.directory.path().join(layer);
            for number in 0..depth {
                place = place.join(format!("node_modules/p{number}"));
                let text = fs::read_to_string(place.join("package.json")).unwrap();
                assert_eq!(text, format!("{{\"name\":\"p{number}\"}}"));
                assert_eq!(fs::metadata(place.join("lib/index.js")).unwrap().len(), 10_000 * number as u64);
            }
        }
    }
}

#[test]
fn a_file_that_is_not_unpacked_goes_where_it_should() {
    let sources = [("one", b"1".to_vec())];
    let artifact = Artifact { unpack: None, ..artifact("one", "/layers/own/a/b/file") };
    let fetching = run(&sources, &[artifact], false, &Limits::default());
    fetching.result.map_err(|error| error.message).unwrap();
    assert_eq!(fs::read(fetching.directory.path().join("own/a/b/file")).unwrap(), b"1");
}

#[test]
fn an_error_names_the_artifact_and_stops_the_rest() {
    let escape = {
        let mut bytes = tarball(&[("aaaa", b"x")]);
        let mut plain = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&bytes[..]), &mut plain).unwrap();
        plain[..12].copy_from_slice(b"package/../x");
        // The sum of the bytes that changed: "aaaa" became "../x".
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes().copy_from_slice(&plain[..512]);
        header.set_cksum();
        plain[..512].copy_from_slice(header.as_bytes());
        bytes.clear();
        bytes.extend(plain);
        bytes
    };
    let sources = [("bad.tgz", escape), ("good.tgz", tarball(&[("file", b"x")]))];
    let mut artifacts = vec![artifact("bad.tgz", "/layers/own/bad")];
    artifacts.extend((0..200).map(|number| artifact("good.tgz", &format!("/layers/own/good/{number}"))));
    let error = run(&sources, &artifacts, false, &Limits::default()).result.unwrap_err();
    assert_eq!(error.id, "archive.bad_path");
    assert_eq!(
        error.message,
        "cannot unpack `npm:bad.tgz` into `/layers/own/bad`: entry 1 `package/../x` has a path that leaves the destination, or is none"
    );

    // One that does not come.
    let artifacts =
        [artifact("good.tgz", "/layers/own/good"), artifact("missing.tgz", "/layers/own/missing")];
    assert_eq!(
        run(&sources, &artifacts, false, &Limits::default()).result.unwrap_err().id,
        "source.not_found"
    );
}

#[test]
fn a6_the_limits_stop_all_threads_together() {
    let sources = [("p.tgz", tarball(&[("a", &vec![7; 100_000]), ("b", &vec![7; 100_000])]))];
    let artifacts: Vec<Artifact> =
        (0..100).map(|number| artifact("p.tgz", &format!("/layers/own/{number}"))).collect();
    let limits = Limits { disk_bytes: 1_050_000, ..Limits::default() };
    let fetching = run(&sources, &artifacts, false, &limits);
    assert_eq!(fetching.result.unwrap_err().id, "guest.disk_limit");
    assert!(fetching.used.0 <= 1_050_000);
    let limits = Limits { disk_entries: 50, ..Limits::default() };
    let fetching = run(&sources, &artifacts, false, &limits);
    assert_eq!(fetching.result.unwrap_err().id, "guest.disk_limit");
    assert!(fetching.used.1 <= 50);
}

#[test]
fn a2_a_destination_is_never_reached_through_a_link() {
    let directory = tempfile::tempdir().unwrap();
    let files = directory.path().join("source");
    fs::create_dir(&files).unwrap();
    fs::write(files.join("p.tgz"), tarball(&[("file", b"x")])).unwrap();
    let mut table = table(directory.path(), &Limits::default());
    for layer in ["own", "old"] {
        fs::create_dir(directory.path().join(layer).join("real")).unwrap();
        std::os::unix::fs::symlink("real", directory.path().join(layer).join("link")).unwrap();
        fs::write(directory.path().join(layer).join("file"), "").unwrap();
        let rows = [
            ("link", "files.not_permitted"),
            ("link/below", "files.not_permitted"),
            ("file", "files.not_found"),
            ("file/below", "files.not_found"),
            ("real/../real", "files.failed"),
        ];
        for (name, id) in rows {
            let artifacts = [artifact("p.tgz", &format!("/layers/{layer}/{name}"))];
            let mut source = Directory { files: files.clone(), last_first: false };
            let error = fetch(&mut source, &mut table, &artifacts).unwrap_err();
            assert_eq!(error.id, id, "{layer} {name}: {}", error.message);
        }
        assert_eq!(fs::read_dir(directory.path().join(layer).join("real")).unwrap().count(), 0);
    }
    let elsewhere = [artifact("p.tgz", "/workspace/x")];
    let mut source = Directory { files, last_first: false };
    assert_eq!(fetch(&mut source, &mut table, &elsewhere).unwrap_err().id, "files.not_permitted");
}
