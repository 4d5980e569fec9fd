use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::site::{Ended, SAMPLE, Site};

/// What is no name and no place, whatever it is given to.
const ODD: &[&[u8]] = &[
    b"",
    b" ",
    b"-",
    b"--",
    b"-x",
    b"--help-me",
    b"a\nb",
    b"a\x1b[31mb",
    b"a\x07b",
    b"\xff\xfe",
    b"/",
    b"//",
    b"a//b",
    b"A/B",
    b"a@b",
    b"a@sha256:00",
    b"a@sha256:../../x",
    b"a@md5:00000000000000000000000000000000",
    b"oci:",
    b"oci-archive:",
    b"docker-archive::x",
    b"http://127.0.0.1:1/x",
    b"https://x",
    b"127.0.0.1:99999/x",
    b"localhost:1/a:",
    b"user:pw@127.0.0.1:1/x",
    b"127.0.0.1:1/x?y#z",
    b"127.0.0.1:1/x%2f..",
    "\u{e9}/\u{fc}".as_bytes(),
    "\u{202e}a".as_bytes(),
    b"%s%n",
    b"$(touch pwned)",
    b"`id`",
    b"a;b",
    b"*",
    b"~/x",
];

/// Command lines, and where in them the odd text goes.
const FORMS: &[&[&str]] = &[
    &["build", "--path", SAMPLE, "--", "ODD"],
    &["build", "--path", SAMPLE, "--tag", "ODD", "app"],
    &["build", "--path", SAMPLE, "--output", "ODD", "app"],
    &["build", "--path", SAMPLE, "--run-image", "ODD", "app"],
    &["build", "--path", SAMPLE, "--previous-image", "ODD", "app"],
    &["build", "--path", SAMPLE, "--target", "ODD", "app"],
    &["build", "--path", SAMPLE, "--owner", "ODD", "app"],
    &["build", "--path", SAMPLE, "--publish", "--", "ODD"],
    &["inspect", "--", "ODD"],
    &["sbom", "list", "--", "ODD"],
    &["sbom", "download", "--", "ODD"],
    &["rebase", "--", "ODD"],
    &["rebase", "oci:none", "--run-image", "ODD"],
    &["rebase", "oci:none", "--output", "ODD"],
];

/// I8: a text that is no name ends in an error that can be shown, before anything is written.
#[test]
fn i8_odd_names_are_refused_by_every_command() {
    let site = Site::new();
    for form in FORMS {
        for odd in ODD {
            let here = tempfile::tempdir_in(site.path()).unwrap();
            let odd = OsStr::from_bytes(odd);
            let arguments: Vec<OsString> = form
                .iter()
                .map(|argument| if *argument == "ODD" { odd.to_owned() } else { argument.into() })
                .collect();
            let ended: Ended =
                site.command(&[]).args(&arguments).current_dir(here.path()).output().unwrap().into();
            let shown = format!("{arguments:?}: {:?}\n{}\n{}", ended.code, ended.out, ended.err);
            assert!(matches!(ended.code, Some(2 | 3)), "{shown}");
            assert!(ended.err.starts_with("error"), "{shown}");
            assert!(ended.code == Some(2) || ended.err.contains("hint: "), "{shown}");
            let is_odd =
                |character: char| character.is_control() && character != '\n' || character == '\u{202e}';
            assert!(!ended.err.contains(is_odd) && !ended.out.contains(is_odd), "{shown}");
            assert_eq!(here.path().read_dir().unwrap().count(), 0, "{shown}");
        }
    }
}

fn build(site: &Site, output: &str) -> Command {
    site.command(&["build", "--path", SAMPLE, "--output", output, "demo/website"])
}

/// What skopeo says of an archive's image.
fn digest(site: &Site, archive: &str) -> String {
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["inspect", "--format", "{{.Digest}}", archive]).current_dir(site.path());
    Ended::from(skopeo.output().unwrap()).with(0).out.trim().to_owned()
}

#[test]
fn an_archive_can_be_piped_on() {
    let site = Site::new();
    for kind in ["docker-archive", "oci-archive"] {
        let file = format!("{kind}.tar");
        build(&site, &format!("{kind}:{file}")).status().unwrap();
        let expected = std::fs::read(site.path().join(&file)).unwrap();
        let piped = build(&site, &format!("{kind}:/dev/stdout")).output().unwrap();
        let said = String::from_utf8_lossy(&piped.stderr).into_owned();
        assert!(piped.status.success(), "{said}");
        assert!(piped.stdout == expected, "{kind}: other bytes than in a file\n{said}");
        assert!(said.contains("Successfully built image demo/website:latest"), "{said}");
        assert!(!said.contains("podman run") && !said.contains("docker load"), "{said}");
    }
    // What a file has already stays, as whoever says `>>` expects.
    let all = site.file("all", "kept\n");
    let end = File::options().append(true).open(&all).unwrap();
    assert!(build(&site, "docker-archive:/dev/stdout").stdout(end).status().unwrap().success());
    let archive = std::fs::read(site.path().join("docker-archive.tar")).unwrap();
    assert!(std::fs::read(&all).unwrap() == [b"kept\n", &archive[..]].concat());
    // A pipe with a name, and a build beside its reader.
    Command::new("mkfifo").arg("pipe").current_dir(site.path()).status().unwrap();
    let mut builder = build(&site, "docker-archive:pipe").stdout(Stdio::null()).spawn().unwrap();
    let mut bytes = Vec::new();
    File::open(site.path().join("pipe")).unwrap().read_to_end(&mut bytes).unwrap();
    assert!(builder.wait().unwrap().success());
    assert!(bytes == std::fs::read(site.path().join("docker-archive.tar")).unwrap());
    assert!(site.path().join("pipe").metadata().unwrap().file_type().is_fifo(), "it was replaced");
}

#[test]
fn what_an_archive_cannot_be_read_from_is_said() {
    let site = Site::new();
    Command::new("mkfifo").arg("pipe").current_dir(site.path()).status().unwrap();
    for place in ["docker-archive:pipe", "oci-archive:pipe", "oci-archive:/dev/stdin"] {
        for arguments in
            [&["inspect", place][..], &["rebase", place], &["build", "--run-image", place, "app"]]
        {
            site.run(arguments)
                .with(3)
                .complains(&["no file that can be read twice", "hint: write the archive"]);
        }
    }
}

#[test]
fn what_a_link_leads_to_is_written_and_the_link_stays() {
    let site = Site::new();
    site.file("elsewhere/app.tar", "old");
    std::os::unix::fs::symlink("elsewhere/app.tar", site.path().join("app.tar")).unwrap();
    assert!(build(&site, "oci-archive:app.tar").status().unwrap().success());
    assert_eq!(std::fs::read_link(site.path().join("app.tar")).unwrap(), Path::new("elsewhere/app.tar"));
    assert!(digest(&site, "oci-archive:elsewhere/app.tar").starts_with("sha256:"));
    assert_eq!(site.path().join("elsewhere").read_dir().unwrap().count(), 1, "something was left beside it");
    // The same where nothing is there yet.
    let link = site.path().join("new.tar");
    std::os::unix::fs::symlink("elsewhere/new.tar", &link).unwrap();
    assert!(build(&site, "oci-archive:new.tar").status().unwrap().success());
    assert_eq!(std::fs::read_link(&link).unwrap(), Path::new("elsewhere/new.tar"));
    assert_eq!(digest(&site, "oci-archive:elsewhere/new.tar"), digest(&site, "oci-archive:app.tar"));
}

#[test]
fn the_path_of_an_image_cannot_steer_the_terminal() {
    let site = Site::new();
    let ended: Ended = build(&site, "oci:a\u{1b}[31mb").output().unwrap().into();
    let said = ended.with(0).out;
    assert!(said.contains("oci:a\\u{1b}[31mb") && !said.contains('\u{1b}'), "{said}");
}
