//! The bill of materials: what was installed, for those who look for known
//! holes in it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use wapack_sdk::Sbom;

use crate::tree::Node;

/// One package of the bill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Material {
    /// Its real name, also for an alias.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The SHA-512 of its archive, in hex.
    pub sha512: Option<String>,
    /// What its authors call its licence.
    pub license: Option<String>,
}

impl Material {
    /// What the lock says about a package.
    pub fn of(node: &Node<'_>) -> Self {
        let license = match &node.entry.license {
            Value::String(license) => Some(license.as_str()),
            Value::Object(license) => license.get("type").and_then(Value::as_str),
            _ => None,
        };
        let sha512 = node.entry.integrity.as_ref().and_then(|integrity| {
            let hash = integrity.as_str().split_whitespace().find_map(|hash| hash.strip_prefix("sha512-"))?;
            Some(hex(&BASE64.decode(hash.split('?').next()?).ok()?))
        });
        Self {
            name: node.package_name().to_owned(),
            version: node.version().to_owned(),
            sha512,
            license: license.filter(|license| !license.is_empty()).map(str::to_owned),
        }
    }

    /// Its package URL.
    pub fn purl(&self) -> String {
        format!("pkg:npm/{}@{}", self.name.replacen('@', "%40", 1), self.version.replace('+', "%2B"))
    }
}

/// The document, without a time or a serial number, so that two builds have the
/// same one.
pub fn bill(materials: &[Material]) -> Sbom {
    let components: Vec<Value> = materials.iter().map(component).collect();
    let document =
        json!({ "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "components": components });
    Sbom::cyclonedx(document.to_string())
}

fn component(material: &Material) -> Value {
    let purl = material.purl();
    let (group, name) = match material.name.split_once('/') {
        Some((scope, name)) => (Some(scope), name),
        None => (None, material.name.as_str()),
    };
    let mut component = json!({
        "type": "library", "bom-ref": &purl, "name": name, "version": &material.version, "purl": &purl,
    });
    if let Some(group) = group {
        component["group"] = json!(group);
    }
    if let Some(hash) = &material.sha512 {
        component["hashes"] = json!([{ "alg": "SHA-512", "content": hash }]);
    }
    if let Some(license) = &material.license {
        // Anything is allowed in a lock; only what looks like SPDX is passed as that.
        let is_expression =
            license.bytes().all(|byte| byte.is_ascii_alphanumeric() || b" ().+-".contains(&byte))
                && !license.starts_with("SEE ")
                && license != "UNLICENSED";
        component["licenses"] = if is_expression {
            json!([{ "expression": license }])
        } else {
            json!([{ "license": { "name": license } }])
        };
    }
    component
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_have_urls_hashes_and_licences() {
        let material = Material {
            name: "@acme/x".into(),
            version: "1.0.0+b".into(),
            sha512: Some("00ff".into()),
            license: Some("(MIT OR Apache-2.0)".into()),
        };
        assert_eq!(material.purl(), "pkg:npm/%40acme/x@1.0.0%2Bb");
        assert_eq!(
            component(&material),
            json!({
                "type": "library", "bom-ref": "pkg:npm/%40acme/x@1.0.0%2Bb", "group": "@acme", "name": "x",
                "version": "1.0.0+b", "purl": "pkg:npm/%40acme/x@1.0.0%2Bb",
                "hashes": [{ "alg": "SHA-512", "content": "00ff" }],
                "licenses": [{ "expression": "(MIT OR Apache-2.0)" }],
            })
        );
        let odd = Material { license: Some("SEE LICENSE IN x.md".into()), ..material };
        assert_eq!(component(&odd)["licenses"], json!([{ "license": { "name": "SEE LICENSE IN x.md" } }]));
    }
}
