//! The bill of materials: what was installed, for those who look for known
//! holes in it.

use serde_json::Value;
use wapack_sdk::sbom::{Component, CycloneDx};

use crate::tree::Node;

/// What the lock says about the packages, in a document.
pub fn bill(packages: &[&Node<'_>]) -> CycloneDx {
    let mut bill = CycloneDx::new();
    for package in packages {
        bill.add(component(package));
    }
    bill
}

/// A package under its real name, also where an alias stands for it.
fn component(node: &Node<'_>) -> Component {
    let component = Component::npm(node.package_name(), node.version());
    let component = match &node.entry.integrity {
        Some(integrity) => component.integrity(integrity.as_str()),
        None => component,
    };
    // Old packages have a table with the type in it.
    match &node.entry.license {
        Value::String(license) => component.license(license),
        Value::Object(license) => match license.get("type").and_then(Value::as_str) {
            Some(license) => component.license(license),
            None => component,
        },
        _ => component,
    }
}
