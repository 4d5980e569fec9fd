//! Against Debian's `docker-registry`.

use super::kit::{AMD64, Bench, go, name, noise};
use super::served::{Served, run};
use crate::event::{Event, Transfer};
use crate::network::NetworkSettings;
use crate::oci::blob::BlobStore as _;
use crate::oci::digest::Digest;
use crate::oci::image::{BlobPlace, Layer};
use crate::registry::{Package, RemoteBlob};

fn remote(layers: &[Layer]) -> Vec<RemoteBlob> {
    let of = |layer: &Layer| match &layer.blob {
        BlobPlace::Registry(repository) => {
            RemoteBlob { repository: repository.clone(), digest: layer.digest.clone(), size: layer.size }
        }
        other => panic!("{other:?}"),
    };
    layers.iter().map(of).collect()
}

#[test]
fn an_image_is_published_found_and_fetched() {
    let served = Served::start();
    let bench = Bench::new(&NetworkSettings::default());
    let large = noise(40 << 20, 1);
    let image = bench.image(&[b"one", &large, b"three", b"one"]);
    let to = name(&format!("{}/team/app:1", served.name()));
    assert_eq!(bench.registry.image(&to, AMD64, &go()).unwrap(), None);

    let package = Package::of_image(&image);
    let tags = ["1".to_owned(), "latest".to_owned()];
    let mut told = None;
    let mut tell = |event| told = Some(event);
    let published =
        bench.registry.publish(&package, to.name(), &tags, &bench.store, &go(), &mut tell).unwrap();
    assert!(published.tags.iter().all(|tag| matches!(tag.result, Ok(None))), "{:?}", published.tags);
    let total: u64 = image.layers[..3].iter().map(|layer| layer.size).sum();
    let transfer = Transfer::Publish;
    assert_eq!(told, Some(Event::Transfer { transfer, done_bytes: total, total_bytes: total }));
    // The large one goes in pieces.
    let requests = served.requests();
    assert_eq!(requests.iter().filter(|line| line.starts_with("PATCH ")).count(), 2, "{requests:#?}");

    let found = bench.registry.image(&to, AMD64, &go()).unwrap().unwrap();
    assert_eq!(found.reference, to.with_digest(published.digest.clone()));
    assert_eq!(found.image.configuration, image.configuration);
    assert_eq!(found.image.layers.len(), 4);

    let blobs = bench.registry.fetch(&remote(&found.image.layers), &bench.store, &go(), &mut |_| ()).unwrap();
    for (blob, layer) in blobs.iter().zip(&image.layers) {
        assert_eq!(std::fs::read(&blob.path).unwrap(), std::fs::read(layer.file().unwrap()).unwrap());
    }
    assert_eq!(bench.store.blob(&image.layers[1].digest, image.layers[1].size), Some(blobs[1].clone()));

    // What another tool thinks of it: every digest is checked on the way.
    let place = format!("docker://{to}");
    let inspected: serde_json::Value =
        serde_json::from_str(&run("skopeo", &["inspect", "--tls-verify=false", &place])).unwrap();
    assert_eq!(inspected["Digest"], published.digest.as_str());
    assert_eq!(inspected["RepoTags"].as_array().unwrap().len(), 2);
    let copy = format!("dir:{}", bench.directory.path().join("copy").display());
    run("skopeo", &["--insecure-policy", "copy", "-q", "--src-tls-verify=false", &place, &copy]);
    let large = bench.directory.path().join("copy").join(image.layers[1].digest.hex());
    assert_eq!(Digest::of(&std::fs::read(large).unwrap()), image.layers[1].digest);
}

/// S1: what a name leads to is found out once. Whoever moves it meanwhile changes nothing of what is made here.
#[test]
fn s1_a_name_that_moves_leads_where_it_led() {
    let served = Served::start();
    let bench = || Bench::new(&NetworkSettings::default());
    let (ours, other) = (bench(), bench());
    let to = name(&format!("{}/base:1", served.name()));
    let (old, new) = (ours.image(&[b"old"]), ours.image(&[b"new"]));
    let digest = |bench: &Bench| bench.registry.image(&to, AMD64, &go()).unwrap().unwrap().reference;
    let pushed = |bench: &Bench, image| to.with_digest(bench.push(image, &to).unwrap().digest);
    let led = pushed(&other, &old);
    assert_eq!(digest(&ours), led);
    let moved = pushed(&other, &new);
    assert_ne!(moved, led);
    let first = ours.registry.first_document(&to, &go()).unwrap().unwrap();
    assert_eq!((digest(&ours), Some(&first.digest)), (led.clone(), led.digest()));
    assert_eq!(ours.registry.document(&to, &go()).unwrap().map(|now| now.digest).as_ref(), moved.digest());
    assert_eq!(digest(&bench()), moved);
    // What is written here is known here.
    assert_eq!(pushed(&ours, &new), moved);
    assert_eq!(digest(&ours), moved);
}
