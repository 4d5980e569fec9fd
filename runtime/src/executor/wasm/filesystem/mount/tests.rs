use std::fs;
use std::os::unix::fs::symlink;

use super::super::resolve::resolve;
use super::*;
use crate::limits::Limits;

struct Fixture {
    _directory: tempfile::TempDir,
    lower: std::path::PathBuf,
    upper: std::path::PathBuf,
    table: MountTable,
}

fn open(path: &std::path::Path) -> OwnedFd {
    File::open(path).unwrap().into()
}

fn path(text: &str) -> GuestPath {
    GuestPath::parse(text).unwrap()
}

/// `/ro` is read-only, `/app` has both sides.
fn fixture() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let (lower, upper) = (directory.path().join("lower"), directory.path().join("upper"));
    fs::create_dir_all(lower.join("d/deep")).unwrap();
    fs::create_dir(&upper).unwrap();
    fs::write(lower.join("d/file"), "lower").unwrap();
    fs::write(lower.join("secret"), "hidden").unwrap();
    let mut table = MountTable::new(Quota::new(&Limits::default(), (0, 0)));
    table.mount(MountSpec {
        guest_path: "/app".into(),
        lower: Some(open(&lower)),
        upper: Some(open(&upper)),
        writable: true,
        hidden: vec!["secret".into()],
    });
    table.mount(MountSpec {
        guest_path: "/ro/inner".into(),
        lower: Some(open(&lower)),
        upper: None,
        writable: false,
        hidden: vec![],
    });
    Fixture { _directory: directory, lower, upper, table }
}

fn names(table: &MountTable, at: &str) -> Vec<String> {
    table.list(&path(at)).unwrap().map(|(name, _)| name).collect()
}

fn write(table: &mut MountTable, at: &str, bytes: &[u8]) -> Result<(), Errno> {
    let how = OpenHow { write: true, create: true, truncate: true, ..OpenHow::default() };
    match table.open(&path(at), how)? {
        Opened::File(file) => file.write_at(bytes, 0),
        Opened::Directory => Err(Errno::ISDIR),
    }
}

fn read(table: &mut MountTable, at: &str) -> Result<String, Errno> {
    match table.open(&path(at), OpenHow::default())? {
        Opened::File(file) => {
            let mut buffer = [0; 64];
            let count = file.read_at(&mut buffer, 0)?;
            Ok(String::from_utf8_lossy(&buffer[..count]).into_owned())
        }
        Opened::Directory => Err(Errno::ISDIR),
    }
}

#[test]
fn directories_between_mounts_are_made_up_and_read_only() {
    let mut fixture = fixture();
    assert_eq!(names(&fixture.table, "/"), ["app", "ro"]);
    assert_eq!(names(&fixture.table, "/ro"), ["inner"]);
    assert_eq!(write(&mut fixture.table, "/x", b""), Err(Errno::ROFS));
    assert_eq!(fixture.table.remove_directory(&path("/ro")), Err(Errno::BUSY));
    assert_eq!(fixture.table.kind(&path("/etc")), Ok(None));
}

#[test]
fn a_file_is_copied_when_it_is_first_written_and_lower_never_changes() {
    let mut fixture = fixture();
    write(&mut fixture.table, "/app/d/file", b"changed").unwrap();
    assert_eq!(read(&mut fixture.table, "/app/d/file").unwrap(), "changed");
    assert_eq!(fs::read_to_string(fixture.lower.join("d/file")).unwrap(), "lower");
    assert_eq!(fs::read_to_string(fixture.upper.join("d/file")).unwrap(), "changed");
}

#[test]
fn removed_and_hidden_files_stay_away() {
    let mut fixture = fixture();
    assert_eq!(names(&fixture.table, "/app"), ["d"]);
    assert_eq!(read(&mut fixture.table, "/app/secret"), Err(Errno::NOENT));
    fixture.table.unlink(&path("/app/d/file")).unwrap();
    assert_eq!(names(&fixture.table, "/app/d"), ["deep"]);
    fixture.table.remove_directory(&path("/app/d/deep")).unwrap();
    fixture.table.remove_directory(&path("/app/d")).unwrap();
    fixture.table.create_directory(&path("/app/d")).unwrap();
    assert_eq!(names(&fixture.table, "/app/d"), [] as [&str; 0]);
    assert_eq!(fixture.table.hidden("/app"), ["d", "d/deep", "d/file", "secret"]);
}

#[test]
fn renames_follow_the_rules_of_an_overlay() {
    let mut fixture = fixture();
    let table = &mut fixture.table;
    assert_eq!(table.rename(&path("/app/d"), &path("/app/e")), Err(Errno::XDEV));
    table.rename(&path("/app/d/file"), &path("/app/moved")).unwrap();
    assert_eq!(read(table, "/app/moved").unwrap(), "lower");
    assert_eq!(table.kind(&path("/app/d/file")), Ok(None));
    table.create_directory(&path("/app/fresh")).unwrap();
    write(table, "/app/fresh/x", b"x").unwrap();
    table.rename(&path("/app/fresh"), &path("/app/d/deep")).unwrap();
    assert_eq!(names(table, "/app/d/deep"), ["x"]);
    assert_eq!(table.rename(&path("/app/moved"), &path("/ro/inner/x")), Err(Errno::XDEV));
}

#[test]
fn g8_renaming_one_name_of_a_file_onto_another_refunds_nothing() {
    let mut fixture = fixture();
    let table = &mut fixture.table;
    write(table, "/app/a", b"x").unwrap();
    table.link(&path("/app/a"), &path("/app/b")).unwrap();
    let used = table.quota().used();
    table.rename(&path("/app/a"), &path("/app/b")).unwrap();
    assert_eq!(table.quota().used(), used);
    assert_eq!(names(table, "/app"), ["a", "b", "d"]);
}

#[test]
fn g8_a_move_cannot_make_a_tree_deeper_than_the_limit() {
    let mut fixture = fixture();
    let table = &mut fixture.table;
    for name in ["/app/x", "/app/x/y", "/app/z"] {
        table.create_directory(&path(name)).unwrap();
    }
    table.quota.path_depth = 3;
    assert_eq!(table.rename(&path("/app/x"), &path("/app/z/x")), Err(Errno::NAMETOOLONG));
    table.rename(&path("/app/x/y"), &path("/app/z/y")).unwrap();
    table.rename(&path("/app/x"), &path("/app/z/x")).unwrap();
}

#[test]
fn g5_listings_are_charged_while_they_are_held() {
    let mut fixture = fixture();
    let limits = Limits { hostcall_bytes: 300, ..Limits::default() };
    fixture.table.quota = Quota::new(&limits, (0, 0));
    for name in ["/app/1", "/app/2"] {
        fixture.table.create_directory(&path(name)).unwrap();
    }
    let table = &fixture.table;
    let held = table.list(&path("/app")).unwrap();
    assert_eq!(table.list(&path("/app")).err(), Some(Errno::OVERFLOW));
    assert_eq!(table.quota().reached().unwrap().limit, crate::limits::LimitKind::HostCall);
    drop(held);
    table.list(&path("/app")).unwrap();
}

#[test]
fn g10_a_read_only_mount_refuses_every_change() {
    let mut fixture = fixture();
    let table = &mut fixture.table;
    assert_eq!(write(table, "/ro/inner/d/file", b"x"), Err(Errno::ROFS));
    assert_eq!(write(table, "/ro/inner/new", b"x"), Err(Errno::ROFS));
    assert_eq!(table.create_directory(&path("/ro/inner/dir")), Err(Errno::ROFS));
    assert_eq!(table.create_symlink(&path("/ro/inner/link"), "x"), Err(Errno::ROFS));
    assert_eq!(table.unlink(&path("/ro/inner/d/file")), Err(Errno::ROFS));
    assert_eq!(table.remove_directory(&path("/ro/inner/d/deep")), Err(Errno::ROFS));
    assert_eq!(table.rename(&path("/ro/inner/d/file"), &path("/ro/inner/x")), Err(Errno::ROFS));
    assert_eq!(table.rename(&path("/ro/inner/d/file"), &path("/app/x")), Err(Errno::ROFS));
    assert_eq!(table.link(&path("/ro/inner/d/file"), &path("/app/x")), Err(Errno::ROFS));
    let truncate = OpenHow { truncate: true, ..OpenHow::default() };
    assert_eq!(table.open(&path("/ro/inner/d/file"), truncate).err(), Some(Errno::ROFS));
}

#[test]
fn what_another_wrote_is_seen_and_cannot_be_changed() {
    let mut fixture = fixture();
    fs::write(fixture.upper.join("written"), "by another").unwrap();
    fixture.table.mount(MountSpec {
        guest_path: "/seen".into(),
        lower: Some(open(&fixture.lower)),
        upper: Some(open(&fixture.upper)),
        writable: false,
        hidden: vec![],
    });
    assert_eq!(read(&mut fixture.table, "/seen/written").unwrap(), "by another");
    assert_eq!(names(&fixture.table, "/seen"), ["d", "secret", "written"]);
    for path_to_change in ["/seen/written", "/seen/d/file", "/seen/new"] {
        assert_eq!(write(&mut fixture.table, path_to_change, b"x"), Err(Errno::ROFS), "{path_to_change}");
    }
    assert_eq!(fixture.table.unlink(&path("/seen/written")), Err(Errno::ROFS));
    assert!(!fixture.table.is_writable(&path("/seen/written")));
}

#[test]
fn g9_links_are_resolved_against_the_table_only() {
    let mut fixture = fixture();
    symlink("/etc/hostname", fixture.lower.join("absolute")).unwrap();
    symlink("../../../../etc/hostname", fixture.lower.join("d/climb")).unwrap();
    symlink("/app/d", fixture.lower.join("inside")).unwrap();
    symlink("loop", fixture.lower.join("loop")).unwrap();
    let table = &mut fixture.table;
    let root = GuestPath::root();
    assert_eq!(resolve(table, &root, "app/absolute", true), Err(Errno::NOENT));
    assert_eq!(resolve(table, &root, "app/d/climb", true), Err(Errno::PERM));
    assert_eq!(resolve(table, &root, "app/inside/file", true), Ok(path("/app/d/file")));
    assert_eq!(resolve(table, &root, "app/inside/../secret", true), Ok(path("/app/secret")));
    assert_eq!(resolve(table, &root, "app/loop", true), Err(Errno::LOOP));
    assert_eq!(resolve(table, &root, "app/loop", false), Ok(path("/app/loop")));
    assert_eq!(resolve(table, &root, "..", true), Err(Errno::PERM));
    assert_eq!(resolve(table, &root, "/app", true), Err(Errno::PERM));
    assert_eq!(resolve(table, &root, "app/d/file/", true), Err(Errno::NOTDIR));
    assert_eq!(resolve(table, &root, "app/missing/x", true), Err(Errno::NOENT));
    assert_eq!(resolve(table, &root, "app/d/file/../file", true), Err(Errno::NOTDIR));
}

#[test]
fn g9_a_link_the_guest_made_is_no_way_out_for_writes() {
    let mut fixture = fixture();
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().to_str().unwrap().to_owned();
    fixture.table.create_symlink(&path("/app/out"), &target).unwrap();
    assert_eq!(write(&mut fixture.table, "/app/out/x", b"x"), Err(Errno::LOOP));
    assert_eq!(resolve(&fixture.table, &GuestPath::root(), "app/out/x", true), Err(Errno::NOENT));
    assert!(fs::read_dir(outside.path()).unwrap().next().is_none());
}

#[test]
fn g3_a_fifo_is_never_opened() {
    let mut fixture = fixture();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        fixture.lower.join("pipe"),
        rustix::fs::FileType::Fifo,
        FILE_MODE,
        0,
    )
    .unwrap();
    assert_eq!(read(&mut fixture.table, "/app/pipe"), Err(Errno::PERM));
}

#[test]
fn g7_a_sparse_file_costs_its_apparent_size_and_comes_back() {
    let mut fixture = fixture();
    let how = OpenHow { write: true, create: true, ..OpenHow::default() };
    let Opened::File(file) = fixture.table.open(&path("/app/sparse"), how).unwrap() else { panic!() };
    assert_eq!(file.set_size(8 << 40), Err(Errno::DQUOT));
    file.set_size(1 << 30).unwrap();
    assert_eq!(fixture.table.quota().used().0, 1 << 30);
    fixture.table.unlink(&path("/app/sparse")).unwrap();
    assert_eq!(fixture.table.quota().used().0, 1 << 30, "open: the disk still holds it");
    drop(file);
    assert_eq!(fixture.table.quota().used().0, 0);
}
