//! Mutated archives: our tree is the tree that another program makes, or we refuse.

use std::process::Command;

use super::*;

/// A generator of numbers that are the same each time (`SplitMix64`).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((value ^ (value >> 31)) % below as u64).unwrap()
    }
}

fn command(program: &str, arguments: &[&str], directory: &Path) -> bool {
    let output = Command::new(program).args(arguments).current_dir(directory).env("TZ", "UTC").output();
    output.unwrap_or_else(|error| panic!("`{program}` is needed: {error}")).status.success()
}

/// A small tree, packed by the program that is compared with.
fn sample(program: &str, arguments: &[&str], name: &str) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::create_dir_all(path("p/lib")).unwrap();
    fs::write(path("p/package.json"), "{\"name\":\"p\"}").unwrap();
    fs::write(path("p/lib/index.js"), "module.exports = 1\n".repeat(40)).unwrap();
    fs::write(path("p/cli.js"), "#!/usr/bin/env node\n").unwrap();
    fs::set_permissions(path("p/cli.js"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(path(&format!("p/{}", "long-".repeat(25))), "long").unwrap();
    std::os::unix::fs::symlink("cli.js", path("p/bin")).unwrap();
    assert!(command(program, arguments, directory.path()));
    fs::read(path(name)).unwrap()
}

fn without_modes(tree: &[String]) -> Vec<String> {
    let fields = |line: &String| {
        let mut words: Vec<&str> = line.split(' ').collect();
        if words.get(1) != Some(&"->") {
            words.remove(1);
        }
        words.join(" ")
    };
    tree.iter().map(fields).collect()
}

/// Changes one to three bytes, cuts, or repeats a part.
fn mutate(bytes: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut mutated = bytes.to_vec();
    match numbers.next(12) {
        0 => mutated.truncate(numbers.next(bytes.len())),
        1 => {
            let start = numbers.next(bytes.len() / 512) * 512;
            mutated.splice(start..start, bytes[start..].iter().take(512).copied());
        }
        _ => {
            for _ in 0..=numbers.next(3) {
                let at = numbers.next(bytes.len());
                let interesting = [0, b' ', b'/', b'.', b'0', b'1', b'2', b'5', b'7', b'L', b'x', 0x80, 0xff];
                mutated[at] = match numbers.next(2) {
                    0 => interesting[numbers.next(interesting.len())],
                    _ => u8::try_from(numbers.next(256)).unwrap(),
                };
            }
        }
    }
    mutated
}

/// Makes each header's checksum right again, so that what is behind it is looked at.
fn seal(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(512) {
        if block[257..262] == *b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}

/// Compares `count` mutations of `whole` with what `script` unpacks: from each
/// `<number>/archive` below its working directory into `<number>/out`.
fn compare(whole: &[u8], seed: u64, count: usize, seals: bool, program: &str, script: &str) {
    let mut numbers = Numbers(seed);
    let limits = Limits { disk_bytes: 1 << 20, ..Limits::default() };
    let directory = tempfile::tempdir().unwrap();
    let mut accepted = Vec::new();
    for round in 0..=count {
        // The first is the archive as it is.
        let mut bytes = if round == 0 { whole.to_vec() } else { mutate(whole, &mut numbers) };
        if seals {
            seal(&mut bytes);
        }
        let unpacking = run_in(Way::Fresh, &bytes, &strip(0), &limits);
        if unpacking.result.is_ok() {
            let place = directory.path().join(round.to_string());
            fs::create_dir_all(place.join("out")).unwrap();
            fs::write(place.join("archive"), &bytes).unwrap();
            accepted.push((round, without_modes(&unpacking.tree())));
        }
    }
    command(program, &["-c", script], directory.path());
    for (round, ours) in &accepted {
        let theirs = without_modes(&tree(&directory.path().join(round.to_string()).join("out")));
        assert_eq!(ours, &theirs, "seed {seed}, round {round}");
    }
    assert_eq!(accepted[0].0, 0);
    assert!(accepted[0].1.len() > 5);
    // Neither everything nor nothing is refused: the comparison is about something.
    assert!(accepted.len() > count / 50 && accepted.len() < count, "{} of {count}", accepted.len());
}

const UNTAR: &str = "for d in *; do tar -xf $d/archive -C $d/out --no-same-owner; done; exit 0";

#[test]
fn a5_mutated_gnu_tars_are_what_gnu_tar_takes_them_for() {
    let whole = sample("tar", &["--format=gnu", "-cf", "archive", "p"], "archive");
    compare(&whole, 1, 700, true, "sh", UNTAR);
}

#[test]
fn a5_mutated_pax_tars_are_what_gnu_tar_takes_them_for() {
    let whole = sample("tar", &["--format=pax", "-cf", "archive", "p"], "archive");
    compare(&whole, 2, 700, true, "sh", UNTAR);
}

#[test]
fn a5_mutated_zips_are_what_python_takes_them_for() {
    const PACK: &str = "
import os, zipfile
with zipfile.ZipFile('archive', 'w', zipfile.ZIP_DEFLATED) as archive:
    for root, directories, files in os.walk('p'):
        archive.write(root)
        for name in sorted(files):
            if not os.path.islink(os.path.join(root, name)):
                archive.write(os.path.join(root, name))
";
    const UNPACK: &str = "
import os, zipfile
for name in os.listdir():
    try:
        zipfile.ZipFile(name + '/archive').extractall(name + '/out')
    except Exception as error:
        open(name + '/out/error', 'w').write(str(error))
";
    let whole = sample("python3", &["-c", PACK], "archive");
    compare(&whole, 3, 700, false, "python3", UNPACK);
}
