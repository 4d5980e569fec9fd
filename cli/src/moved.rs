//! What became of an image's layers on their way, in words and as JSON.

use serde_json::{Value, json};
use wapack_runtime::limits::show_bytes;
use wapack_runtime::oci::moved::{Amount, Moved};

/// For people: `2 layers, 3.1 MiB; 4 layers were there`.
pub(crate) fn text(moved: &Moved) -> String {
    let mut parts = vec![match moved.sent {
        Amount { layers: 0, .. } => "nothing".to_owned(),
        Amount { layers, bytes } => format!("{}, {}", count(layers), show_bytes(bytes)),
    }];
    if moved.mounted.layers > 0 {
        parts.push(format!("{} taken over from elsewhere in the registry", count(moved.mounted.layers)));
    }
    match moved.present.layers {
        0 => {}
        1 => parts.push("1 layer was there".to_owned()),
        layers => parts.push(format!("{} were there", count(layers))),
    }
    parts.join("; ")
}

pub(crate) fn count(layers: usize) -> String {
    format!("{layers} {}", if layers == 1 { "layer" } else { "layers" })
}

/// Adds the numbers to an object of a command.
pub(crate) fn add_to(object: &mut Value, moved: &Moved) {
    object["moved_layers"] = json!(moved.sent.layers);
    object["moved_bytes"] = json!(moved.sent.bytes);
    object["mounted_layers"] = json!(moved.mounted.layers);
    object["present_layers"] = json!(moved.present.layers);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_counted_in_words() {
        let of = |sent: usize, mounted: usize, present: usize| {
            let amount = |layers: usize| Amount { layers, bytes: layers as u64 * 1024 };
            text(&Moved { sent: amount(sent), mounted: amount(mounted), present: amount(present) })
        };
        assert_eq!(of(0, 0, 0), "nothing");
        assert_eq!(of(1, 0, 1), "1 layer, 1 KiB; 1 layer was there");
        assert_eq!(
            of(0, 1, 6),
            "nothing; 1 layer taken over from elsewhere in the registry; 6 layers were there"
        );
        assert_eq!(of(2, 0, 0), "2 layers, 2 KiB");
    }
}
