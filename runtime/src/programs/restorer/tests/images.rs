//! Run images, build images and cache images.

use super::*;
use crate::images::Images;
use crate::images::fixed::{FixedImages, arm64_image};

fn restored(
    platform: &mut Platform,
    run_image: AnalyzedRunImage,
    images: &dyn Images,
) -> Result<Analyzed, RestoreError> {
    platform.write_analyzed(&Analyzed { run_image: Some(run_image), ..Analyzed::default() });
    run(&platform.inputs, ImagePlaces::one(images), &mut |_| {})?;
    Ok(Analyzed::parse(&fs::read_to_string(&platform.inputs.analyzed).unwrap()).unwrap())
}

fn run_image(reference: &str, image: &str) -> AnalyzedRunImage {
    AnalyzedRunImage { reference: reference.into(), image: image.into(), ..AnalyzedRunImage::default() }
}

/// RST-05, RST-07, CAC-10: only layers of the group are fetched from a cache image, and
/// they have to be what they should be.
#[test]
fn rst_05_from_a_cache_image_only_layers_of_the_group_are_fetched() {
    let mut platform = Platform::new();
    for layer in ["kept", "damaged", "lost"] {
        platform.last_build(layer, "c");
    }
    let sha = |platform: &mut Platform, layer: &str| -> DiffId {
        platform.cache_layers()[layer].sha.parse().unwrap()
    };
    let [damaged, kept, lost] = ["damaged", "kept", "lost"].map(|layer| sha(&mut platform, layer));
    let mut other = platform.cache.buildpacks[0].clone();
    other.key = "acme/gone".to_owned();
    other.layers.values_mut().for_each(|layer| layer.sha = format!("sha256:{}", "a".repeat(64)));
    platform.cache.buildpacks.push(other);
    let metadata = std::mem::take(&mut platform.cache);
    let label = json!({"io.buildpacks.lifecycle.cache.metadata": metadata.to_json().unwrap()});
    let mut caches = FixedImages::default();
    caches.images.insert("h.example/cache".to_owned(), arm64_image(&label));
    caches.layers.insert(damaged.clone(), platform.tar("damaged", "other"));
    caches.layers.insert(kept.clone(), platform.tar("kept", "kept"));
    platform.inputs.cache_image = Some("h.example/cache".to_owned());
    platform.write_analyzed(&Analyzed::default());
    let images = platform.images();
    let events = &mut platform.events;
    let places = ImagePlaces { images: &images, caches: &caches };
    run(&platform.inputs, places, &mut |event| events.push(event)).unwrap();
    let mut expected = [damaged, kept, lost];
    expected.sort();
    assert_eq!(caches.layers_read(), expected);
    assert_eq!(fs::read_to_string(platform.node("kept/file")).unwrap(), "kept");
    for layer in ["damaged", "lost"] {
        assert!(!platform.node(layer).exists() && !platform.node(&format!("{layer}.toml")).exists());
    }
    assert_eq!(platform.warnings().len(), 2, "{:?}", platform.warnings());
}

#[test]
fn run_06_a_run_image_of_run_toml_has_to_be_there_still() {
    let mut platform = Platform::new();
    fs::write(&platform.inputs.run, "[[images]]\nimage = \"acme/run\"\nmirrors = [\"h.example/run\"]\n")
        .unwrap();
    for (minor, image, there, expected) in [
        (14, "docker.io/acme/run:latest", vec![], false),
        (14, "acme/run", vec!["acme/run"], true),
        // No other name is tried.
        (14, "h.example/run", vec!["acme/run"], false),
        (14, "h.example/run", vec!["h.example/run"], true),
        (14, "acme/switched", vec![], true),
        (13, "acme/run", vec![], true),
    ] {
        platform.inputs.api = PlatformApi::supported(ApiVersion::zero(minor)).unwrap();
        let result = restored(&mut platform, run_image("run@sha256:00", image), &FixedImages::named(&there));
        match result {
            Ok(analyzed) => {
                assert!(expected, "0.{minor} {image} {there:?}");
                assert_eq!(analyzed.run_image, Some(run_image("run@sha256:00", image)));
            }
            Err(error) => assert!(!expected && error.code() == 1, "{image} {there:?}: {error:?}"),
        }
    }
}

#[test]
fn run_07_with_extensions_a_missing_target_is_filled_in() {
    let with_extension =
        format!("{GROUP}[[group-extensions]]\nid = \"acme/ext\"\nversion = \"1\"\napi = \"0.10\"\n");
    let images = FixedImages::named(&["acme/switched"]);
    let mut platform = Platform::new();
    let untouched = restored(&mut platform, run_image("", "acme/switched"), &images).unwrap();
    assert_eq!(untouched.run_image, Some(run_image("", "acme/switched")));

    fs::write(&platform.inputs.group, with_extension).unwrap();
    let filled = restored(&mut platform, run_image("", "acme/switched"), &images).unwrap();
    let filled = filled.run_image.unwrap();
    assert_eq!((filled.reference.as_str(), filled.image.as_str()), ("acme/switched@found", "acme/switched"));
    assert_eq!(filled.target.as_ref().unwrap().arch, "arm64");
    // Known already: left alone.
    let known = AnalyzedRunImage { reference: "kept".into(), ..filled };
    let kept = restored(&mut platform, known.clone(), &images).unwrap();
    assert_eq!(kept.run_image, Some(known));

    restored(&mut platform, run_image("", "acme/nowhere"), &images).unwrap_err();
    platform.inputs.api = PlatformApi::supported(ApiVersion::zero(9)).unwrap();
    restored(&mut platform, run_image("", "acme/nowhere"), &images).unwrap();
}

#[test]
fn run_08_the_build_image_is_recorded_by_reference() {
    let mut platform = Platform::new();
    platform.inputs.build_image = Some("acme/build".to_owned());
    let images = FixedImages::named(&["acme/build"]);
    let analyzed = restored(&mut platform, run_image("r", "run"), &images).unwrap();
    assert_eq!(analyzed.build_image.as_deref(), Some("acme/build@found"));
    platform.inputs.build_image = Some("acme/nowhere".to_owned());
    let error = restored(&mut platform, run_image("r", "run"), &images).unwrap_err();
    assert_eq!(error.code(), 1);
}

/// As those of a directory are: neither of the two is given before both are asked for.
#[test]
fn layers_of_a_cache_image_are_fetched_at_the_same_time() {
    if std::thread::available_parallelism().unwrap().get() == 1 {
        println!("SKIPPED: a single core has a single thread for this");
        return;
    }
    let mut platform = Platform::new();
    for layer in ["one", "two"] {
        platform.last_build(layer, "c");
    }
    let metadata = std::mem::take(&mut platform.cache);
    let label = json!({"io.buildpacks.lifecycle.cache.metadata": metadata.to_json().unwrap()});
    let mut caches = FixedImages { given_together: 2, ..FixedImages::default() };
    caches.images.insert("h.example/cache".to_owned(), arm64_image(&label));
    for layer in ["one", "two"] {
        let tar = platform.tar(layer, layer);
        caches.layers.insert(DiffId(Digest::of(&tar)), tar);
    }
    platform.inputs.cache_image = Some("h.example/cache".to_owned());
    platform.write_analyzed(&Analyzed::default());
    let app = platform.images();
    run(&platform.inputs, ImagePlaces { images: &app, caches: &caches }, &mut |_| {}).unwrap();
    for layer in ["one", "two"] {
        assert_eq!(fs::read_to_string(platform.node(layer).join("file")).unwrap(), layer);
    }
}
