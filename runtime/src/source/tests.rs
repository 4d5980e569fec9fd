use super::dockerignore::{IGNORE_FILE, Ignore, MAX_IGNORE_PATTERNS};
use super::recheck::Directories;
use super::*;
use crate::cnb::project_toml::FileChoice;
use crate::fault::Diagnose as _;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::time::SystemTime;

fn app(files: &[&str]) -> tempfile::TempDir {
    let temp = tempfile::tempdir().unwrap();
    for name in files {
        let path = temp.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, name).unwrap();
    }
    temp
}

fn scan(path: &Path) -> Result<Source, SourceError> {
    Source::scan(path, &Selection::default(), &Cancel::default())
}

fn hidden(source: &Source) -> Vec<&str> {
    source.hidden.iter().map(|path| path.to_str().unwrap()).collect()
}

#[test]
fn what_a_build_writes_into_the_app_takes_no_part() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().canonicalize().unwrap();
    std::fs::create_dir(root.join("out")).unwrap();
    std::fs::write(root.join("out/index.json"), "{}").unwrap();
    std::fs::write(root.join(".dockerignore"), "!out\n").unwrap();
    let excluded = vec![root.join("out"), "/elsewhere".into()];
    let source =
        Source::scan(&root, &Selection { excluded, ..Selection::default() }, &Cancel::default()).unwrap();
    assert!(source.hidden.contains(Path::new("out")));
    std::fs::write(root.join("out/more"), "x").unwrap();
    source.recheck(&Cancel::default()).unwrap();
}

#[test]
fn git_is_hidden_wherever_it_stands() {
    let temp = app(&["index.html", ".git/config", "sub/.git/config", "sub/.gitignore"]);
    let source = scan(temp.path()).unwrap();
    assert_eq!(hidden(&source), [".git", "sub/.git"]);
    assert_eq!((source.entries, source.bytes), (3, 10 + 14));
    let included = app(&[".git/config"]);
    std::fs::write(included.path().join(IGNORE_FILE), "!.git\n!.git/config\n").unwrap();
    assert_eq!(hidden(&scan(included.path()).unwrap()), [".git"]);
}

#[test]
fn patterns_of_the_ignore_file() {
    for (patterns, path, excluded) in [
        ("a", "a", true),
        ("a", "a/b", true),
        ("a", "b/a", false),
        ("/a/", "a", true),
        ("./a//b", "a/b", true),
        ("a/../b", "b", true),
        ("*", "a", true),
        ("*.md", "a.md", true),
        ("*.md", "b/a.md", false),
        ("*/a", "b/a", true),
        ("*/a", "c/b/a", false),
        ("**/a", "a", true),
        ("**/a", "c/b/a", true),
        ("**/*.md", "c/b/a.md", true),
        ("a/**", "a/b/c", true),
        ("a/**/d", "a/d", true),
        ("a/**/d", "a/b/c/d", true),
        ("a/**/d", "a/bd", false),
        ("**", "a/b", true),
        ("a**c", "a/b/c", true),
        ("a?c", "abc", true),
        ("a?c", "aäc", true),
        ("a?c", "a/c", false),
        ("a[b-d]e", "ace", true),
        ("a[b-d]e", "aee", false),
        ("a[^b]c", "abc", false),
        ("a[^b]c", "a/c", false),
        ("a[^b]c", "adc", true),
        ("a[.-0]c", "a/c", false),
        ("a[.-0]c", "a.c", true),
        ("a\\*c", "a*c", true),
        ("a\\*c", "abc", false),
        ("a.c", "abc", false),
        ("a+(b)", "a+(b)", true),
        ("{a,b}", "a", false),
        ("# a\n\na ", "a", true),
        (" # a", "# a", true),
        (".\n./", "a", false),
        ("a\n!a", "a", false),
        ("!a\na", "a", true),
        ("*\n!a", "a", false),
        ("*\n!a/b", "a/b", false),
        ("*\n!a/b", "a/c", true),
        ("a\n!a/b\na/b/c", "a/b/c", true),
        ("\u{feff}a", "a", true),
        ("A", "a", false),
    ] {
        let ignore = Ignore::parse(patterns).unwrap();
        let mut matched = None;
        let mut partial = PathBuf::new();
        for part in Path::new(path) {
            partial.push(part);
            matched = Some(ignore.matches(&partial, matched.as_deref()));
        }
        assert_eq!(ignore.excludes(&matched.unwrap()), excluded, "{patterns:?} on {path:?}");
    }
}

#[test]
fn a_file_wanted_below_an_excluded_directory_is_there() {
    let temp = app(&["a/keep/x", "a/drop", "b/y", "c"]);
    std::fs::write(temp.path().join(IGNORE_FILE), "*\n!a/keep\n!c\n").unwrap();
    let source = scan(temp.path()).unwrap();
    assert_eq!(hidden(&source), [IGNORE_FILE, "a/drop", "b"]);
}

#[test]
fn bad_ignore_files_are_errors_with_their_line() {
    for (text, line) in [("a\n[", 2), ("a\n\n[]", 3), ("..", 1), ("!", 1), ("a\\", 1), ("[b-a]", 1)] {
        let error = Ignore::parse(text).unwrap_err();
        assert!(error.to_string().contains(&format!("in line {line}:")), "{text:?}: {error}");
    }
    let temp = app(&["x"]);
    symlink("/etc/passwd", temp.path().join(IGNORE_FILE)).unwrap();
    assert_eq!(scan(temp.path()).unwrap_err().id(), "source.bad_ignore_file");
}

/// I4: a pattern that takes backtracking matchers forever.
#[test]
fn i4_hostile_patterns_cost_linear_time() {
    let ignore = Ignore::parse(&format!("{}b\n{}b\n", "*a".repeat(40), "**a".repeat(40))).unwrap();
    let path = PathBuf::from("a".repeat(250));
    let start = std::time::Instant::now();
    assert!(!ignore.excludes(&ignore.matches(&path, None)));
    assert!(start.elapsed() < std::time::Duration::from_millis(100), "{:?}", start.elapsed());
    let many = "x*y?z[a-z]\n".repeat(MAX_IGNORE_PATTERNS + 1);
    assert!(Ignore::parse(&many).is_err());
}

/// I1: the loop ends, and nothing outside is looked at.
#[test]
fn i1_links_are_kept_and_never_followed() {
    let temp = app(&["file"]);
    for (name, target) in [
        ("absolute", "/etc/passwd"),
        ("directory", "/etc"),
        ("up", "../../../etc"),
        ("self", "self"),
        ("here", "."),
        ("dangling", "nowhere"),
    ] {
        symlink(target, temp.path().join(name)).unwrap();
    }
    let source = scan(temp.path()).unwrap();
    assert_eq!((source.entries, source.bytes), (7, 4));
    let copy = tempfile::tempdir().unwrap();
    source.copy_to(copy.path(), &Cancel::default()).unwrap();
    assert_eq!(std::fs::read_link(copy.path().join("up")).unwrap(), Path::new("../../../etc"));
    assert_eq!(std::fs::read_link(copy.path().join("here")).unwrap(), Path::new("."));
}

#[test]
fn i2_bad_names_are_one_error_that_lists_ten() {
    let temp = app(&["good"]);
    for n in 0..11 {
        std::fs::write(temp.path().join(format!("new\nline{n:02}")), "").unwrap();
    }
    std::fs::write(temp.path().join(OsStr::from_bytes(b"latin\xe4")), "").unwrap();
    let error = scan(temp.path()).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("12 names can not be used: `latin\\xe4`, `new\\nline00`"), "{text}");
    assert_eq!(text.matches('`').count(), 20);
    assert!(!text.contains('\n'));
    // Left out, they do no harm.
    std::fs::write(temp.path().join(IGNORE_FILE), "new*\nlatin*\n").unwrap();
    scan(temp.path()).unwrap();
}

#[test]
fn special_files_are_refused_and_sockets_left_out() {
    let temp = app(&["file"]);
    let _listener = UnixListener::bind(temp.path().join("socket")).unwrap();
    let source = scan(temp.path()).unwrap();
    assert_eq!(hidden(&source), ["socket"]);
    assert_eq!(source.warnings, ["`socket` is a socket and is left out"]);
    let fifo = temp.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RWXU, 0).unwrap();
    let error = scan(temp.path()).unwrap_err();
    assert_eq!(error.id(), "source.special_file");
    assert_eq!(error.to_string(), "`pipe` is a FIFO, which cannot be part of an image");
}

#[test]
fn i3_every_change_is_noticed_and_named() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 6] = [
        ("b/file", |root| std::fs::write(root.join("b/file"), "other.").unwrap()),
        ("b/file", |root| {
            // Same contents, another file.
            std::fs::copy(root.join("b/file"), root.join(".git")).unwrap();
            std::fs::rename(root.join(".git"), root.join("b/file")).unwrap();
        }),
        ("c", |root| std::fs::remove_file(root.join("c")).unwrap()),
        ("a", |root| std::fs::write(root.join("a"), "").unwrap()),
        ("z", |root| std::fs::write(root.join("z"), "").unwrap()),
        ("c", |root| set_mode(&root.join("c"), 0o755).unwrap()),
    ];
    for (index, (name, change)) in changes.iter().enumerate() {
        let temp = app(&["b/file", "c"]);
        let source = scan(temp.path()).unwrap();
        source.recheck(&Cancel::default()).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        change(temp.path());
        let error = source.recheck(&Cancel::default()).unwrap_err();
        assert_eq!(error.id(), "source.changed");
        assert_eq!(error.to_string(), format!("`{name}` changed while it was built"), "change {index}");
    }
}

#[test]
fn i3_a_hidden_file_may_come_and_go() {
    let temp = app(&["b/file", ".git/index"]);
    let source = scan(temp.path()).unwrap();
    std::fs::write(temp.path().join(".git/new"), "").unwrap();
    std::fs::write(temp.path().join("b/.git"), "").unwrap();
    source.recheck(&Cancel::default()).unwrap();
}

#[test]
fn readable_by_others_or_not() {
    let temp = app(&["a/file"]);
    set_mode(temp.path(), 0o755).unwrap();
    assert!(scan(temp.path()).unwrap().world_readable);
    for (path, mode) in [("a/file", 0o600), ("a", 0o750), ("", 0o700), ("a", 0o754)] {
        let before = std::fs::metadata(temp.path().join(path)).unwrap().mode() & 0o7777;
        set_mode(&temp.path().join(path), mode).unwrap();
        assert!(!scan(temp.path()).unwrap().world_readable, "{path} {mode:o}");
        set_mode(&temp.path().join(path), before).unwrap();
    }
}

#[test]
fn a_copy_has_the_modes_of_an_image_and_no_hidden_file() {
    let temp = app(&["bin/run", "secret", ".git/config"]);
    set_mode(&temp.path().join("bin/run"), 0o710).unwrap();
    set_mode(&temp.path().join("bin"), 0o700).unwrap();
    set_mode(&temp.path().join("secret"), 0o600).unwrap();
    let source = scan(temp.path()).unwrap();
    let copy = tempfile::tempdir().unwrap();
    source.copy_to(copy.path(), &Cancel::default()).unwrap();
    for (path, mode) in [("bin", 0o755), ("bin/run", 0o755), ("secret", 0o644)] {
        let found = std::fs::metadata(copy.path().join(path)).unwrap().mode() & 0o7777;
        assert_eq!(found, mode, "{path}");
    }
    assert_eq!(std::fs::read(copy.path().join("bin/run")).unwrap(), b"bin/run");
    assert!(!copy.path().join(".git").exists());
}

#[test]
fn a_missing_directory_and_a_file_have_a_hint() {
    let temp = app(&["file"]);
    for name in ["missing", "file"] {
        let error = scan(&temp.path().join(name)).unwrap_err();
        assert_eq!(error.id(), "source.missing");
        assert!(error.hint().unwrap().contains("--path"));
    }
}

/// Long enough ago for times to tell, as in a directory that nobody has just made.
fn settle(source: &mut Source) {
    source.directories.are_settled = true;
}

/// I3: the quick look notices what the long one does, and where it cannot tell it does not decide.
#[test]
fn i3_a_quick_look_says_untouched_only_of_what_is() {
    type Change = fn(&Path);
    let cases: [(bool, Change); 9] = [
        (true, |_| ()),
        (true, |root| std::fs::write(root.join(".git/new"), "").unwrap()),
        (false, |root| std::fs::write(root.join("b/new"), "").unwrap()),
        (false, |root| std::fs::write(root.join("new"), "").unwrap()),
        (false, |root| std::fs::write(root.join("b/file"), "other!").unwrap()),
        (false, |root| std::fs::remove_file(root.join("b/file")).unwrap()),
        (false, |root| set_mode(&root.join("b/file"), 0o755).unwrap()),
        (false, |root| std::fs::write(root.join(IGNORE_FILE), "c\n").unwrap()),
        (false, |root| {
            std::fs::rename(root.join("b"), root.join(".git/b")).unwrap();
            symlink(".git/b", root.join("b")).unwrap();
        }),
    ];
    for (index, (expected, change)) in cases.into_iter().enumerate() {
        let temp = app(&["b/file", "c", ".git/index"]);
        std::fs::write(temp.path().join(IGNORE_FILE), ".git\n").unwrap();
        let mut source = scan(temp.path()).unwrap();
        assert!(!source.is_untouched(&Cancel::default()).unwrap(), "directories were just made");
        settle(&mut source);
        std::thread::sleep(std::time::Duration::from_millis(20));
        change(temp.path());
        assert_eq!(source.is_untouched(&Cancel::default()).unwrap(), expected, "change {index}");
    }
}

#[test]
fn directories_settle_when_nobody_touches_them() {
    let temp = app(&["b/file"]);
    let now = SystemTime::now();
    let source = scan(temp.path()).unwrap();
    let at = |seconds| {
        let later = now + std::time::Duration::from_secs(seconds);
        Directories::new(source.directories.prints.clone(), later).are_settled
    };
    assert_eq!((at(0), at(2), at(60)), (false, false, true));
}

#[test]
fn a_cancelled_scan_and_copy_end() {
    let temp = app(&["file"]);
    let source = scan(temp.path()).unwrap();
    let cancel = Cancel::default();
    cancel.cancel();
    assert_eq!(
        Source::scan(temp.path(), &Selection::default(), &cancel).unwrap_err().id(),
        "build.cancelled"
    );
    assert_eq!(source.recheck(&cancel).unwrap_err().id(), "build.cancelled");
    let copy = tempfile::tempdir().unwrap();
    assert_eq!(source.copy_to(copy.path(), &cancel).unwrap_err().id(), "build.cancelled");
    assert_eq!(std::fs::read_dir(copy.path()).unwrap().count(), 0);
}

fn selected(path: &Path, files: FileChoice) -> Result<Source, SourceError> {
    Source::scan(path, &Selection { files: Some(files), ..Selection::default() }, &Cancel::default())
}

fn list(patterns: &[&str]) -> Vec<String> {
    patterns.iter().map(|&pattern| pattern.to_owned()).collect()
}

#[test]
fn prj_04_include_keeps_only_what_matches_and_exclude_drops_it() {
    let temp = app(&["src/main", "src/tmp/x", "docs/a", "docs/b/c", "README", "deep/er/keep", "deep/er/not"]);
    for (files, expected) in [
        (FileChoice::All, vec![]),
        (FileChoice::Exclude(list(&["docs", "tmp/"])), vec!["docs", "src/tmp"]),
        (FileChoice::Exclude(list(&["/*", "!/src"])), vec!["README", "deep", "docs"]),
        // As in git: below a directory that is left out nothing comes back.
        (FileChoice::Exclude(list(&["docs", "!docs/a"])), vec!["docs"]),
        (FileChoice::Include(list(&["/src"])), vec!["README", "deep", "docs"]),
        (FileChoice::Include(list(&["keep", "a"])), vec!["README", "deep/er/not", "docs/b", "src"]),
        (FileChoice::Include(list(&["src", "!src/tmp"])), vec!["README", "deep", "docs", "src/tmp"]),
        (FileChoice::Include(list(&["**/c"])), vec!["README", "deep", "docs/a", "src"]),
        (FileChoice::Include(vec![]), vec!["README", "deep", "docs", "src"]),
    ] {
        let source = selected(temp.path(), files.clone()).unwrap();
        assert_eq!(hidden(&source), expected, "{files:?}");
        let copy = tempfile::tempdir().unwrap();
        source.copy_to(copy.path(), &Cancel::default()).unwrap();
        let copied = scan(copy.path()).unwrap();
        assert_eq!((copied.entries, copied.bytes), (source.entries, source.bytes), "{files:?}");
    }
    let error = selected(temp.path(), FileChoice::Exclude(list(&["a["]))).unwrap_err();
    assert_eq!(error.id(), "source.bad_pattern");
}

#[test]
fn a_dockerignore_beside_a_project_file_says_nothing_and_is_warned_of() {
    let temp = app(&["a", "b"]);
    std::fs::write(temp.path().join(IGNORE_FILE), "a\n").unwrap();
    let source = selected(temp.path(), FileChoice::All).unwrap();
    assert_eq!(hidden(&source), [""; 0]);
    assert!(source.warnings[0].starts_with("`.dockerignore` says nothing beside `project.toml`"));
    assert_eq!(hidden(&scan(temp.path()).unwrap()), ["a"]);
}

#[test]
fn git_takes_part_only_when_it_is_asked_for_by_name() {
    let temp = app(&["a", ".git/config", "sub/.git/config"]);
    let source = |files| hidden(&selected(temp.path(), files).unwrap()).join(" ");
    assert_eq!(source(FileChoice::Include(list(&["*"]))), ".git sub/.git");
    assert_eq!(source(FileChoice::Exclude(list(&["!.git"]))), ".git sub/.git");
    assert_eq!(source(FileChoice::Include(list(&["/a", "/.git"]))), "sub");
    assert_eq!(source(FileChoice::Include(list(&["a", ".git/**"]))), "sub");
    let all = Selection { with_git: true, ..Selection::default() };
    assert_eq!(hidden(&Source::scan(temp.path(), &all, &Cancel::default()).unwrap()), [""; 0]);
}

#[test]
fn files_that_look_like_keys_are_one_warning() {
    let temp = app(&["a", "deploy/.env", "left/.env", ".git/id_rsa"]);
    let warnings = |source: Source| source.warnings;
    let left = selected(temp.path(), FileChoice::Exclude(list(&["left"]))).unwrap();
    assert_eq!(
        warnings(left),
        ["`deploy/.env` looks like a key or a credential and would get into the image; leave out what \
          has to stay private, by `exclude` in `project.toml` or by `.dockerignore`"]
    );
    for number in 0..12 {
        std::fs::create_dir(temp.path().join(format!("k{number:02}"))).unwrap();
        std::fs::write(temp.path().join(format!("k{number:02}/id_rsa")), "x").unwrap();
    }
    let all = warnings(scan(temp.path()).unwrap());
    assert_eq!(all.len(), 1);
    assert!(all[0].starts_with("`deploy/.env`, `k00/id_rsa`, "), "{all:?}");
    assert!(all[0].contains("`k08/id_rsa` and 4 more look like keys or credentials"), "{all:?}");
}

/// I3: what a list of what to keep would keep comes in late, into a directory that had nothing of it.
#[test]
fn i3_a_late_file_that_is_wanted_is_noticed() {
    let temp = app(&["keep", "other/x"]);
    let source = selected(temp.path(), FileChoice::Include(list(&["keep"]))).unwrap();
    std::fs::write(temp.path().join("other/y"), "").unwrap();
    source.recheck(&Cancel::default()).unwrap();
    std::fs::write(temp.path().join("other/keep"), "").unwrap();
    let error = source.recheck(&Cancel::default()).unwrap_err();
    assert_eq!(error.to_string(), "`other` changed while it was built");
}
