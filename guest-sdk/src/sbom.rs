//! Bills of materials in `CycloneDX` JSON, the same bytes for the same contents.
//!
//! Knows the format and how packages are named in it. Not what a layer holds:
//! that is for the buildpack to say. There is no time in a document, its order
//! is fixed, and its serial number follows from its contents.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::built::Sbom;
use crate::layer::hex;

/// A bill of materials of what a buildpack installed, for
/// [`Layer::sbom`](crate::Layer::sbom).
///
/// # Spec
/// `CycloneDX` 1.5, the newest version that every scanner in use reads.
///
/// # Example
/// ```
/// use wapack_sdk::sbom::{Component, CycloneDx};
/// use wapack_sdk::Sbom;
///
/// let mut bill = CycloneDx::new();
/// bill.add(
///     Component::npm("@acme/left-pad", "1.3.0")
///         .license("MIT")
///         .integrity("sha512-XI5MPzVNApjAyhQzphX8BkmKsKUxD4LdyK24iZeQGinBN9yTQT3bFlCBy/aVx2HrNcqQGsdot8ghrjyrvMCoEA=="),
/// );
/// let sbom: Sbom = bill.into();
/// assert!(sbom.content.contains(r#""purl":"pkg:npm/%40acme/left-pad@1.3.0""#));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CycloneDx {
    subject: Option<Component>,
    /// By reference.
    components: BTreeMap<String, Component>,
    dependencies: BTreeMap<String, BTreeSet<String>>,
}

impl CycloneDx {
    /// A bill without components.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says what the bill is about, such as the app.
    #[must_use]
    pub fn about(mut self, subject: Component) -> Self {
        self.subject = Some(subject);
        self
    }

    /// Adds a component. One with the same reference takes the place of the
    /// first: a package that is installed twice is listed once.
    pub fn add(&mut self, component: Component) {
        self.components.insert(component.reference(), component);
    }

    /// Says that one component needs another one, both by
    /// [`Component::reference`]. What is not in the bill in the end is left out.
    pub fn depends(&mut self, dependent: impl Into<String>, dependency: impl Into<String>) {
        self.dependencies.entry(dependent.into()).or_default().insert(dependency.into());
    }

    /// The document.
    pub fn to_json(&self) -> String {
        let subject = self.subject.as_ref().map(Component::entry);
        let known = |reference: &&String| {
            self.components.contains_key(*reference)
                || self.subject.as_ref().is_some_and(|subject| subject.reference() == **reference)
        };
        let dependencies = self.dependencies.iter().filter(|(from, _)| known(from)).map(|(from, to)| {
            Dependency { from, depends_on: to.iter().filter(known).map(String::as_str).collect() }
        });
        let mut document = Document {
            schema: "http://cyclonedx.org/schema/bom-1.5.schema.json",
            format: "CycloneDX",
            spec_version: "1.5",
            serial_number: String::new(),
            version: 1,
            metadata: subject.map(|component| DocumentMetadata { component }),
            components: self.components.values().map(Component::entry).collect(),
            dependencies: dependencies.collect(),
        };
        document.serial_number = serial_number(&document.text());
        document.text()
    }
}

impl From<CycloneDx> for Sbom {
    fn from(bill: CycloneDx) -> Self {
        Self::cyclonedx(bill.to_json())
    }
}

/// Bills of one component are common.
impl From<Component> for CycloneDx {
    fn from(component: Component) -> Self {
        let mut bill = Self::new();
        bill.add(component);
        bill
    }
}

/// What a component is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ComponentKind {
    /// Something that runs.
    Application,
    /// Something that others are built with.
    Framework,
    /// Something that others use.
    Library,
    /// A single file.
    File,
}

/// One component of a bill of materials.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Component {
    kind: ComponentKind,
    name: String,
    version: String,
    purl: Option<String>,
    cpe: Option<String>,
    license: Option<String>,
    /// Algorithm and lower-case hex.
    hashes: BTreeSet<(&'static str, String)>,
}

impl Component {
    /// A component that no package registry knows.
    pub fn new(kind: ComponentKind, name: impl Into<String>, version: impl Into<String>) -> Self {
        Self {
            kind,
            name: name.into(),
            version: version.into(),
            purl: None,
            cpe: None,
            license: None,
            hashes: BTreeSet::new(),
        }
    }

    /// A package of the npm registry, such as `@acme/left-pad`. The scope is part
    /// of the name: syft and grype look a package up by its name alone, and would
    /// take `left-pad` in the group `@acme` for the package without a scope.
    pub fn npm(name: &str, version: &str) -> Self {
        let path: Vec<String> = name.split('/').map(percent_encoded).collect();
        let purl = format!("pkg:npm/{}@{}", path.join("/"), percent_encoded(version));
        Self::new(ComponentKind::Library, name, version).purl(purl)
    }

    /// A crate of the Rust registry.
    pub fn cargo(name: &str, version: &str) -> Self {
        Self::of_type("cargo", name, version)
    }

    /// Something with a name and a version that belongs to no registry. A
    /// [`Component::cpe`] lets scanners find it.
    pub fn generic(name: &str, version: &str) -> Self {
        Self::of_type("generic", name, version)
    }

    fn of_type(purl_type: &str, name: &str, version: &str) -> Self {
        Self::new(ComponentKind::Library, name, version).purl(format!(
            "pkg:{purl_type}/{}@{}",
            percent_encoded(name),
            percent_encoded(version)
        ))
    }

    /// Sets what it is; a library at first.
    pub fn kind(mut self, kind: ComponentKind) -> Self {
        self.kind = kind;
        self
    }

    /// Sets the package URL.
    pub fn purl(mut self, purl: impl Into<String>) -> Self {
        self.purl = Some(purl.into());
        self
    }

    /// Sets the name in the list of known vulnerabilities, as CPE 2.3.
    pub fn cpe(mut self, cpe: impl Into<String>) -> Self {
        self.cpe = Some(cpe.into());
        self
    }

    /// Sets the licence as a manifest has it: an SPDX id, an SPDX expression, or
    /// any text, which is then taken as the name of a licence.
    pub fn license(mut self, license: impl Into<String>) -> Self {
        self.license = Some(license.into()).filter(|license: &String| !license.trim().is_empty());
        self
    }

    /// Adds the hashes of what was installed: `sha512-<base64>`, several of them
    /// separated by spaces, or `sha256:<hex>`. Others are left out.
    pub fn integrity(mut self, integrity: &str) -> Self {
        self.hashes.extend(integrity.split_whitespace().filter_map(hash));
        self
    }

    /// How other parts of the bill refer to it: the package URL where it has one.
    pub fn reference(&self) -> String {
        match &self.purl {
            Some(purl) => purl.clone(),
            None => format!("{}@{}", self.name, self.version),
        }
    }

    fn entry(&self) -> Entry<'_> {
        Entry {
            kind: self.kind,
            reference: self.reference(),
            name: &self.name,
            version: &self.version,
            hashes: self.hashes.iter().map(|(algorithm, content)| Hash { algorithm, content }).collect(),
            licenses: self.license.as_deref().map(licenses).into_iter().collect(),
            cpe: self.cpe.as_deref(),
            purl: self.purl.as_deref(),
        }
    }
}

/// The document as the schema has it; fields in the schema's order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    #[serde(rename = "$schema")]
    schema: &'static str,
    #[serde(rename = "bomFormat")]
    format: &'static str,
    spec_version: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    serial_number: String,
    version: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<DocumentMetadata<'a>>,
    components: Vec<Entry<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    dependencies: Vec<Dependency<'a>>,
}

impl Document<'_> {
    fn text(&self) -> String {
        serde_json::to_string(self).expect("invariant: all keys are text")
    }
}

#[derive(Serialize)]
struct DocumentMetadata<'a> {
    component: Entry<'a>,
}

#[derive(Serialize)]
struct Entry<'a> {
    #[serde(rename = "type")]
    kind: ComponentKind,
    #[serde(rename = "bom-ref")]
    reference: String,
    name: &'a str,
    version: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hashes: Vec<Hash<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    licenses: Vec<License<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpe: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    purl: Option<&'a str>,
}

#[derive(Serialize)]
struct Hash<'a> {
    #[serde(rename = "alg")]
    algorithm: &'a str,
    content: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum License<'a> {
    /// `{ "license": { "id": "MIT" } }`
    License(LicenseName<'a>),
    /// `{ "expression": "MIT OR Apache-2.0" }`
    Expression(&'a str),
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum LicenseName<'a> {
    Id(&'a str),
    Name(&'a str),
}

#[derive(Serialize)]
struct Dependency<'a> {
    #[serde(rename = "ref")]
    from: &'a str,
    #[serde(rename = "dependsOn", skip_serializing_if = "Vec::is_empty")]
    depends_on: Vec<&'a str>,
}

fn licenses(text: &str) -> License<'_> {
    let text = text.trim();
    if let Some(known) = spdx::license_id(text) {
        License::License(LicenseName::Id(known.name))
    } else if spdx::Expression::parse(text).is_ok() {
        License::Expression(text)
    } else {
        License::License(LicenseName::Name(text))
    }
}

/// A hash in the words of the format, or `None` for one that is not understood.
fn hash(text: &str) -> Option<(&'static str, String)> {
    let (algorithm, value) = text.split_once([':', '-'])?;
    let content = if text.contains(':') {
        value.to_ascii_lowercase()
    } else {
        // What may follow the hash says how it was asked for.
        hex(&BASE64.decode(value.split('?').next()?).ok()?)
    };
    let (name, digits) = match algorithm {
        "sha1" => ("SHA-1", 40),
        "sha256" => ("SHA-256", 64),
        "sha384" => ("SHA-384", 96),
        "sha512" => ("SHA-512", 128),
        _ => return None,
    };
    let is_hex = content.bytes().all(|byte| byte.is_ascii_hexdigit());
    (content.len() == digits && is_hex).then_some((name, content))
}

/// A part of a package URL.
///
/// # Spec
/// purl "Character encoding": letters, digits and `.-_~:` stay.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b".-_~:".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push_str(&hex(&[byte]).to_ascii_uppercase());
        }
    }
    encoded
}

/// A UUID made of the contents.
///
/// # Spec
/// RFC 9562 "UUID Version 8": 122 bits are ours, here those of a SHA-256.
fn serial_number(contents: &str) -> String {
    let digest = Sha256::digest(contents);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let digits = hex(&bytes);
    format!(
        "urn:uuid:{}-{}-{}-{}-{}",
        &digits[..8],
        &digits[8..12],
        &digits[12..16],
        &digits[16..20],
        &digits[20..]
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn entry(component: Component) -> Value {
        let document: Value = serde_json::from_str(&CycloneDx::from(component).to_json()).unwrap();
        document["components"][0].clone()
    }

    /// `printf hello | openssl dgst -sha512 -binary | base64 -w0` and `sha512sum`.
    const SRI: &str =
        "sha512-m3HSJL1i83hdltRq0+o9czGb+8KJDKra4t/3JRlnPKcjI8PZm6XBHXx6zG4UuMXaDEZjR1wuXDre9G9zvN7AQw==";
    const SHA512: &str = "9b71d224bd62f3785d96d46ad3ea3d73319bfbc2890caadae2dff72519673ca72323c3d99ba5c11d7c7acc6e14b8c5da0c4663475c2e5c3adef46f73bcdec043";
    const SHA256: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

    #[test]
    fn a_package_is_named_as_the_format_has_it() {
        let component = Component::npm("@scope/name", "1.2.3+build").license("MIT").integrity(SRI);
        assert_eq!(
            entry(component),
            json!({
                "type": "library",
                "bom-ref": "pkg:npm/%40scope/name@1.2.3%2Bbuild",
                "name": "@scope/name",
                "version": "1.2.3+build",
                "hashes": [{ "alg": "SHA-512", "content": SHA512 }],
                "licenses": [{ "license": { "id": "MIT" } }],
                "purl": "pkg:npm/%40scope/name@1.2.3%2Bbuild",
            })
        );
    }

    #[test]
    fn a_licence_is_an_id_an_expression_or_a_name() {
        let licenses =
            |license: &str| entry(Component::npm("a", "1").license(license))["licenses"][0].clone();
        assert_eq!(licenses("ISC"), json!({ "license": { "id": "ISC" } }));
        assert_eq!(licenses(" GPL-2.0 "), json!({ "license": { "id": "GPL-2.0" } }));
        assert_eq!(licenses("(MIT OR Apache-2.0)"), json!({ "expression": "(MIT OR Apache-2.0)" }));
        assert_eq!(
            licenses("GPL-2.0-only WITH Classpath-exception-2.0"),
            json!({ "expression": "GPL-2.0-only WITH Classpath-exception-2.0" })
        );
        for name in ["SEE LICENSE IN LICENSE", "UNLICENSED", "Apache 2", "MIT OR"] {
            assert_eq!(licenses(name), json!({ "license": { "name": name } }));
        }
        assert_eq!(licenses(" "), Value::Null);
    }

    #[test]
    fn hashes_are_hex_and_what_is_none_is_left_out() {
        let hashes = |text: &str| entry(Component::npm("a", "1").integrity(text))["hashes"].clone();
        let both = json!([{ "alg": "SHA-256", "content": SHA256 }, { "alg": "SHA-512", "content": SHA512 }]);
        assert_eq!(hashes(&format!("{SRI} sha256:{}", SHA256.to_uppercase())), both);
        for wrong in ["", "sha512", "sha512-AAAA", "sha256:xyz", "md5-AAAAAAAAAAAAAAAAAAAAAA==", "sha1-!"] {
            assert_eq!(hashes(wrong), Value::Null, "{wrong}");
        }
    }

    #[test]
    fn the_order_of_adding_does_not_show() {
        let packages = ["b", "@x/a", "c", "a"].map(|name| Component::npm(name, "1.0.0"));
        let mut forth = CycloneDx::new();
        let mut back = CycloneDx::new();
        for package in &packages {
            forth.add(package.clone());
        }
        for package in packages.iter().rev() {
            back.add(package.clone());
            back.add(package.clone());
        }
        forth.depends("pkg:npm/b@1.0.0", "pkg:npm/c@1.0.0");
        forth.depends("pkg:npm/b@1.0.0", "pkg:npm/a@1.0.0");
        back.depends("pkg:npm/b@1.0.0", "pkg:npm/a@1.0.0");
        back.depends("pkg:npm/b@1.0.0", "pkg:npm/c@1.0.0");
        back.depends("pkg:npm/b@1.0.0", "pkg:npm/not-there@1.0.0");
        assert_eq!(forth.to_json(), back.to_json());
        let document: Value = serde_json::from_str(&forth.to_json()).unwrap();
        assert_eq!(
            document["dependencies"],
            json!([{ "ref": "pkg:npm/b@1.0.0", "dependsOn": ["pkg:npm/a@1.0.0", "pkg:npm/c@1.0.0"] }])
        );
    }

    #[test]
    fn the_serial_number_follows_from_the_contents() {
        let serial = |version: &str| {
            let bill = CycloneDx::from(Component::npm("a", version));
            let document: Value = serde_json::from_str(&bill.to_json()).unwrap();
            document["serialNumber"].as_str().unwrap().to_owned()
        };
        assert_eq!(serial("1"), serial("1"));
        assert_ne!(serial("1"), serial("2"));
        // RFC 9562: the version and the variant.
        assert_eq!(serial("1").as_bytes()["urn:uuid:".len() + 14], b'8');
        assert!(b"89ab".contains(&serial("1").as_bytes()["urn:uuid:".len() + 19]));
    }

    #[test]
    fn the_subject_is_no_component_but_may_depend_on_some() {
        let app = Component::new(ComponentKind::Application, "shop", "2.0.0");
        let mut bill = CycloneDx::from(Component::npm("a", "1.0.0")).about(app.clone());
        bill.depends(app.reference(), "pkg:npm/a@1.0.0");
        let document: Value = serde_json::from_str(&bill.to_json()).unwrap();
        assert_eq!(document["metadata"]["component"]["name"], "shop");
        assert_eq!(document["components"].as_array().unwrap().len(), 1);
        assert_eq!(document["dependencies"][0]["ref"], "shop@2.0.0");
    }
}
