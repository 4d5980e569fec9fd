//! The files and directories that the platform gives.

use super::*;

#[test]
fn rst_13_everything_belongs_to_the_build_user() {
    let us = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    // Only root can give files away.
    let owner = if us.0 == 0 { (1234, 5678) } else { us };
    let mut platform = Platform::new();
    platform.last_build("cached", "c");
    fs::create_dir_all(platform.path("layers/other/deep")).unwrap();
    fs::write(platform.path("layers/other/setuid"), "").unwrap();
    fs::set_permissions(platform.path("layers/other/setuid"), fs::Permissions::from_mode(0o4755)).unwrap();
    let outside = platform.path("outside");
    fs::write(&outside, "precious").unwrap();
    fs::hard_link(&outside, platform.path("layers/other/second-name")).unwrap();
    symlink(&outside, platform.path("layers/other/link")).unwrap();
    platform.inputs.owner = Some(owner);
    platform.restore().unwrap();
    for name in platform.found() {
        let metadata = fs::symlink_metadata(platform.path("layers").join(&name)).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), owner, "{name}");
    }
    assert_eq!(fs::metadata(platform.path("layers")).unwrap().uid(), owner.0);
    assert_eq!(fs::metadata(platform.path("layers/other/setuid")).unwrap().mode() & 0o7777, 0o4755);
    assert_eq!(fs::metadata(outside).unwrap().uid(), us.0);
}

/// Links that an earlier build left lead nowhere, for reading, writing and removing.
#[test]
fn links_in_the_layers_directory_are_not_followed() {
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir(outside.path().join("both")).unwrap();
    fs::write(outside.path().join("secret"), "secret").unwrap();

    let mut platform = Platform::new();
    platform.last_build("both", "lc");
    platform.app_layers().get_mut("both").unwrap().sha = Digest::of(b"another").to_string();
    platform.last_build("l", "l");
    symlink(outside.path(), platform.path("layers/acme_node")).unwrap();
    let error = platform.restore().unwrap_err();
    assert_eq!(error.code(), 42, "{error:?}");
    assert!(outside.path().join("both").exists() && !outside.path().join("l.toml").exists());

    let mut platform = Platform::new();
    platform.last_build("l", "l");
    fs::create_dir_all(platform.path("layers/sbom/launch/acme_node/l")).unwrap();
    let sbom = platform.path("layers/sbom/launch/acme_node/l/sbom.cdx.json");
    symlink(outside.path().join("secret"), sbom).unwrap();
    fs::create_dir_all(platform.node("")).unwrap();
    symlink(outside.path().join("target"), platform.node("l.toml")).unwrap();
    platform.restore().unwrap();
    assert_eq!(platform.found(), ["acme_node", "acme_node/l.toml"]);
    assert!(!outside.path().join("target").exists());
}

#[test]
fn ana_10_a_missing_analyzed_toml_is_a_warning_and_a_malformed_one_an_error() {
    let mut platform = Platform::new();
    platform.last_build("cached", "c");
    platform.run().unwrap();
    assert!(platform.node("cached/file").exists());
    assert_eq!(platform.warnings().len(), 1);
    assert!(!platform.inputs.analyzed.exists());

    fs::write(&platform.inputs.analyzed, "[").unwrap();
    let error = platform.run().unwrap_err();
    assert_eq!(error.code(), 1, "{error:?}");
}

#[test]
fn api_07_the_apis_of_the_group_are_verified() {
    for text in [
        "[[group]]\nid = \"a\"\nversion = \"1\"\napi = \"0.99\"\n",
        "[[group-extensions]]\nid = \"a\"\nversion = \"1\"\napi = \"0.1\"\n",
    ] {
        let mut platform = Platform::new();
        fs::write(&platform.inputs.group, text).unwrap();
        let error = platform.restore().unwrap_err();
        assert_eq!(error.code(), 12, "{error:?}");
    }
}

#[test]
fn cac_03_a_cache_directory_that_is_not_there_is_an_error() {
    let mut platform = Platform::new();
    platform.inputs.cache_dir = Some(platform.path("nowhere"));
    let error = platform.restore().unwrap_err();
    assert_eq!(error.code(), 1, "{error:?}");
}
