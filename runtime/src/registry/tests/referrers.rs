//! Attachments of images.

use serde_json::json;

use super::fake::{Fake, OCI_INDEX};
use super::kit::{Bench, go, name, text};
use super::served::{Served, run};
use crate::fault::Diagnose as _;
use crate::http::test_server::ok;
use crate::network::NetworkSettings;
use crate::oci::digest::Digest;
use crate::oci::referrer::Attachment;

fn attachment(text: &str) -> Attachment {
    Attachment {
        artifact_type: "application/vnd.cyclonedx+json".to_owned(),
        name: format!("{text}.json"),
        annotations: [("io.example.kind".to_owned(), "sbom".to_owned())].into(),
        content: text.as_bytes().to_vec(),
    }
}

/// A registry that has not heard of referrers gets a tag; one that has gets none.
#[test]
fn what_is_attached_is_listed_with_and_without_the_registry() {
    let served = Served::start();
    let fake = Fake::honest();
    fake.kept().has_referrers = true;
    let older = Fake::honest();
    older.kept().has_referrers = true;
    older.kept().lists_configurations = true;
    for (registry, has_tag) in [(served.name(), true), (fake.name(), false), (older.name(), false)] {
        let bench = Bench::new(&NetworkSettings::default());
        let to = name(&format!("{registry}/app:1"));
        let image = bench.image(&[b"x"]);
        bench.push(&image, &to).unwrap();
        let subject = image.documents().1;
        assert_eq!(bench.registry.referrers(&subject.digest, to.name(), &go()).unwrap(), []);
        let attach = |text| bench.registry.attach(&attachment(text), &subject, to.name(), &go()).unwrap();
        let digests = [attach("one"), attach("two"), attach("one")];
        assert_eq!(digests[0], digests[2]);
        let mut listed: Vec<String> = bench
            .registry
            .referrers(&subject.digest, to.name(), &go())
            .unwrap()
            .into_iter()
            .map(|entry| {
                assert_eq!(
                    entry.artifact_type().as_ref().unwrap().to_string(),
                    "application/vnd.cyclonedx+json"
                );
                if has_tag {
                    assert_eq!(entry.annotations().as_ref().unwrap()["io.example.kind"], "sbom");
                }
                entry.digest().to_string()
            })
            .collect();
        listed.sort();
        let mut expected = [digests[0].to_string(), digests[1].to_string()];
        expected.sort();
        assert_eq!(listed, expected, "{registry}");
        let tag = name(&format!("{registry}/app:sha256-{}", subject.digest.hex()));
        assert_eq!(bench.registry.document(&tag, &go()).unwrap().is_some(), has_tag, "{registry}");
    }
    // As another tool sees what was attached last.
    let bench = Bench::new(&NetworkSettings::default());
    let subject = bench.image(&[b"x"]).documents().1;
    let to = name(&format!("{}/app:1", served.name()));
    let digest = bench.registry.attach(&attachment("one"), &subject, to.name(), &go()).unwrap();
    let place = format!("docker://{}", to.with_digest(digest));
    let manifest = run("skopeo", &["inspect", "--raw", "--tls-verify=false", &place]);
    let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!(manifest["subject"]["digest"], subject.digest.as_str());
    assert_eq!(manifest["subject"]["size"], subject.bytes.len());
    // `printf '{}' | sha256sum`
    let empty = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    assert_eq!(manifest["config"]["digest"], empty);
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.oci.empty.v1+json");
    // `printf one | sha256sum`
    let one = "sha256:7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed";
    assert_eq!(manifest["layers"][0]["digest"], one);
    assert_eq!(manifest["annotations"]["io.example.kind"], "sbom");
}

/// R5: pages that lead elsewhere, in a circle, or on for ever.
#[test]
fn r5_pages_end_and_stay() {
    let entry = |number: usize| {
        json!({"mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": Digest::of(&number.to_le_bytes()), "size": 1})
    };
    let subject = Digest::of(b"x");
    for (what, link, good) in [
        ("two pages", "</v2/app/referrers/x?page=2>; rel=\"next\"", true),
        ("a circle", "<$SELF>; rel=\"next\"", false),
        ("elsewhere", "<http://127.0.0.2:1/x>; rel=\"next\"", false),
        ("for ever", "</v2/app/referrers/x?page=$NUMBER>; rel=next", false),
        ("nothing of the kind", "</v2/app/x>; rel=\"prev\"", true),
    ] {
        let fake = Fake::start(move |request, number| {
            let target = request.line.split(' ').nth(1).unwrap();
            let link = link.replace("$SELF", target).replace("$NUMBER", &number.to_string());
            let is_last = request.line.contains("page=2 ") && what == "two pages";
            let link = if is_last { String::new() } else { format!("link: {link}\r\n") };
            let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry(number)]});
            Some(ok(&format!("content-type: {OCI_INDEX}\r\n{link}"), index.to_string().as_bytes()))
        });
        let bench = Bench::hurried(&NetworkSettings::default());
        let repository = name(&format!("{}/app", fake.name())).name().clone();
        let result = bench.registry.referrers(&subject, &repository, &go());
        match result {
            Ok(found) => assert!(good && found.len() == 1 + usize::from(what == "two pages"), "{what}"),
            Err(error) => assert!(!good && error.id() == "registry.bad_answer", "{what}: {}", text(&error)),
        }
        assert!(fake.lines().len() <= 50, "{what}");
    }
}
