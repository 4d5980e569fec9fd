//! Tars.

use ::tar::{EntryType, Header};

use super::*;

/// One entry: type flag, path, contents or target of the link.
type Row<'a> = (u8, &'a [u8], &'a [u8]);

/// A header block without the checks of a crate that writes them.
fn header(kind: u8, path: &[u8], size: u64, change: impl FnOnce(&mut [u8; 512])) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.as_mut_bytes()[..path.len()].copy_from_slice(path);
    header.set_entry_type(EntryType::new(kind));
    header.set_mode(0o644);
    header.set_size(size);
    change(header.as_mut_bytes());
    header.set_cksum();
    header.as_bytes().to_vec()
}

fn entry(kind: u8, path: &[u8], contents: &[u8]) -> Vec<u8> {
    let is_link = matches!(kind, b'1' | b'2');
    let mut bytes = header(kind, path, if is_link { 0 } else { contents.len() as u64 }, |bytes| {
        if is_link {
            bytes[157..157 + contents.len()].copy_from_slice(contents);
        }
    });
    if !is_link {
        bytes.extend_from_slice(contents);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes
}

/// Blocks, and the two of zeros at the end.
fn ended(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = parts.concat();
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

pub(super) fn tar(rows: &[Row<'_>]) -> Vec<u8> {
    ended(&rows.iter().map(|(kind, path, contents)| entry(*kind, path, contents)).collect::<Vec<_>>())
}

fn record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let length = (1..8).find(|digits| (rest.len() + digits).to_string().len() == *digits).unwrap();
    format!("{}{rest}", rest.len() + length)
}

fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let text: String = records.iter().map(|(key, value)| record(key, value)).collect();
    entry(b'x', b"pax", text.as_bytes())
}

fn file(path: &[u8], mode: u32) -> Vec<u8> {
    header(b'0', path, 0, |bytes| bytes[100..108].copy_from_slice(format!("{mode:07o}\0").as_bytes()))
}

const FILE: u8 = b'0';
const HARD: u8 = b'1';
const LINK: u8 = b'2';
const DIR: u8 = b'5';

#[test]
fn an_ordinary_archive_becomes_what_it_says() {
    let long = "l".repeat(150);
    let archive = ended(&[
        entry(DIR, b"p/d/", b""),
        entry(FILE, b"p/d/file", b"contents"),
        entry(LINK, b"p/d/link", b"../hard"),
        entry(HARD, b"p/hard", b"p/d/file"),
        // Directories without an entry, and some with two.
        entry(FILE, b"p/a/b/c", b""),
        entry(DIR, b"./p/a/", b""),
        entry(DIR, b"p/d", b""),
        entry(0, b"p/old/", b""),
        entry(b'g', b"global", record("comment", "of git archive").as_bytes()),
        pax(&[("path", &format!("p/pax-{long}")), ("mtime", "1.5"), ("size", "3"), ("SCHILY.xattr.a", "b")]),
        entry(FILE, b"p/short", b"pax"),
        entry(b'L', b"././@LongLink", format!("p/gnu-{long}\0").as_bytes()),
        header(FILE, b"p/short", 0, |bytes| bytes[257..265].copy_from_slice(b"ustar  \0")),
    ]);
    let unpacking = run(&archive, &strip(1));
    let unpacked = unpacking.result.as_ref().map_err(ToString::to_string).unwrap();
    assert_eq!((unpacked.entries, unpacked.bytes), (10, 11));
    assert_eq!(unpacking.used.0, 11);
    let (gnu, pax_name) = (format!("gnu-{long} 644 0 0 "), format!("pax-{long} 644 3 "));
    let tree = unpacking.tree();
    let names: Vec<&str> = tree.iter().map(String::as_str).collect();
    assert_eq!(
        names[..6],
        [
            "a/ 755",
            "a/b/ 755",
            "a/b/c 644 0 0 ",
            "d/ 755",
            "d/file 644 8 3036287351 contents",
            "d/link -> ../hard"
        ]
    );
    assert!(names[6] == gnu && names[9].starts_with(&pax_name), "{names:?}");
    assert_eq!(names[7..9], ["hard 644 8 3036287351 contents", "old/ 755"]);
}

#[test]
fn a1_paths_that_lead_out_or_are_none_are_refused() {
    let long = vec![b'n'; 300];
    let deep = "d/".repeat(128) + "x";
    let endless = vec!["n".repeat(200); 21].join("/");
    let named = |name: &[u8]| ended(&[entry(b'L', b"long", name), entry(FILE, b"x", b"x")]);
    let mut rows = vec![
        ("a long name", named(&long), "archive.bad_path"),
        ("A8 a deep path", named(deep.as_bytes()), "archive.bad_path"),
        ("A8 a long path", named(endless.as_bytes()), "archive.bad_path"),
        ("empty", tar(&[(FILE, b"", b"x")]), "archive.bad_path"),
        (
            "a NUL in a pax path",
            ended(&[pax(&[("path", "a\0b")]), entry(FILE, b"x", b"")]),
            "archive.damaged",
        ),
    ];
    let paths: [&[u8]; 12] = [
        b"../x",
        b"a/../../x",
        b"a/..",
        b"..",
        b"/etc/x",
        b"//x",
        b"C:/x",
        b"C:\\x",
        b"a\\..\\x",
        b"a\nb",
        b"\xff",
        b".",
    ];
    for path in paths {
        rows.push(("a file", tar(&[(FILE, path, b"x")]), "archive.bad_path"));
        if path != b"." {
            rows.push(("a directory", tar(&[(DIR, path, b"")]), "archive.bad_path"));
        }
        // CVE-2021-29136: the destination itself as a link.
        rows.push(("a link", tar(&[(LINK, path, b"x")]), "archive.bad_path"));
        rows.push((
            "a path of pax",
            ended(&[pax(&[("path", std::str::from_utf8(path).unwrap_or("../p"))]), entry(FILE, b"ok", b"")]),
            "archive.bad_path",
        ));
    }
    check(rows);
}

#[test]
fn a2_a3_links_that_lead_out_are_refused_and_nothing_goes_through_one() {
    let mut rows = Vec::new();
    for kind in [LINK, HARD] {
        for target in [&b"/etc/passwd"[..], b"../canary/bird", b"..", b"a/../../x", b"", b"a\\b", b"a\nb"] {
            rows.push(("out", tar(&[(FILE, b"ours", b"x"), (kind, b"link", target)]), "archive.bad_link"));
        }
    }
    rows.extend([
        // Harmless as text; through `up` it is above the destination.
        (
            "A2 a chain",
            tar(&[(DIR, b"a/b", b""), (LINK, b"a/b/up", b"../.."), (LINK, b"out", b"a/b/up/../../canary")]),
            "archive.bad_link",
        ),
        (
            "A2 through a link",
            tar(&[(DIR, b"d/", b""), (LINK, b"l", b"d"), (FILE, b"l/x", b"x")]),
            "archive.write_failed",
        ),
        (
            "A2 a link as its own directory",
            tar(&[(LINK, b"l", b"."), (LINK, b"l/m", b"x")]),
            "archive.write_failed",
        ),
        // CVE-2026-33056: a directory over a link, for its mode.
        (
            "A4 a directory over a link",
            tar(&[(DIR, b"d", b""), (LINK, b"l", b"d"), (DIR, b"l/", b"")]),
            "archive.duplicate",
        ),
        ("A3 to nothing", tar(&[(HARD, b"link", b"missing")]), "archive.bad_link"),
        ("A3 to itself", tar(&[(FILE, b"f", b""), (HARD, b"f", b"f")]), "archive.bad_link"),
        (
            "A3 to a link",
            tar(&[(FILE, b"f", b""), (LINK, b"s", b"f"), (HARD, b"h", b"s")]),
            "archive.bad_link",
        ),
        (
            "A3 through a link",
            tar(&[(FILE, b"d/f", b""), (LINK, b"s", b"d"), (HARD, b"h", b"s/f")]),
            "archive.bad_link",
        ),
        ("A3 to a directory", tar(&[(DIR, b"d", b""), (HARD, b"h", b"d")]), "archive.bad_link"),
        (
            "A3 with contents",
            ended(&[
                entry(FILE, b"f", b""),
                header(HARD, b"h", 512, |bytes| bytes[157] = b'f'),
                vec![0; 512],
            ]),
            "archive.damaged",
        ),
        (
            "a link into the tree",
            tar(&[(LINK, b"bin/x", b"../lib/x/cli.js"), (FILE, b"lib/x/cli.js", b"")]),
            "unpacked",
        ),
    ]);
    check(rows);
}

#[test]
fn a3_a_file_that_was_there_before_gets_no_second_name() {
    // `passwd` is not of this archive, though it is in the destination.
    let first = tar(&[(FILE, b"passwd", b"secret")]);
    let second = tar(&[(HARD, b"mine", b"passwd")]);
    let unpacking = run(&first, &strip(0));
    let mut files = MountTable::new(Quota::new(&Limits::default(), (0, 0)));
    let upper = fs::File::open(unpacking.directory.path().join("upper")).unwrap();
    files.mount(MountSpec {
        guest_path: "/out".to_owned(),
        lower: None,
        upper: Some(upper.into()),
        writable: true,
        hidden: vec![],
    });
    let archive = unpacking.directory.path().join("second");
    fs::write(&archive, second).unwrap();
    let table = Mutex::new(&mut files);
    let destination = Destination::open(&table, &GuestPath::parse("/out").unwrap()).unwrap();
    let archive = fs::File::open(archive).unwrap();
    let result = unpack(archive.as_fd(), destination, &strip(0), &AtomicBool::new(false));
    assert_eq!(result.unwrap_err().id(), "archive.bad_link");
}

#[test]
fn a5_what_two_readers_take_for_different_things_is_refused() {
    let x = || entry(FILE, b"x", b"xxx");
    let bad = |parts: &[Vec<u8>]| ended(parts);
    let raw_pax = |text: &str| entry(b'x', b"pax", text.as_bytes());
    check(vec![
        // CVE-2025-62518: one reader skips by the first size, one by the second.
        (
            "two sizes",
            bad(&[
                pax(&[("size", "512")]),
                header(FILE, b"x", 1024, |_| ()),
                vec![b'c'; 512],
                entry(DIR, b"hidden", b""),
            ]),
            "archive.damaged",
        ),
        (
            "a size of 0 before one",
            bad(&[pax(&[("size", "512")]), header(FILE, b"x", 0, |_| ()), entry(DIR, b"hidden", b"")]),
            "archive.damaged",
        ),
        // GHSA-3cv2-h65g-fgmm
        (
            "pax before a long name",
            bad(&[pax(&[("path", "a")]), entry(b'L', b"l", b"b\0"), x()]),
            "archive.damaged",
        ),
        (
            "a long name before pax",
            bad(&[entry(b'L', b"l", b"b\0"), pax(&[("path", "a")]), x()]),
            "archive.damaged",
        ),
        (
            "two long names",
            bad(&[entry(b'L', b"l", b"b\0"), entry(b'L', b"l", b"c\0"), x()]),
            "archive.damaged",
        ),
        ("a long name that goes on", bad(&[entry(b'L', b"l", b"b\0c"), x()]), "archive.damaged"),
        ("two pax headers", bad(&[pax(&[("path", "a")]), pax(&[("path", "b")]), x()]), "archive.damaged"),
        ("a path twice", bad(&[pax(&[("path", "a"), ("path", "b")]), x()]), "archive.damaged"),
        ("an empty path", bad(&[pax(&[("path", "")]), x()]), "archive.damaged"),
        ("a target for a file", bad(&[pax(&[("linkpath", "a")]), x()]), "archive.damaged"),
        ("a path for all", bad(&[entry(b'g', b"g", record("path", "a").as_bytes()), x()]), "archive.damaged"),
        ("too short a record", bad(&[raw_pax("5 path=a\n"), x()]), "archive.damaged"),
        ("too long a record", bad(&[raw_pax("99 path=a\n"), x()]), "archive.damaged"),
        ("no end of line", bad(&[raw_pax("9 path=ab"), x()]), "archive.damaged"),
        ("no key", bad(&[raw_pax("5 =a\n"), x()]), "archive.damaged"),
        ("no number", bad(&[raw_pax("x path=a\n"), x()]), "archive.damaged"),
        ("a signed number", bad(&[raw_pax("+10 path=a\n"), x()]), "archive.damaged"),
        ("another character set", bad(&[pax(&[("hdrcharset", "BINARY")]), x()]), "archive.damaged"),
        ("a directory with contents", bad(&[entry(DIR, b"d", &[0; 512]), x()]), "archive.damaged"),
        (
            "a link with contents",
            bad(&[header(LINK, b"l", 512, |bytes| bytes[157] = b'x'), x()]),
            "archive.damaged",
        ),
        ("a header for nothing", bad(&[x(), pax(&[("path", "a")])]), "archive.damaged"),
        (
            "a wrong checksum",
            {
                let mut bytes = bad(&[x(), x()]);
                bytes[1024] = b'y';
                bytes
            },
            "archive.damaged",
        ),
        (
            "a size no octal has",
            bad(&[header(FILE, b"x", 3, |bytes| bytes[124..136].copy_from_slice(b"00000000008\0"))]),
            "archive.damaged",
        ),
    ]);
}

#[test]
fn a7_headers_that_claim_too_much_are_refused_before_anything_is_reserved() {
    let sized =
        |size: [u8; 12]| ended(&[header(FILE, b"x", 0, |bytes| bytes[124..136].copy_from_slice(&size))]);
    let base256 = |bytes: [u8; 8]| {
        let mut field = [0; 12];
        field[0] = 0x80;
        field[4..].copy_from_slice(&bytes);
        field
    };
    let huge = vec![b'n'; 70 << 10];
    let large_pax = |kind| ended(&[entry(kind, b"h", &huge), entry(FILE, b"x", b"")]);
    let claimed_pax =
        ended(&[header(b'x', b"pax", 0, |bytes| bytes[124..136].copy_from_slice(b"77777777777\0"))]);
    check(vec![
        ("2^63", sized(base256([0x80, 0, 0, 0, 0, 0, 0, 0])), "archive.damaged"),
        ("2^63 - 1", sized(base256([0x7f, 255, 255, 255, 255, 255, 255, 255])), "guest.disk_limit"),
        ("2^64 + 1", sized([0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]), "archive.damaged"),
        ("negative", sized([0xff; 12]), "archive.damaged"),
        ("8 GiB", sized(*b"77777777777\0"), "guest.disk_limit"),
        (
            "8 GiB in pax",
            ended(&[pax(&[("size", "8589934592")]), entry(FILE, b"x", b"x")]),
            "guest.disk_limit",
        ),
        ("an 8 GiB pax header", claimed_pax, "archive.damaged"),
        ("a long pax header", large_pax(b'x'), "archive.damaged"),
        ("a long global header", large_pax(b'g'), "archive.damaged"),
        ("a long name", large_pax(b'L'), "archive.damaged"),
        ("a long target", large_pax(b'K'), "archive.damaged"),
        ("sparse, as GNU has it", tar(&[(b'S', b"x", b"")]), "archive.bad_type"),
        (
            "sparse, as pax has it",
            ended(&[pax(&[("GNU.sparse.map", "0,1")]), entry(FILE, b"x", b"")]),
            "archive.bad_type",
        ),
    ]);
}

#[test]
fn a8_many_entries_stop_at_the_limits() {
    let many: Vec<String> = (0..101).map(|index| index.to_string()).collect();
    let rows: Vec<Row<'_>> = many.iter().map(|name| (FILE, name.as_bytes(), &b""[..])).collect();
    let unpacking = run(&tar(&rows), &strip(0));
    assert_eq!((unpacking.id(), unpacking.used.1), ("guest.disk_limit", 100));
    let rows: Vec<Row<'_>> = many.iter().map(|name| (FILE, name.as_bytes(), &[0; 2 << 10][..])).collect();
    let limits = Limits { disk_bytes: 4 << 10, ..Limits::default() };
    let unpacking = run_in(Way::Fresh, &tar(&rows), &strip(0), &limits);
    assert_eq!((unpacking.id(), unpacking.used), ("guest.disk_limit", (4 << 10, 2)));
    // Deeper than the guest may make directories, the mount's own depth included.
    let limits = Limits { path_depth: 3, ..Limits::default() };
    for (path, id) in [(&b"a/b"[..], "unpacked"), (b"a/b/c", "archive.write_failed")] {
        for way in [Way::Fresh, Way::Mounted] {
            for kind in [FILE, DIR] {
                let unpacking = run_in(way, &tar(&[(kind, path, b"")]), &strip(0), &limits);
                assert_eq!(unpacking.id(), id, "{way:?} {:?}", unpacking.result);
            }
        }
    }
}

#[test]
fn a8_a_million_entries_that_write_nothing_are_an_end() {
    // The same directory again and again costs no quota.
    let block = entry(DIR, b"d", b"");
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for _ in 0..1100 {
        encoder.write_all(&block.repeat(1000)).unwrap();
    }
    let limits = Limits::default();
    let bomb = run_in(Way::Fresh, &encoder.finish().unwrap(), &strip(9), &limits);
    assert_eq!(bomb.id(), "archive.too_large", "{:?}", bomb.result);
}

#[test]
fn a9_only_files_directories_and_links_and_of_modes_who_may_execute() {
    let kinds = [
        (b'3', "device"),
        (b'4', "device"),
        (b'6', "FIFO"),
        (b'D', "unknown"),
        (b'V', "unknown"),
        (b'8', "unknown"),
    ];
    for (kind, name) in kinds {
        let unpacking = run(&tar(&[(kind, b"x", b"")]), &strip(0));
        assert_eq!(unpacking.id(), "archive.bad_type", "{kind}");
        assert!(unpacking.result.unwrap_err().to_string().contains(name));
    }
    // What npm makes of them: (mode | 0666) & ~022.
    let modes = [
        (0o000, "644"),
        (0o600, "644"),
        (0o666, "644"),
        (0o755, "755"),
        (0o100, "744"),
        (0o4711, "755"),
        (0o7777, "755"),
        (0o010, "654"),
        (0o100_755, "755"),
    ];
    let rows: Vec<Vec<u8>> =
        modes.iter().map(|(mode, _)| file(format!("{mode:06o}").as_bytes(), *mode)).collect();
    let unpacking = run(&ended(&rows), &strip(0));
    let expected: Vec<String> = {
        let mut lines: Vec<String> =
            modes.iter().map(|(mode, becomes)| format!("{mode:06o} {becomes} 0 0 ")).collect();
        lines.sort();
        lines
    };
    assert_eq!(unpacking.tree(), expected);
    // Directories are what they always are: CVE-2026-33056.
    let directory = header(DIR, b"d", 0, |bytes| bytes[100..108].copy_from_slice(b"0007777\0"));
    assert_eq!(run(&ended(&[directory]), &strip(0)).tree(), ["d/ 755"]);
}

#[test]
fn a10_a_path_that_is_there_twice_is_refused_unless_it_is_the_same_file() {
    let make: [(&str, Row<'_>); 4] = [
        ("file", (FILE, b"x", b"1")),
        ("directory", (DIR, b"x", b"")),
        ("link", (LINK, b"x", b"y")),
        ("hard link", (HARD, b"x", b"y")),
    ];
    let mut rows = Vec::new();
    for (_, first) in make {
        for (_, second) in make {
            let both_directories = first.0 == DIR && second.0 == DIR;
            let same_file = first.0 == FILE && second.0 == FILE;
            let expected = match () {
                () if both_directories || same_file => "unpacked",
                () if first.0 == DIR => "archive.write_failed",
                () => "archive.duplicate",
            };
            rows.push(("twice", tar(&[(FILE, b"y", b"y"), first, second]), expected));
        }
    }
    rows.extend([
        ("other contents", tar(&[(FILE, b"x", b"1"), (FILE, b"./x", b"2")]), "archive.duplicate"),
        ("more contents", tar(&[(FILE, b"x", b"1"), (FILE, b"x", b"12")]), "archive.duplicate"),
        ("another mode", ended(&[file(b"x", 0o644), file(b"x", 0o755)]), "archive.duplicate"),
        ("a file as a directory", tar(&[(FILE, b"d", b""), (FILE, b"d/x", b"")]), "archive.write_failed"),
        // Other names on this file system; twins are only twins where they are equal.
        ("case", tar(&[(FILE, b"x", b"1"), (FILE, b"X", b"2")]), "unpacked"),
    ]);
    check(rows);
}

#[test]
fn a11_archives_without_a_proper_end_are_refused() {
    let whole = tar(&[(FILE, b"file", &[7; 3000])]);
    let with = |bytes: &[u8]| [&whole[..], bytes].concat();
    let mut rows = vec![
        ("empty", vec![], "archive.damaged"),
        ("in a header", whole[..300].to_vec(), "archive.damaged"),
        ("in the contents", whole[..1500].to_vec(), "archive.damaged"),
        ("in the padding", whole[..512 + 3050].to_vec(), "archive.damaged"),
        ("no end marker", whole[..whole.len() - 1024].to_vec(), "archive.damaged"),
        ("half an end marker", whole[..whole.len() - 512].to_vec(), "archive.damaged"),
        ("one and a half", whole[..whole.len() - 100].to_vec(), "archive.damaged"),
        ("bytes behind it", with(b"x"), "archive.damaged"),
        ("zeros and then bytes", with(&[&[0; 9000][..], b"x"].concat()), "archive.damaged"),
        ("a second archive", with(&whole), "archive.damaged"),
        (
            "something between the end's blocks",
            [&whole[..whole.len() - 512], &whole].concat(),
            "archive.damaged",
        ),
        ("padding with zeros", with(&[0; 7777]), "unpacked"),
        ("nothing in it", vec![0; 1024], "unpacked"),
        ("noise", vec![1; 700], "archive.damaged"),
    ];
    for (name, bytes, expected) in rows.clone() {
        rows.push((name, gzip(&bytes), expected));
    }
    check(rows);
}

#[test]
fn npm_links_are_left_out_and_gitignore_gives_way() {
    let links = tar(&[(LINK, b"p/up", b"../../x"), (HARD, b"p/h", b"/etc/passwd"), (FILE, b"p/f", b"")]);
    assert_eq!(run(&links, &npm()).tree(), ["f 644 0 0 "]);

    let git: Row<'_> = (FILE, b"p/d/.gitignore", b"git");
    let own: Row<'_> = (FILE, b"p/d/.npmignore", b"npm");
    for rows in [[git, own], [own, git]] {
        let unpacking = run(&tar(&rows), &npm());
        assert_eq!(unpacking.tree(), ["d/ 755", "d/.npmignore 644 3 2704562987 npm"]);
        assert_eq!(unpacking.result.unwrap().entries, 1);
    }
    assert_eq!(run(&tar(&[git]), &npm()).tree(), ["d/ 755", "d/.npmignore 644 3 1368285564 git"]);
    // Only files are renamed, and a directory of the new name wins, too.
    assert_eq!(run(&tar(&[(DIR, b"p/.gitignore/", b"")]), &npm()).tree(), [".gitignore/ 755"]);
    let directory: Row<'_> = (DIR, b"p/d/.npmignore/", b"");
    assert_eq!(run(&tar(&[git, directory]), &npm()).tree(), ["d/ 755", "d/.npmignore/ 755"]);
    assert_eq!(run(&tar(&[directory, git]), &npm()).tree(), ["d/ 755", "d/.npmignore/ 755"]);
    // What gave way is no target for a hard link.
    let hard = tar(&[git, (HARD, b"p/h", b"p/d/.gitignore")]);
    assert_eq!(run(&hard, &UnpackOptions { skip_links: false, ..npm() }).id(), "archive.bad_link");
    for to in ["../x", "a/b", "", ".", "a\\b"] {
        let options = UnpackOptions { rename: vec![("f".to_owned(), to.to_owned())], ..npm() };
        assert_eq!(run(&links, &options).id(), "archive.bad_rename", "{to:?}");
    }
}

#[test]
fn a_message_shows_little_of_a_hostile_name() {
    let name = format!("../{}", "\u{1b}[31m".repeat(1000));
    let unpacking = run(&ended(&[entry(b'L', b"l", name.as_bytes()), entry(FILE, b"x", b"")]), &strip(0));
    let message = unpacking.result.unwrap_err().to_string();
    assert!(message.starts_with("entry 1 `../\\u{1b}[31m") && message.len() < 400, "{message}");
}
