//! Which of the app's files take part, and that they stay the same meanwhile.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::process::Command;

use wapack_runtime::event::Event;
use wapack_runtime::fault::Diagnose as _;

use super::tools::{Layout, run, tar_list};
use crate::support::{Site, guest};

/// The names in the app layer of the image.
fn app(site: &Site) -> Vec<String> {
    let layers = Layout::verified(&site.path("image")).layers();
    let name = |line: String| line.splitn(6, ' ').nth(5).map(str::to_owned).expect("a name");
    tar_list(layers.last().expect("a layer")).into_iter().map(name).collect()
}

/// Without a process a launcher would have to come in: this has one layer on top, the app.
fn site() -> Site {
    Site::new().guest("well-behaved").guest("peek").env("PATHS", "/workspace")
}

/// I1, IGN-*: left out, kept as links, never followed.
#[test]
fn what_is_ignored_is_neither_seen_nor_in_the_image() {
    let site = site();
    let file = |name: &str, text: &str| {
        let path = site.path("app").join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, text).expect("a file");
    };
    file(".git/config", "token");
    file("module/.git", "gitdir: elsewhere");
    file("module/code", "code");
    file("secrets/key", "key");
    file("secrets/readme", "readme");
    file("debug.log", "log");
    file(".dockerignore", "*.log\nsecrets\n!secrets/readme\n");
    fs::write(site.path("outside"), "outside").expect("a file");
    symlink("../outside", site.path("app/up")).expect("a link");
    symlink("/etc/passwd", site.path("app/absolute")).expect("a link");
    symlink("module", site.path("app/directory")).expect("a link");
    let socket = UnixListener::bind(site.path("app/socket")).expect("a socket");
    let outcome = site.build();
    outcome.digest();
    drop(socket);
    assert!(outcome.warnings().contains(&"`socket` is a socket and is left out"), "{:?}", outcome.warnings());
    assert_eq!(
        app(&site),
        [
            "/workspace",
            "/workspace/.dockerignore",
            "/workspace/absolute -> /etc/passwd",
            "/workspace/directory -> module",
            "/workspace/index.html",
            "/workspace/linked -> /layers/test_well-behaved/assets/asset",
            "/workspace/module",
            "/workspace/module/code",
            "/workspace/secrets",
            "/workspace/secrets/readme",
            "/workspace/up -> ../outside",
        ]
    );
    let seen = outcome.lines().join("\n");
    for hidden in ["token", "gitdir", "key: key", "debug.log", "outside: outside", "root:"] {
        assert!(!seen.contains(hidden), "a buildpack saw `{hidden}`: {seen}");
    }
    assert!(seen.contains("read /workspace/module/code: code"), "{seen}");
}

#[test]
fn a_fifo_is_refused_before_anything_runs() {
    let site = site();
    run(Command::new("mkfifo").arg(site.path("app/pipe")));
    let outcome = site.build();
    let error = outcome.result.expect_err("a refusal");
    assert_eq!(
        (error.id(), error.to_string().as_str()),
        ("source.special_file", "`pipe` is a FIFO, which cannot be part of an image")
    );
    assert!(!site.path("image").exists());
    // Ignored, it does no harm.
    fs::write(site.path("app/.dockerignore"), "pipe\n").expect("a file");
    site.build().digest();
}

/// Workers of root run as another user; they see a private source all the same.
#[test]
fn a_source_that_only_its_owner_can_read_is_built() {
    let open = site();
    open.build().digest();
    let private = site();
    for (path, mode) in [("app/index.html", 0o600), ("app", 0o700)] {
        fs::set_permissions(private.path(path), Permissions::from_mode(mode)).expect("a mode");
    }
    let outcome = private.build();
    outcome.digest();
    assert!(
        outcome.lines().contains(&"read /workspace/index.html: <h1>hello</h1>\n".trim_end()),
        "{:?}",
        outcome.lines()
    );
    assert_eq!(app(&private), app(&open));
    let layers = |site: &Site| {
        Layout::verified(&site.path("image"))
            .layers()
            .last()
            .map(|layer| layer.file_name().map(ToOwned::to_owned))
    };
    assert_eq!(layers(&private), layers(&open));
}

/// TAR-15: (I3) a source that changes under the build is an error that names the file, and no image.
#[test]
fn a_file_that_changes_during_the_build_is_named() {
    let site = site();
    let first = site.build().digest();
    let changes: [(&str, &dyn Fn()); 3] = [
        ("index.html", &|| fs::write(site.path("app/index.html"), "<h1>changed</h1>\n").expect("a file")),
        ("new", &|| fs::write(site.path("app/new"), "new").expect("a file")),
        ("new", &|| fs::remove_file(site.path("app/new")).expect("it is there")),
    ];
    for (name, change) in changes {
        let mut done = false;
        let outcome = site.build_job(&site.job(), |event| {
            if matches!(event, Event::Output { .. }) && !std::mem::replace(&mut done, true) {
                change();
            }
        });
        let error = outcome.result.expect_err("a refusal");
        assert_eq!(error.id(), "source.changed");
        assert_eq!(error.to_string(), format!("`{name}` changed while it was built"));
        let layout = Layout::verified(&site.path("image"));
        assert_eq!(layout.images.values().collect::<Vec<_>>(), [&first], "the old image stays");
    }
}

/// BLD-06: what one buildpack writes into the app is there for all later ones,
/// which cannot change it without a grant, and the source stays as it was.
#[test]
fn what_a_buildpack_writes_into_the_app_is_seen_by_later_ones() {
    let mut site = Site::new();
    site.buildpack("writer", &guest("app-note"), "[grants]\napp-write = true\n");
    site.buildpack("reader", &guest("app-note"), "");
    let outcome = site.build();
    outcome.digest();
    assert_eq!(
        outcome.lines(),
        ["read: nothing", "write: done", "read: written by another", "write: refused: ReadOnlyFilesystem"]
    );
    assert!(!site.path("app/note").exists(), "the source is never written");
    let layers = Layout::verified(&site.path("image")).layers();
    let lines: Vec<String> = layers.into_iter().flat_map(|layer| tar_list(&layer)).collect();
    assert!(lines.iter().any(|line| line.ends_with(" /workspace/note")), "{lines:?}");
}
