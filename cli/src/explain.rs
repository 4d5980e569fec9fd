//! Why a layer was used again or made anew, for people.

use std::fmt::Write as _;

use wapack_runtime::cnb::id::BuildpackRef;
use wapack_runtime::cnb::layer::LayerTypes;
use wapack_runtime::event::{LayerFate, LayerReason};
use wapack_runtime::text::harmless;

/// Most characters of a key that are shown.
const SHOWN_CHARACTERS: usize = 200;

/// # Shape
/// ```text
/// layer 'acme/node:node' rebuilt: what it depends on is another
///   version: was 18.1.0, is 20.2.0
/// ```
pub(crate) fn text(
    buildpack: &BuildpackRef,
    layer: &str,
    fate: LayerFate,
    reason: &LayerReason,
    version_was: Option<&str>,
) -> String {
    let fate = match fate {
        LayerFate::Reused => "reused",
        LayerFate::Kept => "kept",
        LayerFate::Changed => "changed",
        LayerFate::Rebuilt => "rebuilt",
        LayerFate::Dropped => "dropped",
    };
    let mut text = format!("layer '{}:{}' {fate}: ", buildpack.id, harmless(layer));
    match reason {
        LayerReason::SameKey { key } if key.is_empty() => text.push_str("it depends on nothing that changed"),
        LayerReason::SameKey { key } => {
            let _ = write!(
                text,
                "what it depends on is the same: {}",
                shown(&key.trim_end().replace('\n', ", "))
            );
        }
        LayerReason::KeyChanged { old, new } => {
            let _ =
                write!(text, "what it depends on is another\n  was  {}\n  is   {}", shown(old), shown(new));
        }
        LayerReason::InputsChanged { changed } => {
            text.push_str("what it depends on is another");
            for input in changed {
                let value =
                    |value: &Option<String>| value.as_deref().map_or_else(|| "not there".to_owned(), shown);
                let _ = write!(
                    text,
                    "\n  {}: was {}, is {}",
                    shown(&input.name),
                    value(&input.old),
                    value(&input.new)
                );
            }
        }
        LayerReason::TypesChanged { old, new } => {
            let _ = write!(text, "types changed\n  was  {}\n  is   {}", types(*old), types(*new));
        }
        LayerReason::NoEarlierLayer => text.push_str("no earlier layer"),
        LayerReason::NeverCached => text.push_str("it is for the build only, and made each time"),
        LayerReason::ContentsMissing => text.push_str("the contents of the earlier layer are not here"),
        LayerReason::WrittenTo => text.push_str("restored, but changed by the buildpack"),
        LayerReason::EnvironmentChanged => {
            text.push_str("restored, but what it does to the environment changed");
        }
        LayerReason::NoLongerMade => text.push_str("the buildpack did not ask for it"),
    }
    if let Some(version) = version_was {
        let _ = write!(
            text,
            "\n  buildpack version changed: was {}, is {}",
            harmless(version),
            buildpack.version
        );
    }
    text
}

fn shown(key: &str) -> String {
    let end = key.char_indices().nth(SHOWN_CHARACTERS).map(|(end, _)| end);
    let cut = end.map_or_else(|| key.to_owned(), |end| format!("{}…", &key[..end]));
    if cut.is_empty() { "(nothing)".to_owned() } else { harmless(&cut) }
}

fn types(types: LayerTypes) -> String {
    let names = [(types.launch, "launch"), (types.build, "build"), (types.cache, "cache")];
    let names: Vec<&str> = names.into_iter().filter(|(is, _)| *is).map(|(_, name)| name).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
