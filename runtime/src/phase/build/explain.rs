//! Why each layer was used again or made anew, as far as the host can tell.

use crate::cnb::id::BuildpackRef;
use crate::cnb::layer::LayerTypes;
use crate::event::{Event, LayerFate, LayerReason};
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
            (LayerContents::Written | LayerContents::InPlace, _) => {
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

fn why_anew(layer: &LayerOutput, known: Option<&CachedLayer>) -> LayerReason {
    let Some(known) = known else {
        let only_for_the_build = layer.types.build && !layer.types.cache;
        return if only_for_the_build { LayerReason::NeverCached } else { LayerReason::NoEarlierLayer };
    };
    if known.types != layer.types {
        LayerReason::TypesChanged { old: known.types, new: layer.types }
    } else if known.cache_key != layer.cache_key {
        LayerReason::KeyChanged { old: known.cache_key.clone(), new: layer.cache_key.clone() }
    } else {
        LayerReason::ContentsMissing
    }
}
