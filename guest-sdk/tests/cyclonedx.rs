//! Bills of materials fit the published schema, by the word of the format's own
//! Python library, which brings the schema along.

#![expect(clippy::unwrap_used, reason = "helpers of tests; clippy.toml reaches only the tests themselves")]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use wapack_sdk::sbom::{Component, ComponentKind, CycloneDx};

/// Exact, so that a new version of the library is a change of this line.
const LIBRARY: &str = "cyclonedx-python-lib[json-validation]==11.12.0";

/// Prints what is wrong with the document on standard input, if anything is.
const VALIDATE: &str = "
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
print(JsonStrictValidator(SchemaVersion.V1_5).validate_str(sys.stdin.read()) or 'valid', end='')
";

/// Where pip puts the library, once; `None`, said aloud, when it cannot.
#[expect(clippy::print_stderr, reason = "a test that does nothing says so")]
fn install() -> Option<PathBuf> {
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cyclonedx-python-lib");
    if directory.join("complete").is_file() {
        return Some(directory);
    }
    let output = Command::new("python3")
        .args(["-m", "pip", "install", "--quiet", "--upgrade", "--target"])
        .args([directory.as_os_str(), LIBRARY.as_ref()])
        .output();
    match output {
        Ok(output) if output.status.success() => {
            std::fs::write(directory.join("complete"), "").unwrap();
            Some(directory)
        }
        Ok(output) => {
            eprintln!("skipped: pip does not get the library: {}", String::from_utf8_lossy(&output.stderr));
            None
        }
        Err(error) => {
            eprintln!("skipped: python does not start: {error}");
            None
        }
    }
}

fn library() -> Option<&'static PathBuf> {
    static INSTALLED: LazyLock<Option<PathBuf>> = LazyLock::new(install);
    INSTALLED.as_ref()
}

fn verdict(library: &PathBuf, document: &str) -> String {
    let mut child = Command::new("python3")
        .args(["-c", VALIDATE])
        .env("PYTHONPATH", library)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(document.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_bill_fits_the_published_schema() {
    let Some(library) = library() else { return };
    let sha512 = format!("sha512-{}==", "A".repeat(86));
    let app = Component::new(ComponentKind::Application, "shop", "1.0.0").license("UNLICENSED");
    let mut bill = CycloneDx::new().about(app.clone());
    for (name, license) in [
        ("@acme/left-pad", "MIT"),
        ("odd", "SEE LICENSE IN LICENSE.md"),
        ("both", "(MIT OR Apache-2.0)"),
        ("old", "GPL-2.0"),
        ("none", ""),
    ] {
        let component = Component::npm(name, "1.2.3-rc.1+build").license(license).integrity(&sha512);
        bill.depends(app.reference(), component.reference());
        bill.add(component);
    }
    bill.add(
        Component::cargo("static-web-server", "2.44.1").integrity(&format!("sha256:{}", "0".repeat(64))),
    );
    bill.add(Component::generic("node", "20.11.1").cpe("cpe:2.3:a:nodejs:node.js:20.11.1:*:*:*:*:*:*:*"));
    let document = bill.to_json();
    assert_eq!(verdict(library, &document), "valid");
    // The schema is really asked.
    let wrong = document.replace("\"id\":\"MIT\"", "\"id\":\"MITT\"");
    assert_ne!(verdict(library, &wrong), "valid");
    assert_ne!(verdict(library, &document.replace("urn:uuid:", "urn:")), "valid");
}

/// An empty bill is one, too.
#[test]
fn a_bill_without_components_fits() {
    let Some(library) = library() else { return };
    assert_eq!(verdict(library, &CycloneDx::new().to_json()), "valid");
}
