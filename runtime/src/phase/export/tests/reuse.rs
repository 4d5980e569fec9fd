//! Layers that are there already, and those that are damaged.

use super::*;

/// The second bench differs in everything that must not matter.
#[test]
fn img_12_the_same_input_gives_the_same_digest() {
    let digest = |reversed: bool| {
        let mut bench = Bench::new();
        let mut paths: Vec<String> =
            (0..40).map(|number| format!("app/dir{}/f{number}", number % 3)).collect();
        paths.extend((0..20).map(|number| format!("modules/lib/{number}")));
        if reversed {
            paths.reverse();
        }
        for (number, path) in (1..).zip(&paths) {
            bench.write(path, path);
            let path = bench.root.path().join(path);
            let mode = if reversed { 0o600 } else { 0o664 };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let time = std::time::UNIX_EPOCH + Duration::from_secs(if reversed { number } else { 7 });
            fs::File::open(&path).unwrap().set_modified(time).unwrap();
        }
        if reversed {
            let directory = bench.root.path().join("app/dir1");
            fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).unwrap();
        }
        bench.write("big/file", &"some text that compresses ".repeat(100_000));
        bench.fresh("big");
        bench.fresh("modules");
        let first = bench.export();
        // Again, from what the first export left in the store.
        fs::remove_dir_all(bench.layout()).unwrap();
        assert_eq!(bench.export().digest, first.digest);
        first.digest
    };
    assert_eq!(digest(false), digest(true));
}

/// EXP-11
#[test]
fn a_stored_layer_is_not_read_and_gives_the_same_image() {
    let mut bench = Bench::new();
    bench.write("modules/bin/tool", "tool");
    bench.fresh("modules");
    let fresh = bench.export();
    let [layer] = fresh.layers.as_slice() else { panic!("one layer") };
    assert!(layer.features.roots.bin);
    bench.built.layers.clear();
    fs::remove_dir_all(bench.root.path().join("modules")).unwrap();
    bench.layer(
        "modules",
        BuiltContents::Stored {
            diff_id: layer.diff_id.clone(),
            blob: StoredBlob { path: "/nonexistent".into(), ..layer.blob.clone() },
            features: layer.features,
        },
    );
    bench.store.created.store(0, Ordering::SeqCst);
    let again = bench.export();
    assert_eq!(again.digest, fresh.digest);
    // App, launcher and the rest are known by their tar: nothing is compressed either.
    assert_eq!(bench.store.created.load(Ordering::SeqCst), 0);
    let reused = |event: &&Event| matches!(event, Event::LayerExported { source: LayerSource::Reused, .. });
    assert_eq!(bench.events.iter().filter(reused).count(), 5);
}

/// An app that cannot be in the store is compressed while it is read for the first time;
/// one that can be is read and looked for before anything is compressed.
#[test]
fn an_app_is_looked_for_only_when_one_like_it_was_there() {
    let mut bench = Bench::new();
    // Whether the app was looked for, and how many blobs were made.
    let mut export = |contents: &str, encoding: Encoding| {
        bench.write("app/page", contents);
        bench.encoding = encoding;
        bench.store.wanted.lock().unwrap().clear();
        bench.store.created.store(0, Ordering::SeqCst);
        let image = bench.export().image;
        let wanted = bench.store.wanted.lock().unwrap().contains(&image.layers[0].diff_id);
        (wanted, bench.store.created.load(Ordering::SeqCst))
    };
    let (wanted, all) = export("one", Encoding::Gzip);
    assert!(!wanted && all > 1);
    assert_eq!(export("one", Encoding::Gzip), (true, 0), "unchanged");
    assert_eq!(export("two", Encoding::Gzip), (true, 1), "of the same size");
    assert_eq!(export("three", Encoding::Gzip), (false, 1), "of another size");
    assert_eq!(export("one", Encoding::Gzip), (true, 0), "as it once was");
    assert_eq!(export("one", "zstd".parse().unwrap()), (false, all), "by another encoder");
    assert_eq!(export("one", "zstd".parse().unwrap()), (true, 0), "unchanged");
    assert_eq!(export("one", Encoding::Gzip), (true, 0), "by the first one again");
}

#[test]
fn img_10_with_zstd_all_layers_of_ours_are_zstd() {
    let mut bench = Bench::new();
    bench.write("app/page", "<p>hello</p>");
    bench.encoding = "zstd:1".parse().unwrap();
    let image = bench.export().image;
    for layer in &image.layers {
        assert_eq!(layer.media_type.to_string(), "application/vnd.oci.image.layer.v1.tar+zstd");
        // RFC 8878, 3.1.1
        assert_eq!(fs::read(layer.file().unwrap()).unwrap()[..4], [0x28, 0xb5, 0x2f, 0xfd]);
    }
    let output = Command::new("skopeo")
        .args(["--insecure-policy", "copy", "-q", "--dest-decompress"])
        .arg(format!("oci:{}:app", bench.layout().display()))
        .arg(format!("dir:{}", bench.root.path().join("copy").display()))
        .output()
        .expect("`skopeo` is needed for this test");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // What another reader finds inside is what the configuration says.
    for layer in &image.layers {
        let tar = fs::read(bench.root.path().join("copy").join(layer.diff_id.0.hex())).unwrap();
        assert_eq!(Digest::of(&tar), layer.diff_id.0);
    }
}

#[test]
fn img_10_zstd_upon_a_docker_base_is_refused_before_anything_is_made() {
    let mut bench = Bench::new();
    let mut base = base(&mut bench, |_| {});
    base.image.family = MediaFamily::Docker;
    bench.run_image.base = Base::Image(Box::new(base));
    bench.encoding = "zstd".parse().unwrap();
    bench.store.created.store(0, Ordering::SeqCst);
    let error = bench.try_export().unwrap_err();
    assert_eq!((error.id(), error.fault()), ("export.compression", Fault::Caller));
    assert_eq!(error.to_string(), "layers upon the run image `scratch` cannot be compressed as `zstd:3`");
    assert!(error.hint().unwrap().contains("leave out `--compression`"));
    assert_eq!(bench.store.created.load(Ordering::SeqCst), 0);
    assert!(!bench.layout().exists());
}

fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(path, bytes).unwrap();
}

#[test]
fn damaged_blobs_of_the_store_are_made_anew() {
    let mut bench = Bench::new();
    bench.write("app/x", "x");
    let first = bench.export();
    fs::remove_dir_all(bench.layout()).unwrap();
    damage(first.image.layers[0].file().unwrap());
    fs::write(first.image.layers[1].file().unwrap(), "cut").unwrap();
    let again = bench.export();
    assert_eq!(again.digest, first.digest);
    let warnings = bench.events.iter().filter(|event| matches!(event, Event::Warning { .. }));
    assert_eq!(warnings.count(), 2);
    fs::remove_dir_all(bench.layout()).unwrap();
    assert_eq!(bench.export().digest, first.digest);
}

#[test]
fn a_damaged_layer_of_the_last_build_is_forgotten_and_named() {
    let mut bench = Bench::new();
    bench.write("modules/bin/tool", "tool");
    bench.fresh("modules");
    let layer = bench.export().layers.remove(0);
    fs::remove_dir_all(bench.layout()).unwrap();
    damage(&layer.blob.path);
    bench.built.layers.clear();
    let ExportedLayer { diff_id, blob, features, .. } = layer;
    bench.layer("modules", BuiltContents::Stored { diff_id, blob: blob.clone(), features });
    let error = bench.try_export().unwrap_err();
    assert_eq!(error.id(), "export.damaged_layer");
    assert_eq!(error.to_string(), "the stored layer `modules` of buildpack `acme/node@1.2` is damaged");
    assert!(!blob.path.exists());
}
