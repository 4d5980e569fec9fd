//! Layers: which come back, and what of them.

use super::*;

/// LYR-12, LYR-13, RST-14: every row of the table, for a buildpack of another version.
#[test]
fn lyr_13_and_rst_14_every_combination_of_types() {
    let mut platform = Platform::new();
    for types in ["blc", "bc", "bl", "b", "lc", "c", "l", "none"] {
        platform.last_build(types, if types == "none" { "" } else { types });
    }
    platform.restore().unwrap();
    assert_eq!(
        platform.found(),
        [
            "acme_node",
            "acme_node/bc",
            "acme_node/bc/file",
            "acme_node/bc.toml",
            "acme_node/blc",
            "acme_node/blc/file",
            "acme_node/blc.toml",
            "acme_node/c",
            "acme_node/c/file",
            "acme_node/c.toml",
            "acme_node/l.toml",
            "acme_node/lc",
            "acme_node/lc/file",
            "acme_node/lc.toml",
        ]
    );
    assert_eq!(fs::read_to_string(platform.node("bc/file")).unwrap(), "bc");
    assert_eq!(fs::metadata(platform.node("bc/file")).unwrap().mode() & 0o7777, 0o640);
    let text = fs::read_to_string(platform.node("l.toml")).unwrap();
    assert_eq!(toml::from_str::<Value>(&text).unwrap(), json!({"metadata": {"name": "l", "n": 1}}));
    assert_eq!(platform.warnings(), Vec::<&str>::new());
    let restored = platform.events.iter().filter(|event| matches!(event, Event::LayerRestored { .. }));
    assert_eq!(restored.count(), 5);
}

#[test]
fn lyr_09_and_lyr_10_only_old_buildpacks_get_their_flags_back() {
    for (api, expected) in [
        ("0.5", json!({"launch": true, "build": false, "cache": true, "metadata": {"name": "x", "n": 1}})),
        ("0.6", json!({"metadata": {"name": "x", "n": 1}})),
    ] {
        let mut platform = Platform::new();
        fs::write(&platform.inputs.group, GROUP.replace("0.10", api)).unwrap();
        platform.last_build("x", "lc");
        platform.restore().unwrap();
        let text = fs::read_to_string(platform.node("x.toml")).unwrap();
        assert_eq!(toml::from_str::<Value>(&text).unwrap(), expected, "{api}");
    }
}

#[test]
fn rst_01_and_sto_01_to_03_the_store_of_the_same_id_comes_first_and_always() {
    let store = json!({"deep": {"n": 9_007_199_254_740_993_i64}});
    let with_store = |key: &str| BuildpackLayers {
        key: key.to_owned(),
        version: "0.1".to_owned(),
        store: Some(StoreRecord { metadata: store.clone() }),
        ..BuildpackLayers::default()
    };
    for skip_layers in [false, true] {
        let mut platform = Platform::new();
        platform.inputs.skip_layers = skip_layers;
        platform.app = vec![with_store(NODE), with_store("acme/gone")];
        platform.restore().unwrap();
        assert_eq!(platform.found(), ["acme_node", "acme_node/store.toml"]);
        let text = fs::read_to_string(platform.node("store.toml")).unwrap();
        assert_eq!(toml::from_str::<Value>(&text).unwrap(), json!({ "metadata": store }));
    }
}

#[test]
fn rst_02_skipping_layers_removes_those_that_are_cached() {
    let mut platform = Platform::new();
    platform.inputs.skip_layers = true;
    platform.last_build("cached", "c");
    platform.last_build("launched", "l");
    for name in ["cached/file", "launched/file", "sbom/launch/x"] {
        fs::create_dir_all(platform.node(name).parent().unwrap()).unwrap();
        fs::write(platform.node(name), "left").unwrap();
    }
    fs::write(platform.node("cached.toml"), "").unwrap();
    fs::write(platform.node("cached.sha"), "").unwrap();
    platform.restore().unwrap();
    assert!(!platform.found().iter().any(|name| name.contains("cached")), "{:?}", platform.found());
    assert!(platform.node("launched/file").exists());
    assert!(!platform.node("launched.toml").exists());
}

#[test]
fn rst_06_a_cache_out_of_step_with_the_image_is_dropped() {
    let mut platform = Platform::new();
    platform.last_build("both", "lc");
    platform.app_layers().get_mut("both").unwrap().sha = Digest::of(b"another").to_string();
    fs::create_dir_all(platform.node("both")).unwrap();
    platform.restore().unwrap();
    assert_eq!(platform.found(), ["acme_node"]);
}

/// RST-07, LYR-13: metadata and contents both or neither; one warning, and the others go on.
#[test]
fn rst_07_and_lyr_13_what_is_damaged_is_a_miss() {
    let mut platform = Platform::new();
    for layer in ["absent", "damaged", "good", "hostile", "odd"] {
        platform.last_build(layer, "c");
    }
    let tar = |platform: &Platform, layer: &str| {
        let sha = &platform.cache.buildpacks[0].layers[layer].sha;
        platform.path(&format!("cache/committed/{sha}.tar"))
    };
    fs::remove_file(tar(&platform, "absent")).unwrap();
    let damaged = tar(&platform, "damaged");
    let mut bytes = fs::read(&damaged).unwrap();
    let at = bytes.windows(7).rposition(|window| window == b"damaged").unwrap();
    bytes[at] = b'D';
    fs::write(&damaged, bytes).unwrap();
    // It is what it says, and leads elsewhere.
    let other = platform.tar("good/../../../outside", "x");
    let sha = platform.put(&other);
    platform.cache_layers().get_mut("hostile").unwrap().sha = sha;
    platform.cache_layers().get_mut("odd").unwrap().sha = "../../etc/passwd".to_owned();
    platform.restore().unwrap();
    assert_eq!(
        platform.found(),
        ["acme_node", "acme_node/good", "acme_node/good/file", "acme_node/good.toml"]
    );
    let warnings = platform.warnings();
    assert_eq!(warnings.len(), 4, "{warnings:#?}");
    for layer in ["absent", "damaged", "hostile", "odd"] {
        let about = warnings.iter().filter(|text| text.contains(&format!("acme/node:{layer}`")));
        assert_eq!(about.count(), 1, "{layer}: {warnings:#?}");
    }
}

#[test]
fn rst_09_without_a_cache_nothing_fails() {
    for given in [true, false] {
        let mut platform = Platform::new();
        platform.last_build("launched", "l");
        platform.last_build("both", "lc");
        platform.cache = CacheMetadata::default();
        if !given {
            platform.inputs.cache_dir = None;
        }
        platform.restore().unwrap();
        assert_eq!(platform.found(), ["acme_node", "acme_node/launched.toml"]);
        assert_eq!(platform.warnings(), [""; 0]);
    }
}

#[test]
fn rst_10_a_cache_that_cannot_be_read_is_empty() {
    let mut platform = Platform::new();
    platform.last_build("cached", "c");
    fs::write(platform.path("cache/committed/io.buildpacks.lifecycle.cache.metadata"), "{").unwrap();
    platform.restore().unwrap();
    assert_eq!(platform.found(), Vec::<String>::new());
}

#[test]
fn exe_04_layers_for_another_environment_are_not_restored() {
    for (built_for, minor, expected) in [
        (Some("test"), 15, false),
        (Some("production"), 15, true),
        (None, 15, true),
        (Some("test"), 14, true),
    ] {
        let mut platform = Platform::new();
        platform.inputs.api = PlatformApi::supported(ApiVersion::zero(minor)).unwrap();
        platform.last_build("l", "l");
        platform.last_build("lc", "lc");
        let metadata = LifecycleMetadata {
            buildpacks: platform.app.clone(),
            exec_env: built_for.map(str::to_owned),
            ..LifecycleMetadata::default()
        };
        platform.restore_after(&Analyzed { metadata, ..Analyzed::default() }).unwrap();
        assert_eq!(platform.node("l.toml").exists(), expected, "{built_for:?}");
        assert_eq!(platform.node("lc/file").exists(), expected, "{built_for:?}");
    }
}

/// The cache is read while it is being restored from, and can be written right after.
#[test]
fn a_restored_layer_is_verified_for_the_rest_of_the_process() {
    let mut platform = Platform::new();
    platform.last_build("cached", "c");
    platform.restore().unwrap();
    let sha: DiffId = platform.cache.buildpacks[0].layers["cached"].sha.parse().unwrap();
    let tar = platform.tar("cached", "cached");
    let cache = CacheDir::open(&platform.path("cache")).unwrap();
    let new = cache.begin().unwrap();
    assert_eq!(new.add(Some(&sha), |writer| writer.write_all(&tar)).unwrap(), sha);
    new.commit(&platform.cache).unwrap();
}
