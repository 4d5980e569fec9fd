//! Rebuilds in which buildpacks leave their layers alone, as the kernel sees them.

use std::fs;

use super::fixture::{IMAGE, Lifecycle, Platform};
use crate::image::tools::have;

/// Two cached layers, made once. The rest of the script is a test's own.
const BUILD: &str = r#"
layers=$1
for layer in app kept; do
  if [ ! -e "$layers/$layer" ]; then
    mkdir -p "$layers/$layer/lib"
    head -c 300000 /dev/zero | tr '\0' 'a' > "$layers/$layer/lib/big-file"
  fi
done
printf '[types]\ncache = true\nlaunch = true\n' > "$layers/app.toml"
printf '[types]\ncache = true\nbuild = true\n' > "$layers/kept.toml"
"#;

/// A platform with one build behind it, and a fresh directory of layers.
fn platform(rest: &str) -> Platform {
    let platform = Platform::new(Lifecycle::ours(), "0.14");
    platform.buildpack("one", "0.10", "exit 0", BUILD);
    platform.order(&["one"]);
    create(&platform, &[]);
    super::components::begin_again(&platform);
    platform.buildpack("one", "0.10", "exit 0", &format!("{BUILD}{rest}"));
    platform
}

fn create(platform: &Platform, parent: &[&str]) -> String {
    let launcher = platform.launcher();
    let mut arguments: Vec<&str> = launcher.iter().map(String::as_str).collect();
    arguments.push(IMAGE);
    platform.run_below(parent, "creator", &arguments).succeeded().said()
}

fn is_tar(name: &str) -> bool {
    std::path::Path::new(name).extension().is_some_and(|extension| extension == "tar")
}

/// Rebuilds; every opening of a file by the creator itself, and the digest of the image.
fn opened(platform: &Platform) -> (Vec<String>, String) {
    let trace = platform.path("home/trace");
    let trace = trace.to_str().expect("UTF-8");
    fs::create_dir_all(platform.path("home")).expect("a directory");
    if super::fixture::is_root() {
        super::fixture::give(&platform.path("home"));
    }
    let strace = ["strace", "--follow-forks", "--output", trace, "--trace=execve,open,openat,openat2"];
    let said = create(platform, &strace);
    let text = fs::read_to_string(trace).expect("a trace");
    // Threads of the creator never start a program; what buildpacks are does so first of all.
    let starts = |line: &&str| line.contains(" execve(") && !line.contains("/creator\"");
    let others: Vec<&str> = text.lines().filter(starts).filter_map(|line| line.split(' ').next()).collect();
    let is_ours = |line: &&str| !others.contains(&line.split(' ').next().unwrap_or_default());
    let opened =
        text.lines().filter(is_ours).filter(|line| line.contains("open")).map(str::to_owned).collect();
    (opened, said)
}

fn reads<'a>(opened: &'a [String], name: &str) -> Vec<&'a String> {
    opened.iter().filter(|line| line.contains(name) && line.contains("O_RDONLY")).collect()
}

/// CAC-05: what was verified while it was restored, and is untouched since, is taken over as it is.
#[test]
fn cac_05_untouched_layers_are_not_opened_again() {
    if !have(&["strace"]) {
        return;
    }
    let platform = platform("");
    let (first, cache) = (platform.image().digest(), cached(&platform));
    let (opened, said) = opened(&platform);
    assert_eq!(opened.iter().filter(|line| line.contains("big-file") && line.contains("O_CREAT")).count(), 2);
    assert_eq!(reads(&opened, "big-file"), Vec::<&String>::new());
    for tar in cache.iter().map(|(name, _)| name).filter(|name| is_tar(name)) {
        let read = reads(&opened, tar);
        assert!(read.len() <= 3, "{read:#?}");
    }
    assert!(said.contains("Reusing layer 'acme/one:app'"), "{said}");
    assert_eq!(platform.image().digest(), first);
    assert_eq!(cached(&platform), cache, "files of the cache are the same ones");
}

/// CAC-05: a file of the same size, with the time of its last write put back.
#[test]
fn cac_05_a_file_in_its_old_clothes_is_in_the_image() {
    if !have(&["strace"]) {
        return;
    }
    let disguise = r#"
touch -r "$layers/app/lib/big-file" "$layers/time"
printf 'b' | dd of="$layers/app/lib/big-file" bs=1 seek=7 conv=notrunc 2>/dev/null
touch -r "$layers/time" "$layers/app/lib/big-file"
rm "$layers/time"
"#;
    let platform = platform(disguise);
    let first = platform.image().digest();
    let (opened, said) = opened(&platform);
    assert!(!reads(&opened, "big-file").is_empty());
    assert!(said.contains("Adding layer 'acme/one:app'"), "{said}");
    assert_ne!(platform.image().digest(), first);
    let files = platform.image().files();
    let (_, text) = files.iter().find(|(name, _)| name.ends_with("app/lib/big-file")).expect("the file");
    assert_eq!((text.len(), &text[..9]), (300_000, "aaaaaaaba"));
}

/// The files of the cache, with their inodes.
fn cached(platform: &Platform) -> Vec<(String, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let entries = fs::read_dir(platform.path("cache/committed")).expect("a cache");
    let mut found: Vec<_> = entries
        .map(|entry| {
            let entry = entry.expect("an entry");
            (entry.file_name().into_string().expect("UTF-8"), entry.metadata().expect("a file").ino())
        })
        .filter(|(name, _)| is_tar(name))
        .collect();
    found.sort();
    found
}
