use std::fs;
use std::io::{Cursor, Read};
use std::os::unix::fs::MetadataExt as _;

use super::*;
use crate::fault::Diagnose as _;
use crate::inspection::testing::{Entry, diff_id, opener, tar};

fn read(tar: &[u8]) -> Result<Vec<SbomDocument>, InspectionError> {
    read_sboms(&diff_id(tar), "/layers", &opener(&[tar.to_vec()]), &Cancel::default())
}

#[test]
fn documents_are_read_and_written_under_their_paths() {
    let tar = tar(&[
        (b"/layers", Entry::Directory),
        (b"/layers/sbom", Entry::Directory),
        (b"/layers/sbom/launch/acme_node/sbom.cdx.json", Entry::File(b"{\"cdx\":1}")),
        (b"layers/sbom/launch/acme_node/node/sbom.spdx.json", Entry::File(b"{}")),
        (b"layers/sbom/launch/sbom.legacy.json", Entry::File(b"[]")),
        (b"layers/sbom/launch/acme_node/sbom.syft.json", Entry::File(b"")),
    ]);
    let documents = read(&tar).unwrap();
    let formats: Vec<_> =
        documents.iter().map(|document| (document.path.as_str(), document.format)).collect();
    assert_eq!(
        formats,
        [
            ("layers/sbom/launch/acme_node/node/sbom.spdx.json", Some(SbomFormat::Spdx)),
            ("layers/sbom/launch/acme_node/sbom.cdx.json", Some(SbomFormat::CycloneDx)),
            ("layers/sbom/launch/acme_node/sbom.syft.json", Some(SbomFormat::Syft)),
            ("layers/sbom/launch/sbom.legacy.json", None),
        ]
    );
    let temp = tempfile::tempdir().unwrap();
    let directory = temp.path().join("new/place");
    for _ in 0..2 {
        let written = write_sboms(&documents, &directory).unwrap();
        assert_eq!(written[1], directory.join("layers/sbom/launch/acme_node/sbom.cdx.json"));
        assert_eq!(fs::read_to_string(&written[1]).unwrap(), "{\"cdx\":1}");
        // The tar says 4755.
        assert_eq!(fs::metadata(&written[1]).unwrap().mode() & 0o7133, 0);
    }
}

/// R7, R9: nothing but documents, and those where they belong.
#[test]
fn r9_what_leads_elsewhere_is_passed_over() {
    let tar = tar(&[
        (b"layers/sbom", Entry::Symlink("/etc")),
        (b"layers/sbom/../../up.json", Entry::File(b"x")),
        (b"../layers/sbom/up.json", Entry::File(b"x")),
        (b"/etc/cron.json", Entry::File(b"x")),
        (b"layers/sbom/launch/.git/hooks/pre-commit", Entry::File(b"x")),
        (b"layers/sbom/launch/x/link.json", Entry::Symlink("/etc/passwd")),
        (b"layers/sbom/launch/x/hard.json", Entry::HardLink("etc/passwd")),
        (b"layers/sbom/launch/x/null.json", Entry::Device),
        (b"layers/sbom/launch/\x1b[31m/sbom.cdx.json", Entry::File(b"x")),
        (b"layers/sbom/launch/\xff/sbom.cdx.json", Entry::File(b"x")),
        (b"layers/sbom/1/2/3/4/5/6/7/8/9/0/1/2/sbom.cdx.json", Entry::File(b"x")),
        (b"layers/sbom/launch/good/sbom.cdx.json", Entry::File(b"good")),
    ]);
    let paths: Vec<String> = read(&tar).unwrap().into_iter().map(|document| document.path).collect();
    assert_eq!(paths, ["layers/sbom/launch/good/sbom.cdx.json"]);
}

/// R7: a link that is there is neither followed nor written through.
#[test]
fn r7_links_in_the_directory_lead_nowhere() {
    let temp = tempfile::tempdir().unwrap();
    let (victim, directory) = (temp.path().join("victim"), temp.path().join("out"));
    fs::create_dir_all(victim.join("launch")).unwrap();
    fs::create_dir_all(directory.join("layers")).unwrap();
    std::os::unix::fs::symlink(&victim, directory.join("layers/sbom")).unwrap();
    let document = SbomDocument {
        path: "layers/sbom/launch/sbom.cdx.json".to_owned(),
        format: Some(SbomFormat::CycloneDx),
        content: b"new".to_vec(),
    };
    let error = write_sboms(std::slice::from_ref(&document), &directory).unwrap_err();
    assert_eq!(error.id(), "image.not_written");
    assert_eq!(fs::read_dir(victim.join("launch")).unwrap().count(), 0);

    fs::remove_file(directory.join("layers/sbom")).unwrap();
    fs::create_dir_all(directory.join("layers/sbom/launch")).unwrap();
    fs::write(victim.join("file"), "old").unwrap();
    let link = directory.join("layers/sbom/launch/sbom.cdx.json");
    std::os::unix::fs::symlink(victim.join("file"), &link).unwrap();
    write_sboms(&[document], &directory).unwrap();
    assert_eq!(fs::read_to_string(victim.join("file")).unwrap(), "old");
    assert_eq!(fs::read_to_string(&link).unwrap(), "new");
}

/// R8: the bytes are those that the configuration names, or there is nothing.
#[test]
fn r8_a_layer_with_other_bytes_gives_no_documents() {
    let tar = tar(&[(b"layers/sbom/launch/a/sbom.cdx.json", Entry::File(b"evil"))]);
    let wanted = diff_id(b"another");
    let open = move |_: &DiffId| -> Result<Box<dyn Read>, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Box::new(Cursor::new(tar.clone())))
    };
    let error = read_sboms(&wanted, "/layers", &open, &Cancel::default()).unwrap_err();
    assert_eq!(error.id(), "image.diffid_mismatch");
}

/// R9: no more is held in memory than somebody would write.
#[test]
fn r9_endless_documents_end() {
    let chunk = vec![b' '; 50 << 20];
    let tar = tar(&[
        (b"layers/sbom/launch/a/sbom.cdx.json", Entry::File(&chunk)),
        (b"layers/sbom/launch/b/sbom.cdx.json", Entry::File(&chunk)),
        (b"layers/sbom/launch/c/sbom.cdx.json", Entry::File(&chunk)),
    ]);
    assert_eq!(read(&tar).unwrap_err().id(), "image.sbom_too_large");
}

/// As the reference lifecycle was told to have them elsewhere.
#[test]
fn layers_may_be_elsewhere_in_an_image() {
    let tar = tar(&[
        (b"/cnb/my/layers/sbom/launch/a/sbom.cdx.json", Entry::File(b"{}")),
        (b"/layers/sbom/launch/b/sbom.cdx.json", Entry::File(b"{}")),
    ]);
    let open = opener(std::slice::from_ref(&tar));
    let documents = read_sboms(&diff_id(&tar), "/cnb/my/layers", &open, &Cancel::default()).unwrap();
    let paths: Vec<_> = documents.iter().map(|document| document.path.as_str()).collect();
    assert_eq!(paths, ["layers/sbom/launch/a/sbom.cdx.json"]);
}
