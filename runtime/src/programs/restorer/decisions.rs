//! What becomes of each layer of a buildpack, from what the last build said of it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::cnb::api::PlatformApi;
use crate::cnb::labels::LayerRecord;

/// What is known of the layers of one buildpack.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known<'a> {
    /// From the previous image.
    pub app: &'a BTreeMap<String, LayerRecord>,
    /// From the cache.
    pub cache: &'a BTreeMap<String, LayerRecord>,
    /// Names of layers that are on disk, by directory or file.
    pub on_disk: &'a BTreeSet<String>,
}

/// What is to be done about a layer.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Decision {
    /// Write its `[metadata]`; the contents stay in the image.
    Metadata(LayerRecord),
    /// Unpack its contents from the cache, and write its `[metadata]`.
    Contents(LayerRecord),
    /// Remove what is on disk.
    Remove,
}

/// Decides for every layer of a buildpack; nothing happens to those that are not in the answer.
///
/// # Spec
/// RST-02 to RST-06, LYR-12, LYR-13.
pub(super) fn decide(api: PlatformApi, skip_layers: bool, known: Known<'_>) -> BTreeMap<String, Decision> {
    let Known { app, cache, on_disk } = known;
    let is_cached = |name: &str| cache.get(name).is_some_and(|layer| layer.cache);
    // RST-03 and RST-04: whose metadata is written, and the digest that goes with it.
    let mut remembered: BTreeMap<&str, &LayerRecord> = BTreeMap::new();
    if !skip_layers {
        let from_app = app.iter().filter(|(name, layer)| {
            layer.launch && (!layer.build || layer.cache) && (!layer.cache || is_cached(name))
        });
        remembered.extend(from_app.map(|(name, layer)| (name.as_str(), layer)));
        let from_cache = cache.iter().filter(|(name, layer)| {
            layer.cache && (!layer.launch || (!app.contains_key(*name) && api.at_least(14)))
        });
        remembered.extend(from_cache.map(|(name, layer)| (name.as_str(), layer)));
    }
    let mut decisions = BTreeMap::new();
    for (name, layer) in &remembered {
        let decision = match cache.get(*name).filter(|cached| cached.cache) {
            None => Decision::Metadata((*layer).clone()),
            Some(cached) if cached.sha == layer.sha => Decision::Contents((*layer).clone()),
            Some(_) => Decision::Remove,
        };
        decisions.insert((*name).to_owned(), decision);
    }
    // RST-05: what is on disk and cached, but not remembered.
    for name in on_disk.iter().filter(|name| is_cached(name) && !remembered.contains_key(name.as_str())) {
        decisions.insert(name.clone(), Decision::Remove);
    }
    decisions
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: u64 = 13;
    const NEW: u64 = 15;

    fn api(minor: u64) -> PlatformApi {
        PlatformApi::supported(crate::cnb::api::ApiVersion::zero(minor)).unwrap()
    }

    /// `blc` for build, launch and cache, then the digest.
    fn layer(text: &str) -> LayerRecord {
        let (types, sha) = text.split_once(' ').unwrap();
        LayerRecord {
            sha: sha.to_owned(),
            data: serde_json::json!({ "from": text }),
            build: types.contains('b'),
            launch: types.contains('l'),
            cache: types.contains('c'),
        }
    }

    /// The decision for one layer, as a word: `metadata` or `contents`, with where
    /// the metadata is from, `remove`, or `nothing`.
    fn one(minor: u64, app: &str, cache: &str, on_disk: bool) -> String {
        decided(minor, false, app, cache, on_disk)
    }

    fn decided(minor: u64, skip: bool, app: &str, cache: &str, on_disk: bool) -> String {
        let layers = |text: &str| -> BTreeMap<String, LayerRecord> {
            (!text.is_empty()).then(|| ("x".to_owned(), layer(text))).into_iter().collect()
        };
        let (app, cache) = (layers(app), layers(cache));
        let on_disk: BTreeSet<String> = on_disk.then(|| "x".to_owned()).into_iter().collect();
        let known = Known { app: &app, cache: &cache, on_disk: &on_disk };
        let mut decisions = decide(api(minor), skip, known);
        let from = |layer: &LayerRecord| layer.data["from"].as_str().unwrap().to_owned();
        let text = match decisions.remove("x") {
            None => "nothing".to_owned(),
            Some(Decision::Remove) => "remove".to_owned(),
            Some(Decision::Metadata(layer)) => format!("metadata of {}", from(&layer)),
            Some(Decision::Contents(layer)) => format!("contents {} of {}", layer.sha, from(&layer)),
        };
        assert!(decisions.is_empty());
        text
    }

    /// LYR-12, LYR-13: the eight rows. The image has launch layers, the cache cache layers.
    #[test]
    fn lyr_13_the_table_row_by_row() {
        for (types, expected) in [
            ("blc", "contents 1 of blc 1"),
            ("bc", "contents 1 of bc 1"),
            ("bl", "nothing"),
            ("b", "nothing"),
            ("lc", "contents 1 of lc 1"),
            ("c", "contents 1 of c 1"),
            ("l", "metadata of l 1"),
            ("-", "nothing"),
        ] {
            let record = format!("{types} 1");
            let app = if types.contains('l') { record.as_str() } else { "" };
            let cache = if types.contains('c') { record.as_str() } else { "" };
            for minor in [OLD, NEW] {
                assert_eq!(one(minor, app, cache, false), expected, "{types} 0.{minor}");
            }
        }
    }

    #[test]
    fn rst_02_skipping_removes_what_is_cached_and_restores_nothing() {
        for minor in [OLD, NEW] {
            assert_eq!(decided(minor, true, "l 1", "", true), "nothing");
            assert_eq!(decided(minor, true, "lc 1", "lc 1", true), "remove");
            assert_eq!(decided(minor, true, "", "c 1", true), "remove");
            assert_eq!(decided(minor, true, "", "c 1", false), "nothing");
            assert_eq!(decided(minor, true, "", "l 1", true), "nothing");
        }
    }

    #[test]
    fn rst_03_metadata_from_the_previous_image() {
        for minor in [OLD, NEW] {
            assert_eq!(one(minor, "b 1", "", false), "nothing");
            assert_eq!(one(minor, "bl 1", "", true), "nothing");
            assert_eq!(one(minor, "lc 1", "", false), "nothing");
            assert_eq!(one(minor, "blc 1", "", true), "nothing");
            // The cache has it, but not as a cached layer.
            assert_eq!(one(minor, "lc 1", "l 1", false), "nothing");
            assert_eq!(one(minor, "l 1", "", true), "metadata of l 1");
        }
    }

    #[test]
    fn rst_04_metadata_from_the_cache() {
        for minor in [OLD, NEW] {
            assert_eq!(one(minor, "", "b 1", false), "nothing");
            assert_eq!(one(minor, "", "bc 1", false), "contents 1 of bc 1");
            assert_eq!(one(minor, "lc 1", "lc 1", false), "contents 1 of lc 1");
            // It was a launch layer, and now is none.
            assert_eq!(one(minor, "l 1", "c 2", false), "contents 2 of c 2");
        }
        // The app image is lost.
        assert_eq!(one(OLD, "", "lc 1", false), "nothing");
        assert_eq!(one(NEW, "", "lc 1", false), "contents 1 of lc 1");
        assert_eq!(one(13, "", "blc 1", false), "nothing");
        assert_eq!(one(14, "", "blc 1", false), "contents 1 of blc 1");
        // The image knows the layer, if not as one to restore.
        assert_eq!(one(NEW, "bl 1", "blc 1", false), "nothing");
    }

    #[test]
    fn rst_05_and_06_layers_out_of_step_are_removed() {
        for minor in [OLD, NEW] {
            assert_eq!(one(minor, "lc 1", "lc 2", false), "remove");
            assert_eq!(one(minor, "lc 1", "lc 2", true), "remove");
            assert_eq!(one(minor, "lc 1", "lc 1", true), "contents 1 of lc 1");
            assert_eq!(one(minor, "bl 1", "blc 1", true), "remove");
            // In neither: somebody else's business.
            assert_eq!(one(minor, "", "", true), "nothing");
            assert_eq!(one(minor, "", "l 1", true), "nothing");
        }
        assert_eq!(one(OLD, "", "lc 1", true), "remove");
        assert_eq!(one(NEW, "", "lc 1", true), "contents 1 of lc 1");
        // Only the cache is out of step with a layer that is no longer cached.
        assert_eq!(one(NEW, "l 1", "lc 2", false), "remove");
    }

    #[test]
    fn rst_09_without_a_cache_metadata_of_launch_layers_is_restored() {
        for minor in [OLD, NEW] {
            assert_eq!(one(minor, "l 1", "", false), "metadata of l 1");
            assert_eq!(one(minor, "lc 1", "", false), "nothing");
        }
    }
}
