//! Archives built by hand, a table for each row of the threat model's "Archives".
//!
//! Every archive goes through both kinds of destination, and a canary stands beside them.

mod differential;
mod formats;
mod tar;
mod zip;

use std::fs;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::Mutex;

use super::super::filesystem::{GuestPath, MountSpec, MountTable, Quota};
use super::*;
use crate::limits::Limits;

/// What one archive did.
struct Unpacking {
    directory: tempfile::TempDir,
    result: Result<Unpacked, UnpackError>,
    used: (u64, u64),
}

impl Unpacking {
    fn id(&self) -> &'static str {
        self.result.as_ref().err().map_or("unpacked", UnpackError::id)
    }

    /// Every path with its type, permissions and contents or target, in order.
    fn tree(&self) -> Vec<String> {
        tree(&self.directory.path().join("upper"))
    }
}

/// Every path below `root` with its type, permissions and contents or target, in order.
fn tree(root: &Path) -> Vec<String> {
    fn walk(root: &Path, directory: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().escape_default().to_string();
            let mode = metadata.permissions().mode() & 0o7777;
            found.push(if metadata.is_dir() {
                format!("{name}/ {mode:o}")
            } else if metadata.is_symlink() {
                format!("{name} -> {}", fs::read_link(&path).unwrap().display())
            } else {
                let contents = fs::read(&path).unwrap();
                let shown = contents.get(..40).unwrap_or(&contents).escape_ascii().to_string();
                format!("{name} {mode:o} {} {} {shown}", contents.len(), flate_sum(&contents))
            });
            if metadata.is_dir() {
                walk(root, &path, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(root, root, &mut found);
    found.sort();
    found
}

fn flate_sum(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

fn strip(strip_components: u32) -> UnpackOptions {
    UnpackOptions { strip_components, skip_links: false, rename: vec![] }
}

/// Options as npm has them.
fn npm() -> UnpackOptions {
    let rename = vec![(".gitignore".to_owned(), ".npmignore".to_owned())];
    UnpackOptions { strip_components: 1, skip_links: true, rename }
}

/// Where an archive goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Fresh,
    /// A mount with a lower side, for which the table is asked.
    Mounted,
}

fn run(bytes: &[u8], options: &UnpackOptions) -> Unpacking {
    let limits = Limits { disk_bytes: 100 << 20, disk_entries: 100, ..Limits::default() };
    let fresh = run_in(Way::Fresh, bytes, options, &limits);
    let mounted = run_in(Way::Mounted, bytes, options, &limits);
    assert_eq!(fresh.result.as_ref().ok(), mounted.result.as_ref().ok());
    assert_eq!(fresh.id(), mounted.id(), "{:?} {:?}", fresh.result, mounted.result);
    assert_eq!(fresh.tree(), mounted.tree());
    fresh
}

fn run_in(way: Way, bytes: &[u8], options: &UnpackOptions, limits: &Limits) -> Unpacking {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    for name in ["upper", "lower", "canary"] {
        fs::create_dir(path(name)).unwrap();
    }
    fs::write(path("canary/bird"), "alive").unwrap();
    fs::set_permissions(path("canary"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(path("archive"), bytes).unwrap();
    let open = |name: &str| fs::File::open(path(name)).unwrap();
    let mut files = MountTable::new(Quota::new(limits, (0, 0)));
    files.mount(MountSpec {
        guest_path: "/out".to_owned(),
        lower: (way == Way::Mounted).then(|| open("lower").into()),
        upper: Some(open("upper").into()),
        writable: true,
        hidden: vec![],
    });
    let table = Mutex::new(&mut files);
    let destination = Destination::open(&table, &GuestPath::parse("/out").unwrap()).unwrap();
    assert_eq!(matches!(destination, Destination::Fresh(_)), way == Way::Fresh);
    let result = unpack(open("archive").as_fd(), destination, options, &AtomicBool::new(false));
    let used = files.quota().used();

    assert_eq!(tree(&path("canary")).len(), 1);
    assert_eq!(fs::read(path("canary/bird")).unwrap(), b"alive");
    assert_eq!(path("canary").metadata().unwrap().permissions().mode() & 0o777, 0o700, "A4");
    let mut beside: Vec<_> =
        fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    beside.sort();
    assert_eq!(beside, ["archive", "canary", "lower", "upper"]);
    assert_eq!(used, on_disk(&path("upper")), "what is charged is what is there");
    Unpacking { directory, result, used }
}

/// Bytes and entries, files with several names once.
fn on_disk(directory: &Path) -> (u64, u64) {
    fn walk(directory: &Path, files: &mut std::collections::BTreeMap<u64, u64>) -> u64 {
        let mut entries = 0;
        for entry in fs::read_dir(directory).unwrap() {
            let metadata = entry.as_ref().unwrap().path().symlink_metadata().unwrap();
            entries += 1;
            if metadata.is_dir() {
                entries += walk(&entry.unwrap().path(), files);
            } else if metadata.is_file() {
                files.insert(metadata.ino(), metadata.size());
            }
        }
        entries
    }
    let mut files = std::collections::BTreeMap::new();
    let entries = walk(directory, &mut files);
    (files.values().sum(), entries)
}

/// Runs a table of archives and what each has to end with; names all that differ.
fn check(rows: Vec<(&str, Vec<u8>, &str)>) {
    let wrong: Vec<String> = rows
        .into_iter()
        .filter_map(|(name, bytes, expected)| {
            let unpacking = run(&bytes, &strip(0));
            (unpacking.id() != expected).then(|| format!("{name}: {:?}, not {expected}", unpacking.result))
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
