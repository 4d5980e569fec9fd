//! Zips.

use super::*;

/// One member, and what its two headers say of it.
#[derive(Clone)]
struct Member {
    name: Vec<u8>,
    /// The name before the contents, when it is another one.
    local_name: Option<Vec<u8>>,
    contents: Vec<u8>,
    method: u16,
    flags: u16,
    mode: u32,
    extra: Vec<u8>,
    /// Added to the sizes and the checksum that the directory says.
    size_off: u32,
    checksum_off: u32,
    /// Before its header.
    gap: usize,
    /// Behind its contents, where sizes may follow.
    behind: Behind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Behind {
    Nothing,
    Signed,
    Unsigned,
    Wrong,
}

fn member(name: &[u8], contents: &[u8]) -> Member {
    Member {
        name: name.to_vec(),
        local_name: None,
        contents: contents.to_vec(),
        method: 8,
        flags: 0,
        mode: 0o100_644,
        extra: vec![],
        size_off: 0,
        checksum_off: 0,
        gap: 0,
        behind: Behind::Nothing,
    }
}

fn size_of_field(length: usize) -> u32 {
    length.try_into().unwrap()
}

fn le(fields: &[(u32, usize)]) -> Vec<u8> {
    fields.iter().flat_map(|(value, bytes)| value.to_le_bytes()[..*bytes].to_vec()).collect()
}

fn zip(members: &[Member]) -> Vec<u8> {
    zip_with(members, |_| {})
}

/// `change` gets the 22 bytes of the end record.
fn zip_with(members: &[Member], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for member in members {
        bytes.resize(bytes.len() + member.gap, b'g');
        let header = size_of_field(bytes.len());
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(&member.contents).unwrap();
        let packed = if member.method == 8 { encoder.finish().unwrap() } else { member.contents.clone() };
        let (sum, size) = (flate_sum(&member.contents), size_of_field(member.contents.len()));
        let follows = member.flags & 8 != 0;
        let said = if follows { [0; 3] } else { [sum, size_of_field(packed.len()), size] };
        let name = member.local_name.as_ref().unwrap_or(&member.name);
        let (flags, method) = (u32::from(member.flags), u32::from(member.method));
        let extra = size_of_field(member.extra.len());
        let local = [
            (20, 2),
            (flags, 2),
            (method, 2),
            (0, 4),
            (said[0], 4),
            (said[1], 4),
            (said[2], 4),
            (size_of_field(name.len()), 2),
            (extra, 2),
        ];
        bytes.extend([&b"PK\x03\x04"[..], &le(&local), name, &member.extra, &packed].concat());
        let sizes = le(&[(sum, 4), (size_of_field(packed.len()), 4), (size, 4)]);
        match member.behind {
            Behind::Nothing => {}
            Behind::Signed => bytes.extend([&b"PK\x07\x08"[..], &sizes].concat()),
            Behind::Unsigned => bytes.extend(sizes),
            Behind::Wrong => bytes.extend([0; 12]),
        }
        let central = [
            (0x0314, 2),
            (20, 2),
            (flags, 2),
            (method, 2),
            (0, 4),
            (sum.wrapping_add(member.checksum_off), 4),
            (size_of_field(packed.len()), 4),
            (size + member.size_off, 4),
            (size_of_field(member.name.len()), 2),
            (extra, 2),
            (0, 2),
            (0, 2),
            (0, 2),
            (member.mode << 16, 4),
            (header, 4),
        ];
        directory.extend([&b"PK\x01\x02"[..], &le(&central), &member.name, &member.extra].concat());
    }
    let count = size_of_field(members.len());
    let fields = [
        (0, 2),
        (0, 2),
        (count, 2),
        (count, 2),
        (size_of_field(directory.len()), 4),
        (size_of_field(bytes.len()), 4),
        (0, 2),
    ];
    let mut end = [&b"PK\x05\x06"[..], &le(&fields)].concat();
    change(&mut end);
    [bytes, directory, end].concat()
}

#[test]
fn an_ordinary_zip_becomes_what_it_says() {
    let archive = zip(&[
        Member { mode: 0o040_755, method: 0, ..member(b"p/d/", b"") },
        Member { mode: 0o100_755, ..member(b"p/d/file", b"contents") },
        Member { mode: 0o120_777, method: 0, ..member(b"p/d/link", b"file") },
        Member { mode: 0, method: 0, ..member(b"p/dos", b"git") },
        Member { flags: 8, behind: Behind::Signed, ..member(b"p/signed", b"npm") },
        Member { flags: 8 | 1 << 11, behind: Behind::Unsigned, ..member("p/ü".as_bytes(), b"") },
    ]);
    let unpacking = run(&archive, &strip(1));
    assert_eq!(unpacking.result.as_ref().unwrap(), &Unpacked { entries: 6, bytes: 14 });
    let expected = [
        "\\u{fc} 644 0 0 ",
        "d/ 755",
        "d/file 755 8 3036287351 contents",
        "d/link -> file",
        "dos 644 3 1368285564 git",
        "signed 644 3 2704562987 npm",
    ];
    assert_eq!(unpacking.tree(), expected);
    assert_eq!(run(&zip(&[]), &strip(0)).id(), "unpacked");
    // Links are left out as those of a tar are, whatever they point to.
    let link = Member { mode: 0o120_777, method: 0, ..member(b"p/l", b"/etc/passwd") };
    assert_eq!(run(&zip(&[link]), &npm()).id(), "unpacked");
}

#[test]
fn a1_a2_a9_a10_zips_are_no_better_than_tars() {
    let mut rows = vec![
        (
            "A2 a link that leads out",
            zip(&[Member { mode: 0o120_777, ..member(b"l", b"../canary") }]),
            "archive.bad_link",
        ),
        (
            "A2 through a link",
            zip(&[
                member(b"d/x", b""),
                Member { mode: 0o120_777, ..member(b"l", b"d") },
                member(b"l/x", b"x"),
            ]),
            "archive.write_failed",
        ),
        (
            "A2 an endless target",
            zip(&[Member { mode: 0o120_777, ..member(b"l", &[b'x'; 5000]) }]),
            "archive.damaged",
        ),
        ("A9 a device", zip(&[Member { mode: 0o060_644, ..member(b"x", b"") }]), "archive.bad_type"),
        ("A9 a FIFO", zip(&[Member { mode: 0o010_644, ..member(b"x", b"") }]), "archive.bad_type"),
        (
            "A5 a directory with contents",
            zip(&[Member { mode: 0o040_755, ..member(b"d/", b"x") }]),
            "archive.damaged",
        ),
        ("A5 a file called a directory", zip(&[member(b"d/", b"")]), "archive.damaged"),
        (
            "A5 a directory called a file",
            zip(&[Member { mode: 0o040_755, ..member(b"d", b"") }]),
            "archive.damaged",
        ),
        ("A10 twice", zip(&[member(b"x", b"1"), member(b"./x", b"2")]), "archive.duplicate"),
    ];
    for path in
        [&b"../x"[..], b"a/../../x", b"/etc/x", b"C:/x", b"C:\\x", b"a\\..\\x", b"a\nb", b"a\0b", b"", b"."]
    {
        rows.push(("A1", zip(&[member(path, b"x")]), "archive.bad_path"));
    }
    check(rows);
}

#[test]
fn a5_a_zip_has_to_say_the_same_everywhere() {
    let ok = || member(b"ok", b"ok");
    let central_end = |change: fn(&mut Vec<u8>)| zip_with(&[ok(), ok()], change);
    // One header that two records of the directory point to: an overlap of all bytes.
    let overlap = {
        let one = zip(&[member(b"a", b"a")]);
        let directory = one.windows(4).position(|bytes| bytes == b"PK\x01\x02").unwrap();
        let end = one.len() - 22;
        let mut bytes = [&one[..end], &one[directory..]].concat();
        let at = bytes.len() - 22;
        let size = size_of_field(2 * (end - directory));
        bytes[at + 8..at + 12].copy_from_slice(&[2, 0, 2, 0]);
        bytes[at + 12..at + 16].copy_from_slice(&size.to_le_bytes());
        bytes
    };
    let swap_name = Member { local_name: Some(b"no".to_vec()), ..ok() };
    let other_length = Member { local_name: Some(b"okay".to_vec()), ..ok() };
    let unicode_path = [&[0x75, 0x70, 7, 0, 1, 0, 0, 0, 0][..], b"no"].concat();
    let comment_end = zip_with(&[ok()], |end| {
        end[20] = 22;
        let inner = [&b"PK\x05\x06"[..], &[0; 18]].concat();
        end.extend(inner);
    });
    check(vec![
        ("another name", zip(&[swap_name]), "archive.damaged"),
        ("a longer name", zip(&[other_length]), "archive.damaged"),
        ("another size", zip(&[Member { size_off: 1, ..ok() }]), "archive.damaged"),
        (
            "another size, unsaid before",
            zip(&[Member { size_off: 1, flags: 8, behind: Behind::Signed, ..ok() }]),
            "archive.damaged",
        ),
        ("another checksum", zip(&[Member { checksum_off: 1, ..ok() }]), "archive.damaged"),
        ("a name in an extra field", zip(&[Member { extra: unicode_path, ..ok() }]), "archive.damaged"),
        ("a broken extra field", zip(&[Member { extra: vec![1, 2, 9, 0], ..ok() }]), "archive.damaged"),
        ("no descriptor", zip(&[Member { flags: 8, ..ok() }]), "archive.damaged"),
        ("a wrong descriptor", zip(&[Member { flags: 8, behind: Behind::Wrong, ..ok() }]), "archive.damaged"),
        ("a descriptor unasked", zip(&[Member { behind: Behind::Signed, ..ok() }]), "archive.damaged"),
        ("something before it", zip(&[Member { gap: 3, ..ok() }]), "archive.damaged"),
        ("a gap", zip(&[ok(), Member { gap: 3, ..member(b"b", b"") }]), "archive.damaged"),
        ("A6 an overlap", overlap, "archive.damaged"),
        (
            "fewer in the directory",
            central_end(|end| end[8..12].copy_from_slice(&[1, 0, 1, 0])),
            "archive.damaged",
        ),
        (
            "more in the directory",
            central_end(|end| end[8..12].copy_from_slice(&[3, 0, 3, 0])),
            "archive.damaged",
        ),
        ("a directory elsewhere", central_end(|end| end[16] += 1), "archive.damaged"),
        ("an end in the end's comment", comment_end, "archive.damaged"),
        ("a zip64 field", zip(&[Member { extra: vec![1, 0, 0, 0], ..ok() }]), "archive.unsupported"),
        ("zip64", central_end(|end| end[8..12].copy_from_slice(&[255; 4])), "archive.unsupported"),
        ("several parts", central_end(|end| end[4] = 1), "archive.unsupported"),
    ]);
}

#[test]
fn a11_zips_that_are_cut_longer_or_encrypted_are_refused() {
    let whole = zip(&[member(b"x", &[7; 3000])]);
    let trailing = {
        let mut packed = member(b"x", b"\x03\x00junk");
        packed.method = 0;
        let mut bytes = zip(&[packed]);
        // An empty deflate stream with more behind it.
        bytes[8] = 8;
        let at = bytes.windows(4).position(|bytes| bytes == b"PK\x01\x02").unwrap();
        bytes[at + 10] = 8;
        for at in [14, at + 16] {
            bytes[at..at + 4].copy_from_slice(&[0; 4]);
        }
        for at in [22, at + 24] {
            bytes[at..at + 4].copy_from_slice(&[0; 4]);
        }
        bytes
    };
    check(vec![
        ("cut", whole[..whole.len() - 1].to_vec(), "archive.damaged"),
        ("cut in the middle", whole[..40].to_vec(), "archive.damaged"),
        ("bytes behind it", [&whole[..], b"x"].concat(), "archive.damaged"),
        ("a second one behind it", [&whole[..], &whole].concat(), "archive.damaged"),
        ("more than one stream", trailing, "archive.damaged"),
        ("encrypted", zip(&[Member { flags: 1, ..member(b"x", b"") }]), "archive.unsupported"),
        ("strongly encrypted", zip(&[Member { flags: 1 << 6, ..member(b"x", b"") }]), "archive.unsupported"),
        ("a patch", zip(&[Member { flags: 1 << 5, ..member(b"x", b"") }]), "archive.unsupported"),
        ("bzip2", zip(&[Member { method: 12, ..member(b"x", b"") }]), "archive.unsupported"),
        ("code page 437", zip(&[member(b"\x81", b"")]), "archive.unsupported"),
    ]);
}

#[test]
fn a6_a_zip_bomb_is_refused_before_anything_is_written() {
    let zeros = vec![0; 65 << 20];
    let bomb = run(&zip(&[member(b"zeros", &zeros)]), &strip(0));
    assert_eq!((bomb.id(), bomb.used), ("archive.too_large", (0, 0)));
    // One that lies about its size ends where it said it would.
    let mut liar = zip(&[member(b"zeros", &zeros)]);
    let at = liar.windows(4).position(|bytes| bytes == b"PK\x01\x02").unwrap();
    for at in [22, at + 24] {
        liar[at..at + 4].copy_from_slice(&1000_u32.to_le_bytes());
    }
    let bomb = run(&liar, &strip(0));
    assert_eq!(bomb.id(), "archive.damaged");
    assert!(bomb.used.0 <= 1000);
}
