//! Layers on layers, and archives that try to be clever.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, EntryType, Header};

use super::*;
use crate::cancel::Cancel;
use crate::fault::Diagnose as _;
use crate::oci::digest::Digest;

/// One entry: name, kind, and contents or target.
type Made<'a> = (&'a str, EntryType, &'a str);

const FILE: EntryType = EntryType::Regular;
const LINK: EntryType = EntryType::Symlink;
const HARD: EntryType = EntryType::Link;
const DIRECTORY: EntryType = EntryType::Directory;

/// A layer; names are written as they are, however wrong.
fn tar(entries: &[Made<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, kind, text) in entries {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o755);
        if matches!(*kind, LINK | HARD) {
            header.as_old_mut().linkname[..text.len()].copy_from_slice(text.as_bytes());
            header.set_size(0);
        } else {
            header.set_size(text.len() as u64);
        }
        header.set_cksum();
        let contents = if *kind == FILE { text.as_bytes() } else { b"" };
        builder.append(&header, contents).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Blobs in files.
struct Blobs {
    root: tempfile::TempDir,
    blobs: Vec<(PathBuf, Digest, u64)>,
}

impl Blobs {
    fn new(layers: &[Vec<u8>]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let store = |(number, bytes): (usize, &Vec<u8>)| {
            let path = root.path().join(number.to_string());
            fs::write(&path, bytes).unwrap();
            (path, Digest::of(bytes), bytes.len() as u64)
        };
        let blobs = layers.iter().enumerate().map(store).collect();
        Self { root, blobs }
    }

    fn scan(&self) -> Result<FileIndex, ScanError> {
        let layers =
            self.blobs.iter().map(|(path, digest, size)| LayerBlob { path, start: 0, digest, size: *size });
        FileIndex::scan(layers, &Cancel::default())
    }
}

fn scan(layers: &[&[Made<'_>]]) -> FileIndex {
    let layers: Vec<Vec<u8>> = layers.iter().map(|entries| gzip(&tar(entries))).collect();
    Blobs::new(&layers).scan().unwrap()
}

fn paths(index: &FileIndex) -> Vec<&str> {
    index.iter().map(|(path, _)| path).collect()
}

#[test]
fn layers_add_replace_and_remove() {
    let below: &[Made<'_>] = &[
        ("./", DIRECTORY, ""),
        ("./usr/bin/a", FILE, "a"),
        ("usr/bin/b", FILE, "b"),
        ("usr/lib/x/y", FILE, ""),
        ("etc/kept", FILE, ""),
        ("etc/gone", FILE, ""),
        ("etc-not/kept", FILE, ""),
        ("opaque/old", FILE, ""),
        ("opaque/deep/old", FILE, ""),
        ("became", DIRECTORY, ""),
        ("became/inside", FILE, ""),
    ];
    let above: &[Made<'_>] = &[
        ("usr/bin/.wh.b", FILE, ""),
        (".wh.usr/not-a-whiteout", FILE, ""),
        ("usr/.wh.lib", FILE, ""),
        ("etc/.wh.gone", FILE, ""),
        ("opaque/new", FILE, ""),
        ("opaque/.wh..wh..opq", FILE, ""),
        ("opaque/later", FILE, ""),
        ("became", FILE, "#!/bin/sh\n"),
    ];
    assert_eq!(
        paths(&scan(&[below, above])),
        [
            ".wh.usr",
            ".wh.usr/not-a-whiteout",
            "became",
            "etc",
            "etc-not",
            "etc-not/kept",
            "etc/kept",
            "opaque",
            "opaque/later",
            "opaque/new",
            "usr",
            "usr/bin",
            "usr/bin/a",
        ]
    );
}

/// R7: what is left of the prefix has to be a name, and nothing leaves the root.
#[test]
fn r7_whiteouts_and_names_that_are_none_do_nothing() {
    let below: &[Made<'_>] = &[("a/b", FILE, ""), ("c", FILE, "")];
    for name in ["a/.wh.", "a/.wh..", "a/.wh...", "a/.wh..wh.plnk", "a/.wh..wh.aufs"] {
        assert_eq!(paths(&scan(&[below, &[(name, FILE, "")]])), ["a", "a/b", "c"], "{name}");
    }
    let odd: &[Made<'_>] =
        &[("../../x", FILE, ""), ("/y//./z/", FILE, ""), ("..", FILE, ""), ("/", DIRECTORY, "")];
    assert_eq!(paths(&scan(&[below, odd])), ["a", "a/b", "c", "x", "y", "y/z"]);
}

/// An entry goes where its parent leads, inside the image; as when it is unpacked.
#[test]
fn r7_parents_that_are_links_lead_inside_the_image() {
    let below: &[Made<'_>] = &[
        ("lib", LINK, "usr/lib"),
        ("usr/lib/old", FILE, ""),
        ("up", LINK, "../../../usr/lib"),
        ("loop", LINK, "loop"),
        ("file", FILE, ""),
    ];
    let above: &[Made<'_>] = &[
        ("lib/new", FILE, ""),
        ("lib/.wh.old", FILE, ""),
        ("up/also", FILE, ""),
        ("loop/never", FILE, ""),
        ("file/never", FILE, ""),
    ];
    assert_eq!(
        paths(&scan(&[below, above])),
        ["file", "lib", "loop", "up", "usr", "usr/lib", "usr/lib/also", "usr/lib/new"]
    );
}

#[test]
fn contents_are_what_the_kernel_would_see() {
    let long = format!("#!/bin/{}", "x".repeat(300));
    let index = scan(&[&[
        ("env", FILE, "#! /usr/bin/env  -S node --x \nrest"),
        ("plain", FILE, "#!/bin/sh\n"),
        ("dos", FILE, "#!/bin/sh\r\n"),
        ("none", FILE, "#!\n"),
        ("long", FILE, &long),
        ("text", FILE, "hello"),
        ("short", FILE, "\x7fELF"),
        ("hard", HARD, "plain"),
        ("dangling", HARD, "nowhere"),
    ]]);
    let script = |interpreter: &str, argument: Option<&str>| {
        Contents::Script(Script { interpreter: interpreter.into(), argument: argument.map(str::to_owned) })
    };
    let contents = |path: &str| match index.get(path) {
        Some(Node::File { contents, .. }) => contents.clone(),
        other => panic!("{path}: {other:?}"),
    };
    assert_eq!(contents("env"), script("/usr/bin/env", Some("-S node --x")));
    assert_eq!(contents("plain"), script("/bin/sh", None));
    assert_eq!(contents("hard"), script("/bin/sh", None));
    assert_eq!(contents("dos"), script("/bin/sh\r", None));
    assert_eq!(contents("long"), script(&long[2..256], None));
    for other in ["none", "text", "short"] {
        assert_eq!(contents(other), Contents::Other, "{other}");
    }
    assert_eq!(index.get("dangling"), None);
    let text = serde_json::to_string(&index).unwrap();
    assert_eq!(serde_json::from_str::<FileIndex>(&text).unwrap(), index);
}

#[test]
fn links_are_followed_as_the_kernel_follows_them() {
    let index = scan(&[&[
        ("usr/bin/sh", FILE, ""),
        ("bin", LINK, "usr/bin"),
        ("absolute", LINK, "/bin/sh"),
        ("above", LINK, "../../../../bin"),
        ("one", LINK, "two"),
        ("two", LINK, "one"),
        ("through", LINK, "usr/bin/sh/x"),
    ]]);
    let follow = |path: &str| {
        let Ok(found) =
            follow(path, |path| Ok::<_, std::convert::Infallible>(index.get(path).map(Step::from)));
        found
    };
    for (path, expected) in [
        ("/bin/sh", Some("usr/bin/sh")),
        ("bin/../bin/./sh", Some("usr/bin/sh")),
        ("/absolute", Some("usr/bin/sh")),
        ("/above/sh", Some("usr/bin/sh")),
        ("/../bin", Some("usr/bin")),
        ("/", Some("")),
        ("/one", None),
        ("/through", None),
        ("/bin/sh/", None),
        ("/bin/sh/..", None),
        ("/missing", None),
    ] {
        assert_eq!(follow(path).as_deref(), expected, "{path}");
    }
}

/// Damage is named as damage; what is sound and cannot be read is told apart from it.
#[test]
fn blobs_that_are_damaged_or_strange() {
    let sound = gzip(&tar(&[("a", FILE, "a")]));
    let blobs = Blobs::new(std::slice::from_ref(&sound));
    let path = blobs.root.path().join("0");
    let mut flipped = sound.clone();
    *flipped.last_mut().unwrap() ^= 1;
    for (bytes, id) in [
        (&sound[..sound.len() - 9], "layout.wrong_size"),
        (&flipped[..], "layout.wrong_digest"),
        (&vec![0; sound.len()][..], "layout.wrong_digest"),
    ] {
        fs::write(&path, bytes).unwrap();
        let Err(ScanError::Blob(error)) = blobs.scan() else { panic!("{id}") };
        assert_eq!(error.id(), id);
    }
    fs::remove_file(&path).unwrap();
    assert!(matches!(blobs.scan(), Err(ScanError::Blob(_))));
    let zstd = [&[0x28, 0xb5, 0x2f, 0xfd][..], &[0; 20]].concat();
    let mut bomb = Header::new_gnu();
    bomb.set_entry_type(EntryType::GNULongName);
    bomb.set_size(1 << 30);
    bomb.set_cksum();
    let bomb = [bomb.as_bytes(), &vec![b'x'; 1 << 20][..]].concat();
    for (bytes, reason) in [
        (zstd, "zstd"),
        (gzip(&bomb), "an entry has too long a header"),
        (b"this is not an archive".repeat(100), "numeric field was not a number"),
    ] {
        let Err(error @ ScanError::Unsupported { .. }) = Blobs::new(&[bytes]).scan() else {
            panic!("{reason}")
        };
        assert!(error.to_string().contains(reason), "{error}");
    }
}

/// The cache of glibc: names and paths, or nothing; never more than is there.
#[test]
fn library_caches_that_lie_are_none() {
    let mut cache = b"glibc-ld.so.cache1.1".to_vec();
    cache.extend(1_u32.to_le_bytes());
    cache.extend(16_u32.to_le_bytes());
    cache.extend([0; 20]);
    for number in [0x0303_u32, 72, 79, 0, 0, 0] {
        cache.extend(number.to_le_bytes());
    }
    cache.extend(b"libx.1\0/x/libx.1\0");
    let found = scan::library_cache(&cache).unwrap();
    assert_eq!(found, [("libx.1".to_owned(), "/x/libx.1".to_owned())]);
    for (at, value) in [(20, 0xffff_ffff_u32), (52, 0xffff_fff0), (56, 10_000)] {
        let mut wrong = cache.clone();
        wrong[at..at + 4].copy_from_slice(&value.to_le_bytes());
        if at == 20 {
            assert_eq!(scan::library_cache(&wrong).map(|entries| entries.len()), Some(1));
        } else {
            assert_eq!(scan::library_cache(&wrong), None, "{at}");
        }
    }
    for length in 0..cache.len() {
        let _ = scan::library_cache(&cache[..length]);
    }
}
