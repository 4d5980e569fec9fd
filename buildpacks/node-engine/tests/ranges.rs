//! Ranges mean what they mean to npm: a table, and npm's own answers to it.

#![expect(clippy::unwrap_used, reason = "helpers of tests; clippy.toml reaches only the tests themselves")]

use std::path::PathBuf;
use std::process::Command;

use nodejs_semver::Version;
use wapack_buildpack_node_engine::wanted::Wanted;

/// Range, version, whether it fits; the answers are those of npm's `semver` 7.
const CASES: [(&str, &str, bool); 64] = [
    ("20.11.1", "20.11.1", true),
    ("20.11.1", "20.11.2", false),
    ("=20.11.1", "20.11.1", true),
    ("v20.11.1", "20.11.1", true),
    ("= v20.11.1", "20.11.1", true),
    ("20", "20.0.0", true),
    ("20", "20.19.2", true),
    ("20", "21.0.0", false),
    ("20.x", "20.19.2", true),
    ("20.X.x", "20.19.2", true),
    ("20.*", "19.9.9", false),
    ("20.11", "20.11.9", true),
    ("20.11", "20.12.0", false),
    ("20.11.x", "20.11.9", true),
    ("v20", "20.3.0", true),
    ("*", "26.0.0", true),
    ("x", "26.0.0", true),
    ("", "26.0.0", true),
    ("^20", "20.99.0", true),
    ("^20", "21.0.0", false),
    ("^20.11.1", "20.11.0", false),
    ("^20.11.1", "20.12.0", true),
    ("^0.2.3", "0.2.9", true),
    ("^0.2.3", "0.3.0", false),
    ("^0.0.3", "0.0.4", false),
    ("^0.x", "0.9.0", true),
    ("^ 20.1", "20.2.0", true),
    ("~20.11.1", "20.11.9", true),
    ("~20.11.1", "20.12.0", false),
    ("~20.11", "20.11.0", true),
    ("~20", "20.99.0", true),
    ("~>20.11.1", "20.11.4", true),
    ("~ 20.11.1", "20.11.4", true),
    (">=18", "18.0.0", true),
    (">=18", "17.9.9", false),
    (">18", "18.20.0", false),
    (">18", "19.0.0", true),
    (">18.1", "18.1.9", false),
    (">18.1", "18.2.0", true),
    ("<21", "20.99.99", true),
    ("<21", "21.0.0", false),
    ("<=20", "20.99.99", true),
    ("<=20", "21.0.0", false),
    ("<=20.11", "20.11.9", true),
    (">=18 <21", "20.0.0", true),
    (">=18 <21", "21.0.0", false),
    (">= 18.0.0 < 21", "20.5.0", true),
    (">=18.0.0   <19", "18.20.4", true),
    (">=18 <21 || >=22", "21.5.0", false),
    (">=18 <21 || >=22", "22.0.0", true),
    ("20.x || 22", "22.4.0", true),
    ("20.x || 22", "21.4.0", false),
    ("20||22", "22.4.0", true),
    ("^18.18.0 || ^20.9.0 || >=21.1.0", "20.8.0", false),
    ("^18.18.0 || ^20.9.0 || >=21.1.0", "21.1.0", true),
    ("18 - 20", "18.0.0", true),
    ("18 - 20", "20.99.0", true),
    ("18 - 20", "21.0.0", false),
    ("18.5 - 20.2", "18.4.9", false),
    ("18.5.0 - 20.2.0", "20.2.1", false),
    (">=20.0.0-rc.1", "20.0.0", true),
    ("^20.0.0-0", "20.1.0", true),
    ("20.11.1+build", "20.11.1", true),
    ("<18 || >20 <20", "20.0.0", false),
];

fn fits(range: &str, version: &str) -> bool {
    Wanted::parse(range).unwrap_or_else(|| panic!("{range}")).matches(&Version::parse(version).unwrap())
}

#[test]
fn ranges_mean_what_they_mean_to_npm() {
    for (range, version, expected) in CASES {
        assert_eq!(fits(range, version), expected, "`{version}` in `{range}`");
    }
}

/// The table itself, held against the `semver` that npm brings.
#[test]
fn the_table_is_what_npm_says() {
    let Some(semver) = npms_semver() else {
        eprintln!("skipped: there is no npm here to compare with");
        return;
    };
    let asked: Vec<(&str, &str)> = CASES.iter().map(|(range, version, _)| (*range, *version)).collect();
    let script = "const [, path, cases] = process.argv; const semver = require(path); \
        console.log(JSON.stringify(JSON.parse(cases).map(([range, version]) => semver.satisfies(version, range))))";
    let output = Command::new("node")
        .args(["-e", script])
        .arg(semver)
        .arg(serde_json::to_string(&asked).unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let answers: Vec<bool> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answers.len(), CASES.len());
    for ((range, version, expected), answer) in CASES.into_iter().zip(answers) {
        assert_eq!(expected, answer, "`{version}` in `{range}`");
    }
}

/// The package inside of npm itself.
fn npms_semver() -> Option<PathBuf> {
    let output = Command::new("npm").args(["root", "--global"]).output().ok()?;
    let root = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    let semver = root.join("npm/node_modules/semver");
    semver.is_dir().then_some(semver)
}
