//! Cache images in Debian's `docker-registry`.

use super::image::{found, place};
use super::*;
use crate::images::{Images, RegistryImages};
use crate::limits::Limits;
use crate::network::NetworkSettings;
use crate::oci::image::{Image, Layer};
use crate::registry::Registry;
use crate::registry::tests::served::{Served, run};

/// What one program would see.
fn images(build: &Build) -> RegistryImages {
    let scratch = build.root.path().to_owned();
    let registry = Registry::new(&NetworkSettings::default(), &Limits::default(), scratch.clone());
    RegistryImages::new(registry, "amd64".to_owned(), None, scratch)
}

/// Writes the cache as a program of its own would; the image, and the requests it took.
fn cache(build: &mut Build, served: &Served, name: &str, app: &[Layer]) -> (Image, Vec<String>) {
    let (caches, blobs, before) = (images(build), build.scratch(), served.requests().len());
    build.cache_at(CachePlace::Image(CacheImage { app, ..place(&caches, name, &blobs) }));
    let requests = served.requests().split_off(before);
    (found(&images(build), name), requests)
}

/// Requests that send the bytes of a blob, or read them, but for configurations.
fn moved<'a>(requests: &'a [String], method: &str) -> Vec<&'a String> {
    let moves = |line: &&String| line.contains("/blobs/") && line.starts_with(method);
    requests.iter().filter(moves).collect()
}

/// Every digest is checked by another tool.
fn check(build: &Build, name: &str) {
    let (from, to) = (format!("docker://{name}"), format!("oci:{}:x", build.path("copy").display()));
    run("skopeo", &["--insecure-policy", "copy", "-q", "--src-tls-verify=false", &from, &to]);
}

#[test]
fn cac_06_and_08_what_the_registry_has_is_neither_read_nor_sent() {
    let served = Served::start();
    let name = format!("{}/team/cache:1", served.name());
    let mut build = Build::new();
    build.layer("same", "cache", Some("one"));
    build.layer("changed", "cache", Some("two"));
    let (first, requests) = cache(&mut build, &served, &name, &[]);
    assert_eq!(moved(&requests, "PUT ").len(), 3, "{requests:#?}");

    let (second, requests) = cache(&mut build, &served, &name, &[]);
    assert_eq!(second, first);
    assert_eq!(moved(&requests, "PUT "), Vec::<&String>::new());
    let read = moved(&requests, "GET ");
    let configuration = first.documents().0.digest;
    assert!(matches!(read[..], [read] if read.contains(configuration.hex())), "{requests:#?}");

    build.layer("changed", "cache", Some("another"));
    let (third, requests) = cache(&mut build, &served, &name, &[]);
    let (same, changed): (Vec<&Layer>, _) =
        third.layers.iter().partition(|layer| first.layers.contains(layer));
    let ([_], [changed]) = (&same[..], &changed[..]) else { panic!("{third:#?}") };
    let sent = moved(&requests, "PUT ");
    assert_eq!(sent.len(), 2, "{requests:#?}");
    for digest in [&changed.digest, &third.documents().0.digest] {
        assert!(sent.iter().any(|line| line.contains(digest.hex())), "{requests:#?}");
    }
    assert!(build.warnings.is_empty(), "{:?}", build.warnings);
    check(&build, &name);
}

/// A layer that the app's image has in the same registry is taken over by its name.
#[test]
fn a_layer_of_the_app_in_the_same_registry_is_not_sent() {
    let served = Served::start();
    let mut build = Build::new();
    build.layer("both", "cache launch", Some("one"));
    let app = format!("{}/team/app:1", served.name());
    let (app, _) = cache(&mut build, &served, &app, &[]);
    let id = build.group.buildpacks[0].id.clone();
    build.made.insert((id, "both".parse().unwrap()), app.layers[0].diff_id.clone());
    let name = format!("{}/team/cache:1", served.name());
    let (cached, requests) = cache(&mut build, &served, &name, &app.layers);
    assert_eq!(cached.layers[0].digest, app.layers[0].digest);
    assert_eq!(moved(&requests, "PUT ").len(), 1, "only its configuration: {requests:#?}");
    assert!(requests.iter().any(|line| line.contains("from=team%2Fapp")), "{requests:#?}");
    check(&build, &name);
}

#[test]
fn cac_07_the_old_manifest_is_deleted_from_the_registry() {
    for (minor, deletes, is_gone, warnings) in
        [(12, true, true, 0), (15, true, false, 0), (12, false, false, 1)]
    {
        let served = if deletes { Served::start() } else { Served::keeping() };
        let name = format!("{}/team/cache:1", served.name());
        let mut build = Build::new();
        build.api = PlatformApi::supported(crate::cnb::api::ApiVersion::zero(minor)).unwrap();
        let references = ["one", "another"].map(|content| {
            build.layer("x", "cache", Some(content));
            cache(&mut build, &served, &name, &[]);
            images(&build).find(&name).unwrap().unwrap().reference
        });
        assert_eq!(images(&build).find(&references[0]).unwrap().is_none(), is_gone, "0.{minor}");
        assert!(images(&build).find(&references[1]).unwrap().is_some());
        assert_eq!(build.warnings.len(), warnings, "{:?}", build.warnings);
        assert!(build.warnings.iter().all(|warning| warning.contains("405")), "{:?}", build.warnings);
    }
}

/// CAC-05: a layer that the registry lost is made and sent again.
#[test]
fn cac_05_a_layer_that_the_registry_lost_is_made_anew() {
    let served = Served::start();
    let name = format!("{}/team/cache:1", served.name());
    let mut build = Build::new();
    build.layer("x", "cache", Some("one"));
    let (first, _) = cache(&mut build, &served, &name, &[]);
    let lost = first.layers[0].digest.hex();
    fs::remove_dir_all(served.kept("team/cache", &format!("_layers/sha256/{lost}"))).unwrap();
    build.layer("y", "cache", Some("two"));
    let (second, _) = cache(&mut build, &served, &name, &[]);
    assert_eq!(second.layers.len(), 2, "{:?}", build.warnings);
    assert_eq!(build.warnings.len(), 1, "{:?}", build.warnings);
    check(&build, &name);
}
