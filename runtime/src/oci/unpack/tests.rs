//! Layers that are as they should be, and layers that nobody should make.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use tar::{EntryType, Header};

use super::*;
use crate::oci::layer::{LayerWriter, Owner};

/// What the layers directory is called in the tars; it need not be where it is.
const NAME: &str = "/the/layers";
const BELOW: &str = "acme_node/modules";

struct Layers {
    _temp: tempfile::TempDir,
    path: PathBuf,
}

fn layers() -> Layers {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("layers");
    fs::create_dir(&path).unwrap();
    Layers { _temp: temp, path }
}

impl Layers {
    fn unpack(&self, tar: &[u8]) -> Result<(), UnpackError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let root = rustix::fs::open(&self.path, flags, Mode::empty()).unwrap();
        unpack(tar, Place { root: root.as_fd(), name: NAME.as_bytes(), below: BELOW.as_bytes() }).map(drop)
    }

    fn mode(&self, path: &str) -> u32 {
        fs::symlink_metadata(self.path.join(path)).unwrap().mode() & 0o7777
    }
}

fn written(fill: impl FnOnce(&mut LayerWriter<Vec<u8>>)) -> Vec<u8> {
    let mut writer = LayerWriter::new(Vec::new());
    fill(&mut writer);
    writer.finish().unwrap()
}

fn file(writer: &mut LayerWriter<Vec<u8>>, path: &str, mode: u32, bytes: &[u8]) {
    let name = format!("{NAME}/{path}");
    writer.file(name.as_bytes(), mode, Owner::ROOT, bytes.len() as u64, bytes).unwrap();
}

fn directory(writer: &mut LayerWriter<Vec<u8>>, path: &str, mode: u32) {
    writer.directory(format!("{NAME}/{path}").as_bytes(), mode, Owner { uid: 4711, gid: 4711 }).unwrap();
}

/// One entry as it would never be written by us.
fn entry(kind: EntryType, name: &str, target: &str) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.as_ustar_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_ustar_mut().unwrap().linkname[..target.len()].copy_from_slice(target.as_bytes());
    header.set_mode(0o644);
    header.set_size(0);
    header.set_entry_type(kind);
    header.set_cksum();
    [header.as_bytes().as_slice(), &[0; 1024]].concat()
}

#[test]
fn rst_08_and_15_names_are_absolute_and_modes_exact() {
    let layers = layers();
    let tar = written(|writer| {
        writer.directory(b"/the", 0o700, Owner::ROOT).unwrap();
        writer.directory(NAME.as_bytes(), 0o700, Owner::ROOT).unwrap();
        directory(writer, "acme_node", 0o750);
        directory(writer, BELOW, 0o755);
        directory(writer, &format!("{BELOW}/locked"), 0o555);
        file(writer, &format!("{BELOW}/locked/program"), 0o4751, b"#!");
        file(writer, &format!("{BELOW}/locked/secret"), 0o000, b"x");
        let link = format!("{NAME}/{BELOW}/link");
        writer.symlink(link.as_bytes(), b"/etc/passwd", 0o777, Owner::ROOT).unwrap();
        directory(writer, &format!("{BELOW}/sticky"), 0o1777);
    });
    let root_mode = fs::metadata(&layers.path).unwrap().mode();
    layers.unpack(&tar).unwrap();
    assert_eq!(fs::metadata(&layers.path).unwrap().mode(), root_mode);
    for (path, mode) in [
        ("acme_node", 0o750),
        (BELOW, 0o755),
        ("acme_node/modules/locked", 0o555),
        ("acme_node/modules/locked/program", 0o4751),
        ("acme_node/modules/locked/secret", 0o000),
        ("acme_node/modules/sticky", 0o1777),
    ] {
        assert_eq!(layers.mode(path), mode, "{path}");
    }
    let modules = layers.path.join(BELOW);
    assert_eq!(fs::read_link(modules.join("link")).unwrap(), Path::new("/etc/passwd"));
    assert_eq!(fs::read(modules.join("locked/program")).unwrap(), b"#!");
    // RST-16: neither owner nor time of the tar.
    let metadata = fs::metadata(modules.join("locked")).unwrap();
    assert_eq!(metadata.uid(), fs::metadata(&layers.path).unwrap().uid());
    assert_ne!(metadata.mtime(), 315_532_801);
}

#[test]
fn rst_15_what_is_there_keeps_its_mode_or_is_overwritten() {
    let layers = layers();
    let modules = layers.path.join(BELOW);
    fs::create_dir_all(&modules).unwrap();
    fs::set_permissions(&modules, fs::Permissions::from_mode(0o711)).unwrap();
    fs::write(modules.join("file"), "longer than before").unwrap();
    let outside = layers.path.join("outside");
    fs::write(&outside, "precious").unwrap();
    fs::hard_link(&outside, modules.join("second-name")).unwrap();
    symlink(&outside, modules.join("link")).unwrap();
    let tar = written(|writer| {
        directory(writer, BELOW, 0o755);
        for name in ["file", "second-name", "link"] {
            file(writer, &format!("{BELOW}/{name}"), 0o640, b"new");
        }
    });
    layers.unpack(&tar).unwrap();
    assert_eq!(layers.mode(BELOW), 0o711);
    for name in ["file", "second-name", "link"] {
        assert_eq!(fs::read(modules.join(name)).unwrap(), b"new", "{name}");
        assert_eq!(fs::symlink_metadata(modules.join(name)).unwrap().mode(), 0o100_640, "{name}");
    }
    assert_eq!(fs::read(outside).unwrap(), b"precious");
}

#[test]
fn rst_15_a_path_where_a_link_should_go_is_an_error() {
    for taken in ["file", "link", "directory"] {
        let layers = layers();
        let path = layers.path.join(BELOW).join("taken");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match taken {
            "file" => fs::write(&path, "").unwrap(),
            "link" => symlink("x", &path).unwrap(),
            _ => fs::create_dir(&path).unwrap(),
        }
        let tar = entry(EntryType::Symlink, &format!("{NAME}/{BELOW}/taken"), "target");
        let error = layers.unpack(&tar).unwrap_err();
        assert!(matches!(error, UnpackError::Write { .. }) && !error.is_of_machine(), "{taken}: {error:?}");
    }
}

#[test]
fn rst_15_parents_without_a_header_are_made() {
    let layers = layers();
    let tar = written(|writer| file(writer, &format!("{BELOW}/a/b/c"), 0o600, b"c"));
    layers.unpack(&tar).unwrap();
    assert_eq!(fs::read(layers.path.join(BELOW).join("a/b/c")).unwrap(), b"c");
    let probe = layers.path.join("probe");
    fs::create_dir(&probe).unwrap();
    assert_eq!(layers.mode("acme_node/modules/a/b"), layers.mode("probe"));
}

#[test]
fn rst_16_only_files_directories_and_symlinks() {
    let name = format!("{NAME}/{BELOW}/x");
    for kind in [
        EntryType::Link,
        EntryType::Char,
        EntryType::Block,
        EntryType::Fifo,
        EntryType::GNUSparse,
        EntryType::new(b'Z'),
    ] {
        let layers = layers();
        layers.unpack(&entry(kind, &name, "/etc/passwd")).unwrap_err();
        assert!(!layers.path.join(BELOW).join("x").exists(), "{kind:?}");
    }
    // Said for all entries at once: skipped.
    let mut body = b"19 comment=nothing\n".to_vec();
    body.resize(512, 0);
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::XGlobalHeader);
    header.set_size(19);
    header.set_cksum();
    let rest = written(|writer| file(writer, &format!("{BELOW}/x"), 0o644, b"x"));
    let layers = layers();
    layers.unpack(&[header.as_bytes().as_slice(), &body, &rest].concat()).unwrap();
    assert!(layers.path.join(BELOW).join("x").exists());
}

#[test]
fn rst_17_names_that_lead_out_are_refused() {
    let inside = format!("{NAME}/{BELOW}");
    for name in [
        "/etc/cron.d/x",
        "x",
        "/the/layersx/acme_node/modules/x",
        "/the/layers/acme_node/modulesx",
        "/the/layers/acme_node/other/x",
        "/the/layers/other_bp/modules/x",
        "/the/layers/config/metadata.toml",
        "/the/layers/x",
        "/the/layers",
        "/the/layers/acme_node",
        &format!("{inside}/../../x"),
        &format!("{inside}/../../../../etc/x"),
        "../x",
        "/..",
    ] {
        let layers = layers();
        let error = layers.unpack(&entry(EntryType::Regular, name, "")).unwrap_err();
        assert!(matches!(error, UnpackError::Outside { .. }), "{name}: {error:?}");
        assert_eq!(fs::read_dir(&layers.path).unwrap().count(), 0, "{name}");
    }
    // Odd, and inside.
    for name in [format!("{inside}/./x"), format!("/{inside}//x"), inside[1..].to_owned() + "/x"] {
        let layers = layers();
        layers.unpack(&entry(EntryType::Regular, &name, "")).unwrap();
        assert!(layers.path.join(BELOW).join("x").exists(), "{name}");
    }
}

#[test]
fn rst_17_no_link_is_followed() {
    let layers = layers();
    let outside = tempfile::tempdir().unwrap();
    // A link that the layer brings itself.
    let tar = written(|writer| {
        directory(writer, BELOW, 0o755);
        let link = format!("{NAME}/{BELOW}/way");
        writer
            .symlink(link.as_bytes(), outside.path().as_os_str().as_encoded_bytes(), 0o777, Owner::ROOT)
            .unwrap();
        file(writer, &format!("{BELOW}/way/file"), 0o644, b"x");
    });
    let error = layers.unpack(&tar).unwrap_err();
    assert!(!error.is_of_machine(), "{error:?}");
    // Links that were there before, at every level.
    for (link, rest) in [("acme_node", "modules"), ("acme_node/modules", "x")] {
        let layers = self::layers();
        let path = layers.path.join(link);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(outside.path(), &path).unwrap();
        let tar = written(|writer| {
            directory(writer, "acme_node", 0o755);
            directory(writer, BELOW, 0o700);
            file(writer, &format!("{BELOW}/x"), 0o644, b"x");
        });
        layers.unpack(&tar).unwrap_err();
        assert!(!outside.path().join(rest).exists(), "{link}");
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn a_tar_that_is_cut_short_or_none_is_refused() {
    let tar = written(|writer| file(writer, &format!("{BELOW}/x"), 0o644, &[7; 3000]));
    for length in [0, 100, 512, 513, 2000, 3584, tar.len() - 512, tar.len() - 1] {
        let error = layers().unpack(&tar[..length]).unwrap_err();
        assert!(matches!(error, UnpackError::Tar(_)), "{length}: {error:?}");
    }
    layers().unpack(&[tar.as_slice(), b"more"].concat()).unwrap_err();
    layers().unpack(&tar).unwrap();
}

#[test]
fn awkward_names_and_deep_trees_survive() {
    let layers = layers();
    let deep = "d/".repeat(300) + "end";
    let names = ["größe/名前".to_owned(), "n".repeat(255), "with\nnewline".to_owned(), deep];
    let tar = written(|writer| {
        for name in &names {
            file(writer, &format!("{BELOW}/{name}"), 0o644, name.as_bytes());
        }
    });
    layers.unpack(&tar).unwrap();
    for name in &names {
        assert_eq!(fs::read(layers.path.join(BELOW).join(name)).unwrap(), name.as_bytes());
    }
    // A name that the kernel does not take is the layer's fault.
    let tar = written(|writer| file(writer, &format!("{BELOW}/{}", "n".repeat(256)), 0o644, b""));
    assert!(!layers.unpack(&tar).unwrap_err().is_of_machine());
}
