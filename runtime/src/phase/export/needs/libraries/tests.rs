//! The search beside the real loaders: what they find and miss, this finds and misses.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;
use crate::cancel::Cancel;
use crate::oci::blob::{BlobStore, NewBlob, Notes, StoredBlob};
use crate::oci::digest::{DiffId, Digest};
use crate::oci::files::{FileIndex, Node};
use crate::walk::{self, Step, WalkError};

/// Keeps nothing.
struct NoStore;

impl BlobStore for NoStore {
    fn find(&self, _: &DiffId, _: &str) -> Option<StoredBlob> {
        None
    }

    fn create(&self) -> std::io::Result<NewBlob> {
        unreachable!("nothing is stored")
    }

    fn commit(&self, _: NewBlob, _: &DiffId, _: &str, _: &Digest, _: u64) -> std::io::Result<StoredBlob> {
        unreachable!("nothing is stored")
    }

    fn discard(&self, _: &Path) {}
}

impl Notes for NoStore {
    fn note(&self, _: &str) -> Option<String> {
        None
    }

    fn keep_note(&self, _: &str, _: &str) {}
}

/// Adds a directory of this machine, and what is above it, to an index.
fn add(index: &mut FileIndex, directory: &Path) {
    let mut above: Vec<&Path> = directory.ancestors().filter(|path| *path != Path::new("/")).collect();
    above.reverse();
    for path in above {
        match fs::read_link(path) {
            Ok(target) => {
                index.insert(&name(path), Node::Link(target.to_str().unwrap().to_owned()));
                return add(index, &path.canonicalize().unwrap());
            }
            Err(_) => index.insert(&name(path), Node::Directory),
        }
    }
    walk::walk::<WalkError>(directory, |entry| {
        use rustix::fs::FileType;
        let path = directory.join(entry.path);
        let node = match entry.status.kind {
            FileType::Directory => Node::Directory,
            FileType::Symlink => match fs::read_link(&path).unwrap().to_str() {
                Some(target) => Node::Link(target.to_owned()),
                None => return Ok(Step::Over),
            },
            FileType::RegularFile if path == Path::new("/etc/ld.so.cache") => {
                let bytes = fs::read(&path).unwrap();
                let contents = crate::oci::files::library_cache(&bytes).unwrap();
                Node::File { executable: false, contents: Contents::LibraryCache(contents) }
            }
            FileType::RegularFile => {
                let Ok(file) = File::open(&path) else { return Ok(Step::Over) };
                let executable = entry.status.mode & 0o111 != 0;
                Node::File { executable, contents: Contents::read(file).unwrap() }
            }
            _ => return Ok(Step::Over),
        };
        index.insert(&name(&path), node);
        Ok(Step::Into)
    })
    .unwrap();
}

fn name(path: &Path) -> String {
    path.to_str().unwrap().trim_start_matches('/').to_owned()
}

/// This machine as an image, as far as the loader looks.
fn this_machine() -> FileIndex {
    let mut index = FileIndex::default();
    for directory in ["/lib", "/lib64", "/usr/local/lib"] {
        if Path::new(directory).exists() {
            add(&mut index, Path::new(directory));
        }
    }
    let multiarch = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    for directory in ["/usr/lib64", &multiarch, "/usr/bin"] {
        if Path::new(directory).is_dir() {
            add(&mut index, Path::new(directory));
        }
    }
    if Path::new("/etc/ld.so.cache").exists() {
        let contents = crate::oci::files::library_cache(&fs::read("/etc/ld.so.cache").unwrap()).unwrap();
        let node = Node::File { executable: false, contents: Contents::LibraryCache(contents) };
        index.insert("etc", Node::Directory);
        index.insert("etc/ld.so.cache", node);
    }
    index
}

/// Canonical paths that are found, and names that are not.
#[derive(Debug, PartialEq, Eq, Default)]
struct Answer {
    found: BTreeSet<PathBuf>,
    missing: BTreeSet<String>,
}

/// What the loader itself says.
fn loader_says(loader: &str, program: &Path, library_path: &str, directory: &Path) -> Answer {
    let mut command = Command::new(loader);
    if loader.contains("musl") {
        command.arg("--list");
    } else {
        // As `ldd` does it: goes on after a library that is missing.
        command.env("LD_TRACE_LOADED_OBJECTS", "1");
    }
    let output = command
        .arg(program)
        .env("LD_LIBRARY_PATH", library_path)
        .env("LC_ALL", "C")
        .current_dir(directory)
        .output()
        .unwrap();
    let mut answer = Answer::default();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr);
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        // musl says what it misses as an error.
        if let Some(rest) = line.strip_prefix("Error loading shared library ") {
            answer.missing.insert(rest.split(':').next().unwrap().to_owned());
            continue;
        }
        let path = match line.split_once(" => ") {
            Some((name, "not found")) => {
                answer.missing.insert(name.to_owned());
                continue;
            }
            Some((_, path)) => path,
            None => line,
        };
        let Some((path, _)) = path.split_once(" (0x") else { continue };
        if let Ok(path) = directory.join(path).canonicalize() {
            answer.found.insert(path);
        }
    }
    // The loader is in every list; it is looked for before this search.
    answer.found.remove(&Path::new(loader).canonicalize().unwrap());
    answer
}

/// What the search says.
fn we_say(files: &ImageFiles<'_>, program: &Path, library_path: &str, directory: &Path) -> Option<Answer> {
    let environment = [("LD_LIBRARY_PATH".to_owned(), library_path.into())].into();
    let (path, elf) = files.elf(program.to_str().unwrap()).ok()??;
    let elf = elf?;
    let loader = elf.interpreter.clone()?;
    let (loader_path, loader_elf) = files.elf(&loader).ok()??;
    let search = Search::new(files, &environment, directory.to_str().unwrap(), &loader, &loader_path);
    let (loaded, missing) = search.load(&path, &elf, loader_elf.as_ref()).ok().unwrap();
    let found = loaded[1..].iter().map(|file| Path::new("/").join(&file.path).canonicalize().unwrap());
    Some(Answer {
        found: found.collect(),
        missing: missing.into_iter().map(|library| library.name).collect(),
    })
}

/// Every program of this machine.
#[test]
fn programs_of_this_machine_find_what_their_loader_finds() {
    let cancel = Cancel::default();
    let files = ImageFiles::of_base(this_machine(), &NoStore, &cancel);
    let mut compared = 0;
    for entry in fs::read_dir("/usr/bin").unwrap() {
        let program = entry.unwrap().path();
        let Some(ours) = we_say(&files, &program, "", Path::new("/")) else { continue };
        let Contents::Elf(elf) = Contents::read(File::open(&program).unwrap()).unwrap() else { continue };
        let theirs = loader_says(&elf.interpreter.unwrap(), &program, "", Path::new("/"));
        assert_eq!(ours, theirs, "{}", program.display());
        compared += 1;
    }
    assert!(compared > 20, "only {compared} programs were compared");
}

/// A directory with libraries and programs made by the compiler.
struct Workshop {
    root: tempfile::TempDir,
}

impl Workshop {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().canonicalize().unwrap().join(name)
    }

    /// Compiles `name` from almost nothing; `arguments` say how it is linked.
    fn compile(&self, compiler: &str, name: &str, arguments: &[&str]) -> PathBuf {
        let output = self.path(name);
        fs::create_dir_all(output.parent().unwrap()).unwrap();
        let is_library = name.contains(".so");
        let source = if is_library { "int f(void) { return 1; }" } else { "int main(void) { return 0; }" };
        let mut child = Command::new(compiler)
            .args(["-x", "c", "-", "-x", "none", "-Wl,--no-as-needed", "-Wl,--allow-shlib-undefined", "-o"])
            .arg(&output)
            .args(is_library.then_some(["-shared", "-fPIC"]).into_iter().flatten())
            .args(arguments)
            .current_dir(self.root.path())
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("`{compiler}` is needed for this test: {error}"));
        child.stdin.take().unwrap().write_all(source.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{compiler} {name}");
        output
    }

    fn index(&self, mut index: FileIndex) -> FileIndex {
        add(&mut index, &self.root.path().canonicalize().unwrap());
        index
    }
}

/// Each way in which a file names directories, alone and together.
#[test]
fn directories_are_searched_as_glibc_does() {
    let shop = Workshop::new();
    let gcc = |name: &str, arguments: &[&str]| shop.compile("gcc", name, arguments);
    let inner = |name: &str| format!("-Wl,-soname,{name}");
    gcc("deep/libdeep.so", &[&inner("libdeep.so")]);
    let new = "-Wl,--enable-new-dtags";
    let old = "-Wl,--disable-new-dtags";
    // A library that needs another, with and without directories of its own.
    gcc("lib/libplain.so", &[&inner("libplain.so"), "deep/libdeep.so"]);
    gcc("lib/libown.so", &[&inner("libown.so"), new, "-Wl,-rpath,$ORIGIN/../deep", "deep/libdeep.so"]);
    // Its name in the file is another one than that of the file.
    gcc("lib/libalias.so.1", &[&inner("libalias.so.1")]);
    std::os::unix::fs::symlink("libalias.so.1", shop.path("lib/libalias.so")).unwrap();
    // For other processors, and no library at all: passed over, or the end.
    let foreign = shop.path("foreign");
    fs::create_dir(&foreign).unwrap();
    let mut bytes = fs::read(shop.path("lib/libplain.so")).unwrap();
    bytes[18..20].copy_from_slice(&[183, 0]);
    fs::write(foreign.join("libplain.so"), bytes).unwrap();

    let programs = [
        gcc("bin/runpath", &[new, "-Wl,-rpath,$ORIGIN/../lib", "lib/libplain.so"]),
        gcc("bin/rpath", &[old, "-Wl,-rpath,$ORIGIN/../lib:$ORIGIN/../deep", "lib/libplain.so"]),
        gcc("bin/runpath-both", &[new, "-Wl,-rpath,${ORIGIN}/../lib:$ORIGIN/../deep", "lib/libplain.so"]),
        gcc("bin/own", &[new, "-Wl,-rpath,$ORIGIN/../lib", "lib/libown.so"]),
        gcc("bin/old-own", &[old, "-Wl,-rpath,$ORIGIN/../lib", "lib/libown.so"]),
        gcc("bin/nothing", &["lib/libplain.so", "lib/libalias.so"]),
        gcc("bin/foreign-first", &[new, "-Wl,-rpath,$ORIGIN/../foreign:$ORIGIN/../lib", "lib/libplain.so"]),
        gcc("bin/relative", &[new, "-Wl,-rpath,lib:deep", "lib/libown.so", "lib/libalias.so"]),
        gcc("bin/by-path", &["lib/libplain.so"]),
        gcc("bin/no-defaults", &["-Wl,-z,nodefaultlib", new, "-Wl,-rpath,$ORIGIN/../lib", "lib/libalias.so"]),
        gcc("bin/alone", &[]),
    ];
    std::os::unix::fs::symlink("bin/runpath", shop.path("linked")).unwrap();
    let cancel = Cancel::default();
    let files = ImageFiles::of_base(shop.index(this_machine()), &NoStore, &cancel);
    let lib = shop.path("lib").display().to_string();
    let deep = shop.path("deep").display().to_string();
    let foreign = foreign.display().to_string();
    let mut missed = 0;
    for program in programs.iter().chain([&shop.path("linked")]) {
        let Contents::Elf(elf) = Contents::read(File::open(program).unwrap()).unwrap() else { panic!() };
        let loader = elf.interpreter.unwrap();
        for library_path in ["", &lib, &deep, &format!("{lib}:{deep}"), &format!("{foreign};{lib}"), ":/none"]
        {
            for directory in [shop.path("bin"), shop.path("."), shop.path("lib")] {
                let theirs = loader_says(&loader, &program.canonicalize().unwrap(), library_path, &directory);
                let ours = we_say(&files, program, library_path, &directory).unwrap();
                assert_eq!(ours, theirs, "{} {library_path} {}", program.display(), directory.display());
                missed += usize::from(!ours.missing.is_empty());
            }
        }
    }
    assert!(missed > 10, "only {missed} searches missed something");
}

/// The same for musl, whose loader has rules of its own.
#[test]
fn directories_are_searched_as_musl_does() {
    let loader = format!("/lib/ld-musl-{}.so.1", std::env::consts::ARCH);
    let shop = Workshop::new();
    let gcc = |name: &str, arguments: &[&str]| shop.compile("musl-gcc", name, arguments);
    gcc("deep/libdeep.so", &["-Wl,-soname,libdeep.so"]);
    gcc("lib/libplain.so", &["-Wl,-soname,libplain.so", "deep/libdeep.so"]);
    let programs = [
        gcc("bin/runpath", &["-Wl,-rpath,$ORIGIN/../lib", "lib/libplain.so"]),
        gcc("bin/both", &["-Wl,-rpath,$ORIGIN/../lib:$ORIGIN/../deep", "lib/libplain.so"]),
        gcc("bin/nothing", &["lib/libplain.so"]),
        gcc("bin/alone", &["-lpthread", "-lm", "-ldl"]),
    ];
    let mut index = shop.index(this_machine());
    for file in fs::read_dir("/etc").unwrap().map(|entry| entry.unwrap().path()) {
        if name(&file).starts_with("etc/ld-musl-") && file.is_file() {
            let contents = Contents::Text(fs::read_to_string(&file).unwrap());
            index.insert(&name(&file), Node::File { executable: false, contents });
        }
    }
    let cancel = Cancel::default();
    let files = ImageFiles::of_base(index, &NoStore, &cancel);
    let (lib, deep) = (shop.path("lib").display().to_string(), shop.path("deep").display().to_string());
    for program in programs {
        assert_ne!(fs::metadata(&program).unwrap().permissions().mode() & 0o111, 0);
        for library_path in ["", &lib, &deep, &format!("{lib}:{deep}")] {
            let theirs = loader_says(&loader, &program, library_path, Path::new("/"));
            let mut ours = we_say(&files, &program, library_path, Path::new("/")).unwrap();
            // musl lists itself where a program names the C library.
            ours.found.remove(&Path::new(&loader).canonicalize().unwrap());
            assert_eq!(ours, theirs, "{} {library_path}", program.display());
        }
    }
}
