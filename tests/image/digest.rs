//! One input, one digest, whatever the machine, the user and the day.

use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::tools::{build_process, have, is_root, result_of, skip};
use crate::support::{Outcome, Site};

/// A site whose app has all kinds of files; with everything in the image that can be.
fn site() -> Site {
    let site = Site::in_memory().guest("well-behaved").guest("update-layer").env("COUNT", "no");
    fill_app(&site.path("app"), &["b/deep/file", "a", "ä ö", "a-b", "run"]);
    site
}

fn fill_app(app: &Path, names: &[&str]) {
    for name in names {
        let path = app.join(name);
        fs::create_dir_all(path.parent().expect("it is in the app")).expect("a directory");
        fs::write(&path, format!("contents of {name}\n")).expect("a file");
    }
    fs::set_permissions(app.join("run"), Permissions::from_mode(0o755)).expect("a mode");
    symlink("b/deep/file", app.join("link")).expect("a link");
    symlink("/nowhere", app.join("dangling")).expect("a link");
}

/// Sets all times in the app, directories included.
fn set_times(app: &Path, time: SystemTime) {
    for name in ["b/deep/file", "a", "run", "b/deep", "b", ""] {
        File::open(app.join(name)).and_then(|file| file.set_modified(time)).expect("a time");
    }
}

/// What is compared: the manifest's digest, and each layer by name, tar and blob.
fn summary(outcome: &Outcome) -> String {
    let digest = outcome.digest();
    let image = &outcome.result.as_ref().expect("an image").image;
    let mut text = format!("manifest {digest}\n");
    for (layer, history) in image.layers.iter().zip(&image.configuration.history) {
        let title = history.created_by.as_deref().unwrap_or_default();
        let _ = writeln!(text, "{title}\n  tar  {}\n  gzip {}", layer.diff_id, layer.digest);
    }
    text
}

/// Nothing of it depends on the bytes of the component, so it holds on every machine.
#[test]
fn the_image_is_the_golden_one() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/well-behaved.txt");
    let found = summary(&site().build());
    if std::env::var_os("WAPACK_BLESS").is_some() {
        fs::write(&file, &found).expect("a golden file");
    }
    assert_eq!(found, fs::read_to_string(&file).expect("a golden file"));
}

/// EXP-11, IMG-12
#[test]
fn cold_warm_and_elsewhere_give_one_digest() {
    let first = site();
    let cold = summary(&first.build());
    assert_eq!(summary(&first.build()), cold, "warm");
    fs::remove_dir_all(first.path("image")).expect("it is there");
    assert_eq!(summary(&first.build()), cold, "warm, into another layout");
    fs::remove_dir_all(first.path("store")).expect("it is there");
    assert_eq!(summary(&first.build()), cold, "cold again, over the same image");
    let mut job = site().job();
    let second = site();
    job.clone_from(&second.job());
    let memory = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
    job.app = memory.path().join("app");
    fs::create_dir(&job.app).expect("a directory");
    fs::copy(second.path("app/index.html"), job.app.join("index.html")).expect("a file");
    // Other order, other times.
    fill_app(&job.app, &["run", "ä ö", "a-b", "b/deep/file", "a"]);
    set_times(&job.app, SystemTime::UNIX_EPOCH + Duration::from_hours(24));
    assert_eq!(summary(&second.build_job(&job, |_| ())), cold, "app in memory, other order and times");
    // The same bytes under modes that an image does not show.
    for (name, mode) in [("a", 0o600), ("b/deep/file", 0o664), ("b/deep", 0o700), ("run", 0o700)] {
        fs::set_permissions(job.app.join(name), Permissions::from_mode(mode)).expect("a mode");
    }
    assert_eq!(summary(&second.build_job(&job, |_| ())), cold, "other modes");
}

/// What the build's program is started by, and with which variables.
type Variant<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)]);

/// IMG-11, IMG-12, LBL-18: from cold stores, compressed anew each time.
/// Each is a process of its own, from a cold store.
#[test]
fn user_umask_locale_time_zone_and_cores_do_not_matter() {
    if !have(&["setpriv", "taskset"]) {
        return;
    }
    let expected = site().build().digest();
    let umask = |mask| ["sh", "-c", mask, "sh"];
    let no_user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
    let variants: [Variant<'_>; 7] = [
        (&umask("umask 000; exec \"$@\""), &[]),
        (&umask("umask 077; exec \"$@\""), &[]),
        (&[], &[("LC_ALL", "tr_TR.UTF-8"), ("LANG", "tr_TR.UTF-8"), ("TZ", "Pacific/Kiritimati")]),
        (&[], &[("SOURCE_DATE_EPOCH", "1"), ("HOME", "/nowhere"), ("PATH", ""), ("TMPDIR", "/nowhere")]),
        (&["taskset", "-c", "0"], &[]),
        (&["setpriv", "--no-new-privs"], &[]),
        (&no_user, &[]),
    ];
    for (wrapper, variables) in variants {
        let site = site();
        let what = format!("{wrapper:?} {variables:?}");
        if wrapper == no_user {
            if !is_root() {
                skip("another user needs root");
                continue;
            }
            // Everything is its own, and nothing of the tests' user's.
            let everything = walk(site.root.path());
            for path in everything {
                std::os::unix::fs::lchown(path, Some(65_534), Some(65_534)).expect("another owner");
            }
        }
        let mut command = build_process(wrapper, &site.job());
        for (name, value) in variables {
            command.env(name, value);
        }
        let output = command.output().expect("a process");
        assert_eq!(result_of(&output), Ok(expected.clone()), "{what}");
        // And once more, from what that left behind.
        let mut command = build_process(wrapper, &site.job());
        assert_eq!(result_of(&command.output().expect("a process")), Ok(expected.clone()), "{what}, warm");
    }
}

/// Everything in a directory, and itself.
fn walk(root: &Path) -> Vec<std::path::PathBuf> {
    let mut found = vec![root.to_owned()];
    let mut index = 0;
    while index < found.len() {
        if found[index].is_dir() && !found[index].is_symlink() {
            found.extend(
                fs::read_dir(&found[index])
                    .expect("a directory")
                    .map(|entry| entry.expect("an entry").path()),
            );
        }
        index += 1;
    }
    found
}
