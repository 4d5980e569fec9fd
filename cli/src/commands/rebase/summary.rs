//! What there is now, and what is different.

use serde_json::{Value, json};
use wapack_runtime::images::SavedImage;
use wapack_runtime::limits::show_bytes;
use wapack_runtime::text::harmless;

use super::One;
use crate::moved::{self, count};
use crate::output::Output;
use crate::place::Place;

/// Says what became of the image for each system; there is at least one.
pub(super) fn show(images: &[One], saved: &SavedImage, place: &Place, output: &mut Output) {
    let digest = saved.digest.as_ref().map(ToString::to_string).or(saved.id.clone()).unwrap_or_default();
    let has_changed = match images {
        [only] => only.has_changed(&digest),
        several => several.iter().any(|one| one.has_changed(one.digest().as_str())),
    };
    if output.is_json() {
        output.object(&object(images, saved, place, &digest, has_changed));
        return;
    }
    if output.is_quiet() {
        output.line(&digest);
        return;
    }
    let strong = output.terminal.out.strong(&harmless(place.name()));
    let mut lines = vec![if has_changed {
        format!("Successfully rebased image {strong}")
    } else {
        format!("The image {strong} is on this run image already; nothing changed")
    }];
    match images {
        [only] => lines.extend(only.lines(place).into_iter().map(|line| format!("  {line}"))),
        several => {
            for one in several {
                lines.push(format!("  for       {}", one.system()));
                lines.extend(one.lines(place).into_iter().map(|line| format!("    {line}")));
            }
        }
    }
    lines.push(format!("  moved     {}", moved::text(&saved.moved)));
    lines.push(format!("  digest    {digest}"));
    lines.push(format!(
        "  size      {}",
        show_bytes(images.iter().map(|one| one.rebased.image.bytes()).sum())
    ));
    lines.push(format!("  where     {}", harmless(&place.to_string())));
    output.say(&lines.join("\n"));
}

impl One {
    /// Whether it is another image than before, now that it is called `digest`.
    fn has_changed(&self, digest: &str) -> bool {
        !self.app.reference.ends_with(digest)
    }

    fn kept(&self) -> usize {
        self.rebased.image.layers.len() - self.chosen.found.image.layers.len()
    }

    fn lines(&self, place: &Place) -> Vec<String> {
        let run_image = &self.chosen.found;
        let old = match self.rebased.old_reference.as_str() {
            "" => "unknown".to_owned(),
            old => harmless(old),
        };
        let (old_layers, new_layers) = (self.rebased.old_layers, run_image.image.layers.len());
        let mut lines = vec![
            format!("old base  {old}, {}", count(old_layers)),
            format!("new base  {}, {}", harmless(&run_image.reference), count(new_layers)),
        ];
        lines.extend(self.chosen.why(place).map(|why| format!("chosen    {}", harmless(&why))));
        lines.push(format!("because   {}", self.rebased.checked.join(", ")));
        lines.push(format!("kept      {} of the app", count(self.kept())));
        lines
    }

    fn object(&self) -> Value {
        json!({
            "target": self.system(),
            "digest": self.digest().to_string(),
            "old_digest": self.app.reference,
            "run_image": {
                "reference": self.chosen.found.reference,
                "name": self.chosen.place.place.name(),
                "among": self.chosen.among,
                "layers": self.chosen.found.image.layers.len(),
            },
            "old_run_image": { "reference": self.rebased.old_reference, "layers": self.rebased.old_layers },
            "checked": self.rebased.checked,
            "kept_layers": self.kept(),
            "bytes": self.rebased.image.bytes(),
        })
    }
}

/// An image that is alone says everything of itself at the top, too.
fn object(images: &[One], saved: &SavedImage, place: &Place, digest: &str, has_changed: bool) -> Value {
    let each: Vec<Value> = images.iter().map(One::object).collect();
    let mut object = match &each[..] {
        [only] => only.clone(),
        _ => json!({ "bytes": images.iter().map(|one| one.rebased.image.bytes()).sum::<u64>() }),
    };
    object["event"] = json!("rebased");
    object["image"] = json!(place.name());
    object["digest"] = json!(digest);
    object["changed"] = json!(has_changed);
    moved::add_to(&mut object, &saved.moved);
    object["layout"] = json!(place.path().map(|path| path.display().to_string()));
    object["place"] = json!(place.to_string());
    object["images"] = json!(each);
    object
}
