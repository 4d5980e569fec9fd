//! Why each layer was used again or made anew, as far as the host can tell.

use std::collections::{BTreeMap, BTreeSet};

use crate::cnb::id::BuildpackRef;
use crate::cnb::layer::LayerTypes;
use crate::event::{ChangedInput, Event, LayerFate, LayerReason};
use crate::executor::{LayerContents, LayerOutput};
use crate::phase::values::KeptContents;
use crate::store::CachedLayer;

/// What is said of the layers of one buildpack.
pub(super) struct Explained<'a> {
    pub(super) buildpack: &'a BuildpackRef,
    /// The version that made the layers of the last build.
    pub(super) version_was: Option<&'a str>,
    pub(super) cached: &'a [CachedLayer],
}

impl Explained<'_> {
    fn event(&self, layer: &str, fate: LayerFate, reason: LayerReason) -> Event {
        let version_was = self.version_was.filter(|version| *version != self.buildpack.version.as_str());
        Event::LayerExplained {
            buildpack: self.buildpack.clone(),
            layer: layer.to_owned(),
            fate,
            reason,
            version_was: version_was.map(str::to_owned),
        }
    }

    /// A layer that this build has; `kept` is what became of its contents.
    pub(super) fn layer(&self, layer: &LayerOutput, kept: &KeptContents) -> Event {
        let known = self.cached.iter().find(|known| known.name == layer.name);
        let key = || LayerReason::SameKey { key: layer.cache_key.clone() };
        let (fate, reason) = match (&layer.contents, kept) {
            (LayerContents::Kept, _) => (LayerFate::Kept, key()),
            (_, KeptContents::Unchanged) => (LayerFate::Reused, key()),
            (LayerContents::Restored, _) => (LayerFate::Changed, LayerReason::EnvironmentChanged),
            (LayerContents::Updated { .. }, _) => (LayerFate::Changed, LayerReason::WrittenTo),
            (LayerContents::Written | LayerContents::InPlace | LayerContents::Nowhere, _) => {
                (LayerFate::Rebuilt, why_anew(layer, known))
            }
        };
        self.event(layer.name.as_str(), fate, reason)
    }

    /// Layers of the last build that this one does not have.
    pub(super) fn dropped<'b>(&'b self, layers: &'b [LayerOutput]) -> impl Iterator<Item = Event> + 'b {
        let is_there =
            |name| layers.iter().any(|layer| layer.name == name && layer.types != LayerTypes::default());
        self.cached
            .iter()
            .filter(move |known| !is_there(known.name.clone()))
            .map(|known| self.event(known.name.as_str(), LayerFate::Dropped, LayerReason::NoLongerMade))
    }
}

/// Why the buildpack got an empty directory.
fn why_anew(layer: &LayerOutput, known: Option<&CachedLayer>) -> LayerReason {
    let Some(known) = known else {
        let only_for_the_build = layer.types.build && !layer.types.cache;
        return if only_for_the_build { LayerReason::NeverCached } else { LayerReason::NoEarlierLayer };
    };
    if known.types != layer.types {
        LayerReason::TypesChanged { old: known.types, new: layer.types }
    } else if known.cache_key != layer.cache_key {
        key_changed(&known.cache_key, &layer.cache_key)
    } else {
        LayerReason::ContentsMissing
    }
}

/// What is another in a key; input by input where both keys say it that way.
fn key_changed(old: &str, new: &str) -> LayerReason {
    let (Some(before), Some(now)) = (inputs(old), inputs(new)) else {
        return LayerReason::KeyChanged { old: old.to_owned(), new: new.to_owned() };
    };
    let names: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let changed = names.into_iter().filter(|name| before.get(*name) != now.get(*name));
    let changed = changed.map(|name| ChangedInput {
        name: name.clone(),
        old: before.get(name).cloned(),
        new: now.get(name).cloned(),
    });
    LayerReason::InputsChanged { changed: changed.collect() }
}

/// The inputs in a key that is a table of strings, as that of the SDK is.
fn inputs(key: &str) -> Option<BTreeMap<String, String>> {
    toml::from_str(key).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAUNCH: LayerTypes = LayerTypes { launch: true, build: false, cache: false };
    const CACHED: LayerTypes = LayerTypes { launch: true, build: false, cache: true };
    const BUILD: LayerTypes = LayerTypes { launch: false, build: true, cache: false };

    fn layer(name: &str, types: LayerTypes, key: &str, contents: LayerContents) -> LayerOutput {
        LayerOutput {
            name: name.parse().unwrap(),
            types,
            cache_key: key.to_owned(),
            contents,
            metadata: String::new(),
            environment: Vec::new(),
            sboms: Vec::new(),
        }
    }

    fn known(name: &str, types: LayerTypes, key: &str) -> CachedLayer {
        CachedLayer {
            name: name.parse().unwrap(),
            types,
            cache_key: key.to_owned(),
            metadata: String::new(),
            environment: Vec::new(),
            sboms: Vec::new(),
            artifacts: None,
            exported: None,
            tree: None,
        }
    }

    #[test]
    fn keys_are_compared_input_by_input_where_both_say_so() {
        let changed = |name: &str, old: Option<&str>, new: Option<&str>| ChangedInput {
            name: name.to_owned(),
            old: old.map(str::to_owned),
            new: new.map(str::to_owned),
        };
        assert_eq!(
            key_changed(
                "node = \"18\"\narch = \"amd64\"\ngone = \"x\"\n",
                "arch = \"amd64\"\nnode = \"20\"\nnew = \"y\"\n"
            ),
            LayerReason::InputsChanged {
                changed: vec![
                    changed("gone", Some("x"), None),
                    changed("new", None, Some("y")),
                    changed("node", Some("18"), Some("20")),
                ]
            }
        );
        for (old, new) in [("abc", "def"), ("a = \"1\"", "def"), ("a = 1", "a = 2")] {
            let whole = LayerReason::KeyChanged { old: old.into(), new: new.into() };
            assert_eq!(key_changed(old, new), whole, "{old} {new}");
        }
    }

    #[test]
    fn each_reason_has_its_case() {
        let buildpack = BuildpackRef { id: "a/b".parse().unwrap(), version: "1".parse().unwrap() };
        let cached = [known("x", CACHED, "1"), known("gone", LAUNCH, "")];
        let explained = Explained { buildpack: &buildpack, version_was: Some("1"), cached: &cached };
        let fresh = || KeptContents::Fresh("/x".into());
        let say = |layer: &LayerOutput, kept: KeptContents| match explained.layer(layer, &kept) {
            Event::LayerExplained { fate, reason, version_was: None, .. } => (fate, reason),
            other => panic!("{other:?}"),
        };
        let written = |name, types, key| layer(name, types, key, LayerContents::Written);
        let key = |key: &str| LayerReason::SameKey { key: key.to_owned() };
        for (layer, kept, fate, reason) in [
            (
                layer("x", CACHED, "1", LayerContents::Restored),
                KeptContents::Unchanged,
                LayerFate::Reused,
                key("1"),
            ),
            (layer("x", CACHED, "1", LayerContents::Kept), KeptContents::Nothing, LayerFate::Kept, key("1")),
            (
                layer("x", CACHED, "1", LayerContents::Restored),
                fresh(),
                LayerFate::Changed,
                LayerReason::EnvironmentChanged,
            ),
            (
                layer("x", CACHED, "1", LayerContents::Updated { hidden: vec![] }),
                fresh(),
                LayerFate::Changed,
                LayerReason::WrittenTo,
            ),
            (written("x", CACHED, "1"), fresh(), LayerFate::Rebuilt, LayerReason::ContentsMissing),
            (
                written("x", CACHED, "2"),
                fresh(),
                LayerFate::Rebuilt,
                LayerReason::KeyChanged { old: "1".into(), new: "2".into() },
            ),
            (
                written("x", LAUNCH, "2"),
                fresh(),
                LayerFate::Rebuilt,
                LayerReason::TypesChanged { old: CACHED, new: LAUNCH },
            ),
            (written("y", CACHED, "1"), fresh(), LayerFate::Rebuilt, LayerReason::NoEarlierLayer),
            (written("y", BUILD, "1"), fresh(), LayerFate::Rebuilt, LayerReason::NeverCached),
        ] {
            assert_eq!(say(&layer, kept), (fate, reason), "{layer:?}");
        }
        let made = [written("x", CACHED, "1")];
        let dropped: Vec<Event> = explained.dropped(&made).collect();
        assert!(
            matches!(&dropped[..], [Event::LayerExplained { layer, fate: LayerFate::Dropped, .. }] if layer == "gone"),
            "{dropped:?}"
        );
        let newer = Explained { version_was: Some("0.9"), ..explained };
        let event = newer.layer(&made[0], &fresh());
        assert!(matches!(event, Event::LayerExplained { version_was: Some(was), .. } if was == "0.9"));
    }
}
