//! Bills of materials of layers.

use super::*;

/// A layer of bills of materials, and what the analyzer unpacked.
fn with_sboms(platform: &mut Platform) {
    let mut writer = LayerWriter::new(Vec::new());
    for (name, text) in [
        ("acme_node/a.b/sbom.cdx.json", "cached cdx"),
        ("acme_node/a.b/sbom.spdx.json", "cached spdx"),
        ("acme_node/dropped/sbom.cdx.json", "dropped"),
        ("acme_other/x/sbom.cdx.json", "other"),
    ] {
        let path = platform.path("layers/sbom/cache").join(name);
        let name = path.as_os_str().as_encoded_bytes();
        writer.file(name, 0o644, Owner::ROOT, text.len() as u64, text.as_bytes()).unwrap();
    }
    let sha = platform.put(&writer.finish().unwrap());
    platform.cache.sbom = LayerSha { sha };
    for (name, text) in [
        ("acme_node/a.b/sbom.spdx.json", "launched spdx"),
        ("acme_node/build-and-launch/sbom.syft.json", "bl"),
        ("acme_node/sbom.cdx.json", "of the image"),
    ] {
        let path = platform.path("layers/sbom/launch").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    platform.last_build("a.b", "lc");
    platform.last_build("build-and-launch", "bl");
    platform.last_build("dropped", "lc");
    platform.app_layers().get_mut("dropped").unwrap().sha = Digest::of(b"another").to_string();
}

/// RST-11, RST-12, SBOM-14: of layers whose metadata came back; the image's wins.
#[test]
fn rst_11_rst_12_and_sbom_14_bills_of_materials_of_restored_layers() {
    let mut platform = Platform::new();
    with_sboms(&mut platform);
    platform.restore().unwrap();
    assert_eq!(
        platform.found(),
        [
            "acme_node",
            "acme_node/a.b",
            "acme_node/a.b/file",
            "acme_node/a.b.sbom.cdx.json",
            "acme_node/a.b.sbom.spdx.json",
            "acme_node/a.b.toml",
        ]
    );
    assert_eq!(fs::read_to_string(platform.node("a.b.sbom.cdx.json")).unwrap(), "cached cdx");
    assert_eq!(fs::read_to_string(platform.node("a.b.sbom.spdx.json")).unwrap(), "launched spdx");
}

#[test]
fn rst_11_not_before_platform_api_0_8_and_a_damaged_one_is_a_warning() {
    let mut platform = Platform::new();
    with_sboms(&mut platform);
    platform.inputs.api = PlatformApi::supported(ApiVersion::zero(7)).unwrap();
    platform.restore().unwrap();
    assert!(!platform.node("a.b.sbom.cdx.json").exists());

    let mut platform = Platform::new();
    with_sboms(&mut platform);
    let tar = platform.path(&format!("cache/committed/{}.tar", platform.cache.sbom.sha));
    fs::OpenOptions::new().append(true).open(tar).unwrap().write_all(&[0; 512]).unwrap();
    platform.restore().unwrap();
    assert_eq!(platform.warnings().len(), 1, "{:?}", platform.warnings());
    assert!(!platform.node("a.b.sbom.cdx.json").exists());
    assert_eq!(fs::read_to_string(platform.node("a.b.sbom.spdx.json")).unwrap(), "launched spdx");
}
