//! Compression: the same tar in each of its forms, bombs, and damage.

use std::process::{Command, Stdio};

use super::tar::tar;
use super::*;

/// `bytes` through a program that compresses.
fn through(program: &str, arguments: &[&str], bytes: &[u8]) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let input = directory.path().join("input");
    fs::write(&input, bytes).unwrap();
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::from(fs::File::open(input).unwrap()))
        .output()
        .unwrap_or_else(|error| panic!("`{program}` is needed: {error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    through("xz", &["-c", "-6"], bytes)
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    through("zstd", &["-c", "-q", "--check"], bytes)
}

type Packer = (&'static str, fn(&[u8]) -> Vec<u8>);
const PACKERS: [Packer; 3] = [("gzip", gzip), ("xz", xz), ("zstd", zstd)];

fn small() -> Vec<u8> {
    let text: Vec<u8> = (0..20_000_u32).flat_map(|number| number.to_string().into_bytes()).collect();
    tar(&[(b'5', b"d/", b""), (b'0', b"d/file", &text)])
}

#[test]
fn every_format_holds_the_same() {
    let expected = run(&small(), &strip(0)).tree();
    assert_eq!(expected.len(), 2);
    for (name, pack) in PACKERS {
        assert_eq!(run(&pack(&small()), &strip(0)).tree(), expected, "{name}");
        // Several members or frames, one of them with nothing in it, and zeros at the end.
        let whole = small();
        let (first, second) = whole.split_at(700);
        let parts = [pack(first), pack(&[]), pack(second), vec![0; 512]].concat();
        let unpacking = run(&parts, &strip(0));
        assert_eq!(unpacking.tree(), expected, "{name}: {:?}", unpacking.result);
    }
    // A frame that is to be skipped.
    let skipped = [&zstd(&small())[..], &[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3]].concat();
    assert_eq!(run(&skipped, &strip(0)).tree(), expected);
}

#[test]
fn a11_compressed_data_has_to_be_whole_and_alone() {
    let mut rows = Vec::new();
    for (name, pack) in PACKERS {
        let whole = pack(&small());
        rows.push((name, [&whole[..], b"x"].concat(), "archive.damaged"));
        rows.push((name, [&whole[..], &[0; 8], b"x"].concat(), "archive.damaged"));
        rows.push((name, [&whole[..], &whole].concat(), "archive.damaged"));
        for cut in [1, 4, 9, whole.len() / 2, whole.len() - 7] {
            rows.push((name, whole[..whole.len() - cut].to_vec(), "archive.damaged"));
        }
    }
    // Checksums, which are last: of the contents, or of the index in front of the footer.
    for (name, pack, from_end) in
        [("gzip", gzip as fn(&[u8]) -> Vec<u8>, 6), ("zstd", zstd, 2), ("xz", xz, 14)]
    {
        let mut bytes = pack(&small());
        let at = bytes.len() - from_end;
        bytes[at] ^= 1;
        rows.push((name, bytes, "archive.damaged"));
    }
    check(rows);
}

#[test]
fn a6_bombs_stop_at_the_ratio() {
    // 80 MiB of one byte pack to a thousandth and less: more than 200 to 1, and past 64 MiB.
    let zeros = tar(&[(b'0', b"zeros", &vec![0; 80 << 20])]);
    for (name, pack) in PACKERS {
        let bomb = run(&pack(&zeros), &strip(0));
        assert_eq!(bomb.id(), "archive.too_large", "{name} {:?}", bomb.result);
        assert!(bomb.used.0 <= 65 << 20, "{name}");
    }
    // What is below 64 MiB may have any ratio.
    let some = tar(&[(b'0', b"zeros", &vec![0; 20 << 20])]);
    assert_eq!(run(&zstd(&some), &strip(0)).id(), "unpacked");
}

#[test]
fn a6_a_decoder_gets_no_more_memory_than_a_window() {
    let tar = small();
    // A dictionary of 256 MiB; nothing of that size is ever filled.
    let large = through("xz", &["-c", "--lzma2=preset=0,dict=256MiB"], &tar);
    assert_eq!(run(&large, &strip(0)).id(), "archive.too_large");
    let fits = through("xz", &["-c", "--lzma2=preset=0,dict=64MiB"], &tar);
    assert_eq!(run(&fits, &strip(0)).id(), "unpacked");
    // A frame header that asks for 1 GiB and for 128 MiB: exponent in the upper five bits.
    for (exponent, expected) in
        [(20, "archive.too_large"), (18, "archive.too_large"), (17, "archive.damaged")]
    {
        let frame = [0x28, 0xb5, 0x2f, 0xfd, 0, exponent << 3, 1, 0, 0];
        assert_eq!(run(&frame, &strip(0)).id(), expected, "2^{}", 10 + exponent);
    }
}
