//! Into a registry in memory that lies.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::http::test_server::{Step, head};
use crate::images::RegistryImages;
use crate::limits::Limits;
use crate::network::NetworkSettings;
use crate::oci::digest::Digest;
use crate::registry::Registry;
use crate::registry::tests::fake::Fake;
use crate::registry::tests::kit::{go, image};

/// R11: a name that somebody else wrote at the same time is told, with both digests.
#[test]
fn r11_a_lost_race_is_told() {
    let theirs = Digest::of(b"theirs");
    let (written, shown) = (AtomicBool::new(false), theirs.to_string());
    let fake = Fake::start(move |request, _| {
        if request.line.starts_with("PUT /v2/app/manifests/1 ") {
            written.store(true, Ordering::SeqCst);
        }
        let is_look = request.line.starts_with("HEAD /v2/app/manifests/1 ");
        (is_look && written.load(Ordering::SeqCst)).then(|| {
            let headers = format!("content-length: 6\r\ndocker-content-digest: {shown}\r\n");
            vec![Step::Send(head("200 OK", &headers))]
        })
    });
    let directory = tempfile::tempdir().unwrap();
    let scratch = directory.path().to_owned();
    let registry = Registry::new(&NetworkSettings::default(), &Limits::default(), scratch.clone());
    let to = RegistryImages::new(registry, "amd64".to_owned(), None, scratch);
    let made = image(directory.path(), &[b"x"]);
    let ours = made.documents().1.digest;
    let names = ["1", "2"].map(|tag| format!("{}/app:{tag}", fake.name()));

    let mut warnings = Vec::new();
    let mut note = |event| {
        if let Event::Warning { message } = event {
            warnings.push(message);
        }
    };
    let request = PublishRequest { image: &made, to: &to, names: &names, from: &[] };
    let saved = publish(&request, &(), &go(), &mut note).unwrap();
    assert_eq!(saved.names, names);
    let [warning] = &warnings[..] else { panic!("{warnings:?}") };
    for part in [&names[0], theirs.as_str(), ours.as_str()] {
        assert!(warning.contains(part), "{warning}");
    }
}
