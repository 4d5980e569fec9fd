//! Disk space, entries, and every way out of the directories a guest is given.

use std::path::Path;

use super::{no_litter, shows, tree};
use crate::support::{Outcome, Site};

const MIB: u64 = 1024 * 1024;
/// What no guest may ever see.
const CANARY: &str = "canary-7f3a9d1c";

#[test]
fn g7_bytes_are_counted_exactly() {
    // Twice the key and a byte.
    let site = |limit| {
        let mut site = Site::new().guest("well-behaved").env("KEY", "12345678");
        site.policy.limits.disk_bytes = limit;
        site
    };
    site(17).build().succeeded();
    let refused = site(16);
    refused.build().failed_with(
        "guest.disk_limit",
        "buildpack `test/well-behaved@1.0.0` wrote too many bytes (limit 16 B, reached 17 B)",
    );
    assert!(no_litter(&refused));
    assert!(!refused.path("image/index.json").exists(), "nothing was published");
}

#[test]
fn g8_entries_are_counted_exactly() {
    // Four files and directories, in four layers.
    let site = |limit| {
        let mut site = Site::new().guest("well-behaved");
        site.policy.limits.disk_entries = limit;
        site
    };
    site(8).build().succeeded();
    let refused = site(7);
    refused.build().failed_with(
        "guest.inode_limit",
        "buildpack `test/well-behaved@1.0.0` made too many files (limit 7, reached 8)",
    );
    assert!(no_litter(&refused));
}

#[test]
fn g7_a_disk_cannot_be_filled() {
    let mut site = Site::new().guest("fill-disk").env("BYTES", "20000000");
    site.policy.limits.disk_bytes = 3 * MIB;
    let outcome = site.build();
    assert_eq!(outcome.succeeded().lines(), ["refused after 3145728 bytes: Uncategorized"]);
    assert!(no_litter(&site), "all space is back");

    let mut site = Site::new().guest("fill-disk").env("BYTES", "20000000").env("DIRECTORY", "/tmp");
    site.policy.limits.disk_bytes = 3 * MIB;
    assert_eq!(site.build().succeeded().lines(), ["refused after 3145728 bytes: Uncategorized"]);
}

#[test]
fn g7_a_sparse_file_costs_what_it_claims_to_be() {
    let site = Site::new().guest("sparse-file");
    let outcome = site.build();
    assert_eq!(
        outcome.succeeded().lines(),
        ["set_len: refused: QuotaExceeded", "write far out: refused: Uncategorized", "write: done"]
    );
    assert!(no_litter(&site));
}

#[test]
fn g7_a_deleted_file_counts_while_it_is_open() {
    let mut site = Site::new().guest("unlinked-file").env("BYTES", "20000000");
    site.policy.limits.disk_bytes = 3 * MIB;
    let outcome = site.build();
    assert_eq!(outcome.succeeded().lines(), ["refused after 3145728 bytes: Uncategorized"]);
}

#[test]
fn g7_what_is_deleted_does_not_count() {
    let mut site = Site::new().guest("write-delete").env("BYTES", "2097152").env("COUNT", "10");
    site.policy.limits.disk_bytes = 3 * MIB;
    site.policy.limits.disk_entries = 3;
    assert_eq!(site.build().succeeded().lines(), ["all rounds done"]);
}

#[test]
fn g8_files_are_counted() {
    let mut site = Site::new().guest("many-files").env("COUNT", "5000");
    site.policy.limits.disk_entries = 103;
    let outcome = site.build();
    // The layer, a directory, and a hundred and one files.
    assert_eq!(outcome.succeeded().lines(), ["refused after 101 files: QuotaExceeded"]);
    assert!(no_litter(&site));
}

#[test]
fn g8_deep_directories_are_refused_and_cleaned_up() {
    let site = Site::new().guest("deep-directories").env("COUNT", "3000");
    let outcome = site.build();
    let lines = outcome.lines();
    assert_eq!(lines[0], "one long path: refused: InvalidFilename");
    assert!(lines[1].starts_with("refused at depth 12"), "{lines:?}");
    outcome.succeeded();
    assert!(no_litter(&site));
}

#[test]
fn g8_names_of_others_are_refused_in_the_end() {
    let site = Site::new().guest("long-names");
    let outcome = site.build();
    let lines = outcome.lines();
    assert_eq!(
        lines[..3],
        [
            "name of 255 bytes: done",
            "name of 256 bytes: refused: InvalidFilename",
            "name of 65536 bytes: refused: InvalidFilename"
        ]
    );
    assert!(lines.contains(&"\"line\\nbreak\": done"), "{lines:?}");
    outcome.failed_with("export.reserved_name", "2 files would remove files from the image");
    assert!(no_litter(&site));
}

/// A file beside the app, and a path to it.
fn with_canary(site: &Site) -> String {
    let path = site.path("secret");
    std::fs::write(&path, CANARY).expect("a file");
    path.display().to_string()
}

#[track_caller]
fn nothing_leaked(site: &Site, outcome: &Outcome) {
    assert_eq!(shows(site, outcome, CANARY), [] as [String; 0]);
    assert_eq!(std::fs::read_to_string(site.path("secret")).expect("it is still there"), CANARY);
}

#[test]
fn g9_paths_lead_nowhere_but_the_mount_table() {
    let site = Site::new().guest("escape-path");
    let secret = with_canary(&site);
    let outside = site.path("");
    let before = tree(&site.path("buildpacks")) + &tree(&site.path("app"));
    let outcome = site.build();
    nothing_leaked(&site, &outcome);
    // What is done is a look at directories of the guest's own: made-up ones, or its mounts.
    for line in outcome.succeeded().lines().iter().filter(|line| line.ends_with(": done")) {
        let (what, path) = line.split_once(' ').expect("what and where");
        let inside = ["list", "stat"].contains(&what) || path.starts_with("/tmp/w");
        assert!(inside && !path.contains("etc") && !path.contains("proc"), "{line}");
    }
    assert_eq!(before, tree(&site.path("buildpacks")) + &tree(&site.path("app")));

    for path in [secret, outside.display().to_string(), format!("/../../..{}", site.path("secret").display())]
    {
        let outcome = {
            let mut again = Site::new().guest("escape-path").env("PATH_TO_TRY", &path);
            again.policy = site.policy.clone();
            again.build()
        };
        assert!(
            outcome.succeeded().lines().iter().all(|line| line.contains(": refused: ")),
            "{:?}",
            outcome.lines()
        );
    }
}

#[test]
fn g9_links_are_resolved_inside() {
    let site = Site::new().guest("escape-symlink");
    let secret = with_canary(&site);
    let site = site.env("PATH_TO_TRY", &secret);
    let outcome = site.build();
    nothing_leaked(&site, &outcome);
    let lines = outcome.succeeded().lines();
    assert!(lines.contains(&"root: link: done"), "the guest made links: {lines:?}");
    for line in lines.iter().filter(|line| line.ends_with(": done")) {
        assert!(!line.contains("read") && !line.contains("etc/hostname"), "{line}");
    }
    assert!(!Path::new("/w").exists());
}

#[test]
fn g9_moves_and_swaps_are_no_way_out() {
    let site = Site::new().guest("escape-rename");
    with_canary(&site);
    let directory = site.path("").display().to_string();
    std::fs::write(site.path("hostname"), CANARY).expect("a file");
    let site = site.env("DIRECTORY_TO_TRY", &directory).env("COUNT", "300");
    let outcome = site.build();
    nothing_leaked(&site, &outcome);
    let lines = outcome.succeeded().lines();
    assert!(lines[0].starts_with("up from a moved directory: refused: "), "{lines:?}");
    assert_eq!(lines[1], "escaped 0 times");
}

#[test]
fn g10_the_app_and_the_buildpack_cannot_be_changed() {
    let mut site = Site::new();
    let buildpack = site.buildpack("write-read-only", &crate::support::guest("write-read-only"), "");
    for root in [site.path("app"), buildpack.clone()] {
        std::fs::write(root.join("victim"), "victim").expect("a file");
        std::fs::create_dir(root.join("victims")).expect("a directory");
    }
    let before = tree(&site.path("app")) + &tree(&buildpack);
    let outcome = site.build();
    assert_eq!(before, tree(&site.path("app")) + &tree(&buildpack));
    let lines = outcome.succeeded().lines();
    assert_eq!(lines.len(), 32, "{lines:?}");
    for line in lines {
        assert!(line.contains(": refused: "), "{line}");
    }
}

#[test]
fn g12_the_host_follows_no_link_a_guest_left() {
    let site = Site::new().guest("plant-symlinks");
    let secret = with_canary(&site);
    let site = site.env("CANARY", &secret);
    let outcome = site.build();
    nothing_leaked(&site, &outcome);
    outcome.failed_with(
        "buildpack.bad_output",
        "buildpack `test/plant-symlinks@1.0.0` returned something invalid: layer `scratch`",
    );
    assert!(outcome.printed("scratch/env: done"), "{:?}", outcome.lines());
    assert!(outcome.printed("launch.toml: refused: "), "{:?}", outcome.lines());
    assert!(no_litter(&site));

    // A directory is what the host would write its own files into.
    let site = Site::new().guest("plant-symlinks");
    let directory = site.path("elsewhere");
    std::fs::create_dir(&directory).expect("a directory");
    let site = site.env("CANARY", &directory.display().to_string());
    site.build().failed_with("buildpack.bad_output", "layer `scratch`");
    assert_eq!(std::fs::read_dir(&directory).expect("a directory").count(), 0);
}

/// What the host made of a `peek` after `well-behaved`.
fn seen_by_the_next(paths: &str) -> (Site, Outcome) {
    let site = Site::new().guest("well-behaved").guest("peek").env("PATHS", paths);
    let outcome = site.build();
    outcome.succeeded();
    (site, outcome)
}

/// WSM-05
#[test]
fn layers_are_seen_by_later_guests_only_when_they_are_build_layers() {
    let (_, outcome) = seen_by_the_next("/layers");
    let lines: Vec<&str> = outcome.lines().into_iter().filter(|line| line.contains(" /")).collect();
    assert_eq!(
        lines,
        [
            "list /layers: done",
            "list /layers/test_well-behaved: done",
            "list /layers/test_well-behaved/tools: done",
            "list /layers/test_well-behaved/tools/env.build: done",
            "read /layers/test_well-behaved/tools/env.build/TOOLS.default: yes"
        ]
    );
}

/// WSM-05
#[test]
fn a_guest_sees_its_own_world_and_nothing_else() {
    let (site, outcome) = seen_by_the_next("/");
    let lines = outcome.lines();
    let top: std::collections::BTreeSet<&str> =
        lines.iter().filter_map(|line| line.split_once(" /")?.1.split(['/', ':']).next()).collect();
    assert_eq!(top.into_iter().collect::<Vec<_>>(), ["", "cnb", "layers", "platform", "tmp", "workspace"]);
    // The other buildpack's own files are not there, nor a path of the host.
    assert!(!outcome.printed("/cnb/buildpacks/test_well-behaved"), "{lines:?}");
    assert!(!outcome.printed(&site.path("").display().to_string()));
}

#[test]
fn g3_a_fifo_in_the_app_is_refused_at_once() {
    let site = Site::new().guest("well-behaved");
    let mode = rustix::fs::Mode::from_raw_mode(0o644);
    rustix::fs::mknodat(rustix::fs::CWD, site.path("app/pipe"), rustix::fs::FileType::Fifo, mode, 0)
        .expect("a FIFO");
    site.build().failed_with("source.special_file", "`pipe` is a FIFO, which cannot be part of an image");
}

#[test]
fn i1_links_of_the_app_are_links_of_the_image() {
    let site = Site::new().guest("peek").env("PATHS", "/workspace");
    let secret = with_canary(&site);
    for (name, target) in
        [("absolute", secret.as_str()), ("up", "../secret"), ("self", "self"), ("proc", "/proc/self/environ")]
    {
        std::os::unix::fs::symlink(target, site.path("app").join(name)).expect("a link");
    }
    let outcome = site.build();
    nothing_leaked(&site, &outcome);
    for name in ["absolute", "up", "self", "proc"] {
        assert!(
            outcome.succeeded().printed(&format!("see /workspace/{name}: refused: ")),
            "{:?}",
            outcome.lines()
        );
    }
}

/// As root, the worker's user cannot read such an app in place: it works on a copy.
#[test]
fn an_app_that_only_its_owner_can_read_is_built_all_the_same() {
    let site = Site::new().guest("peek").env("PATHS", "/workspace");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(site.path("app"), mode).expect("our own");
    let outcome = site.build();
    assert_eq!(outcome.succeeded().lines()[0], "list /workspace: done");
    assert!(outcome.printed("read /workspace/index.html: <h1>hello</h1>"), "{:?}", outcome.lines());
}
