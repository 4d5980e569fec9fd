//! `sbom.legacy.json`: the old bills of materials of all buildpacks.

use toml::Value;

use super::build_plan::Requirement;
use super::id::BuildpackRef;
use super::reference_toml::{json, json_text};
use crate::toml_text;

/// The text of the file, byte for byte as the reference lifecycle writes it.
///
/// # Spec
/// SBOM-12; the word `null` when there are no entries (QRK-13).
#[must_use]
pub fn to_json(entries: &[(BuildpackRef, Requirement)]) -> String {
    if entries.is_empty() {
        return "null\n".to_owned();
    }
    let entry = |(buildpack, entry): &(BuildpackRef, Requirement)| {
        let metadata = toml_text::table_of(&entry.metadata);
        let metadata = metadata.map_or("null".to_owned(), |metadata| json(&Value::Table(metadata)));
        format!(
            "{{\"name\":{},\"metadata\":{metadata},\"buildpack\":{{\"id\":{},\"version\":{}}}}}",
            json_text(&entry.name),
            json_text(buildpack.id.as_str()),
            json_text(buildpack.version.as_str())
        )
    };
    format!("[{}]\n", entries.iter().map(entry).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sbom_12_the_bytes_of_the_reference() {
        let by = BuildpackRef { id: "acme/a7".parse().unwrap(), version: "1.0.0".parse().unwrap() };
        let metadata = "z = 1\na = \"&\"\nf = 1.5\ng = 2.0\ndeep = { b = [1, 2], a = true }\n";
        let entries = [
            (by.clone(), Requirement { name: "build<bom>".into(), metadata: metadata.into() }),
            (by, Requirement { name: "no-metadata".into(), metadata: String::new() }),
        ];
        let expected = r#"[{"name":"build\u003cbom\u003e","metadata":{"a":"\u0026","deep":{"a":true,"b":[1,2]},"f":1.5,"g":2,"z":1},"buildpack":{"id":"acme/a7","version":"1.0.0"}},{"name":"no-metadata","metadata":null,"buildpack":{"id":"acme/a7","version":"1.0.0"}}]"#;
        assert_eq!(to_json(&entries), format!("{expected}\n"));
        assert_eq!(to_json(&[]), "null\n");
    }
}
