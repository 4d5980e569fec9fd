//! Real programs, and files that only claim to be some.

use std::io::Cursor;

use super::*;

/// What [`program`] is made with.
#[derive(Clone, Copy)]
struct Plan<'a> {
    interpreter: &'a str,
    /// Tag and value; where the value is `None`, that of the string table.
    dynamic: &'a [(i64, u64)],
    strings: &'a [u8],
    dynamic_bytes: Option<u64>,
    segments: Option<u16>,
}

const PLAN: Plan<'_> = Plan {
    interpreter: "/lib64/ld-linux-x86-64.so.2",
    dynamic: &[(elf::DT_NEEDED, 1), (elf::DT_RUNPATH, 11)],
    strings: b"\0libx.so.1\0$ORIGIN\0",
    dynamic_bytes: None,
    segments: None,
};

/// Where the file is in memory.
const BASE: u64 = 0x1000;
const STRINGS_AT: u64 = 0x400;

/// A small 64-bit program for amd64, written by hand from the specification of ELF.
fn program(plan: Plan<'_>) -> Vec<u8> {
    let mut bytes = vec![0; 0x820 + plan.dynamic.len() * 16];
    let mut put = |at: u64, value: &[u8]| {
        let at = usize::try_from(at).unwrap();
        bytes[at..at + value.len()].copy_from_slice(value);
    };
    put(0, b"\x7fELF\x02\x01\x01");
    put(16, &3_u16.to_le_bytes());
    put(18, &62_u16.to_le_bytes());
    put(20, &1_u32.to_le_bytes());
    put(32, &64_u64.to_le_bytes());
    put(52, &64_u16.to_le_bytes());
    put(54, &56_u16.to_le_bytes());
    put(56, &plan.segments.unwrap_or(3).to_le_bytes());
    let dynamic = plan.dynamic.len() as u64 + 2;
    let segments = [
        (1_u32, 0_u64, 0x800_u64),
        (3, 0x200, plan.interpreter.len() as u64 + 1),
        (2, 0x800, plan.dynamic_bytes.unwrap_or(dynamic * 16)),
    ];
    for (number, (kind, offset, size)) in (0_u64..).zip(segments) {
        let at = 64 + number * 56;
        put(at, &kind.to_le_bytes());
        put(at + 8, &offset.to_le_bytes());
        put(at + 16, &(BASE + offset).to_le_bytes());
        put(at + 32, &size.to_le_bytes());
        put(at + 40, &size.to_le_bytes());
    }
    put(0x200, plan.interpreter.as_bytes());
    let table = [(elf::DT_STRTAB, BASE + STRINGS_AT)];
    for (number, (tag, value)) in (0_u64..).zip(table.iter().chain(plan.dynamic)) {
        put(0x800 + number * 16, &tag.to_le_bytes());
        put(0x808 + number * 16, &value.to_le_bytes());
    }
    put(STRINGS_AT, plan.strings);
    bytes
}

fn read(bytes: &[u8]) -> Option<Elf> {
    Elf::read(Cursor::new(bytes))
}

#[test]
fn headers_are_read_from_a_program_without_sections() {
    let elf = read(&program(PLAN)).unwrap();
    assert_eq!(elf.interpreter.as_deref(), Some("/lib64/ld-linux-x86-64.so.2"));
    assert_eq!(elf.needed, ["libx.so.1"]);
    assert_eq!(elf.runpath.as_deref(), Some("$ORIGIN"));
    assert_eq!((elf.rpath, elf.soname), (None, None));
    assert!(elf.abi.runs_on("amd64") && !elf.abi.runs_on("arm64"));
    let text = serde_json::to_string(&read(&program(PLAN)).unwrap()).unwrap();
    assert_eq!(serde_json::from_str::<Elf>(&text).unwrap(), read(&program(PLAN)).unwrap());
}

/// What `readelf` says of the shell of this machine.
#[test]
fn a_real_program_is_read_as_readelf_reads_it() {
    let path = "/bin/sh";
    let output = std::process::Command::new("readelf").args(["-W", "-l", "-d", path]).output();
    let text = String::from_utf8(output.expect("`readelf` is needed for this test").stdout).unwrap();
    let between = |line: &str, start: &str, end: char| {
        let rest = line.split_once(start)?.1;
        Some(rest.split(end).next()?.to_owned())
    };
    let needed: Vec<String> =
        text.lines().filter_map(|line| between(line, "Shared library: [", ']')).collect();
    let interpreter = text.lines().find_map(|line| between(line, "program interpreter: ", ']'));
    let elf = Elf::read(std::fs::File::open(path).unwrap()).unwrap();
    assert_eq!((elf.needed, elf.interpreter), (needed, interpreter));
}

/// Every header that lies is no program, at once and without much memory.
#[test]
fn hostile_files_are_no_programs() {
    let cases: [(&str, Plan<'_>); 8] = [
        ("dynamic section of more than the file", Plan { dynamic_bytes: Some(1 << 40), ..PLAN }),
        ("dynamic section of 16 exabytes", Plan { dynamic_bytes: Some(u64::MAX - 15), ..PLAN }),
        ("more segments than the file has", Plan { segments: Some(0xfffe), ..PLAN }),
        ("segments counted in a section that is not there", Plan { segments: Some(0xffff), ..PLAN }),
        ("a name outside the strings", Plan { dynamic: &[(elf::DT_NEEDED, 1 << 31)], ..PLAN }),
        ("a name past 4 GiB", Plan { dynamic: &[(elf::DT_NEEDED, u64::MAX)], ..PLAN }),
        ("a name that is not text", Plan { strings: b"\0\xff\xfe\0", ..PLAN }),
        ("a second table outside memory", Plan { dynamic: &[(elf::DT_SONAME, 0)], ..PLAN }),
    ];
    for (what, plan) in cases {
        assert_eq!(read(&program(plan)), None, "{what}");
    }
    for (count, is_program) in [(MAX_NEEDED, true), (MAX_NEEDED + 1, false)] {
        let many = vec![(elf::DT_NEEDED, 1); count];
        assert_eq!(
            read(&program(Plan { dynamic: &many, ..PLAN })).is_some(),
            is_program,
            "{count} libraries"
        );
    }
    assert_eq!(read(b""), None);
    assert_eq!(read(b"\x7fELF"), None);
}

/// A file of a terabyte that takes no space: what its headers claim is there, and is not read.
#[test]
fn a_table_of_gigabytes_is_not_read() {
    use std::io::Write as _;
    let mut file = tempfile::tempfile().unwrap();
    for (bytes, is_program) in [(48, true), (MAX_READ_BYTES, true), (MAX_READ_BYTES + 16, false)] {
        file.rewind().unwrap();
        file.write_all(&program(Plan { dynamic_bytes: Some(bytes), ..PLAN })).unwrap();
        file.set_len(1 << 40).unwrap();
        assert_eq!(Elf::read(&file).is_some(), is_program, "{bytes}");
    }
}

/// Cut off and changed at every place: an answer, whatever it is, and no panic.
#[test]
fn no_single_byte_makes_it_panic() {
    let whole = program(PLAN);
    for length in 0..whole.len() {
        let _ = read(&whole[..length]);
    }
    for at in (0..0x480).chain(0x800..whole.len()) {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[at] = value;
            let _ = read(&bytes);
        }
    }
}
