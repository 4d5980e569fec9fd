//! Finds what `cargo xtask embed` built, for `src/embedded.rs` to take in.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// Where to look; the target directory otherwise.
const VARIABLE: &str = "WAPACK_EMBED_DIR";

fn main() {
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    let Some(directory) = find() else {
        println!(
            "cargo::error=the built-in buildpacks and launcher are not there yet; run `cargo xtask embed` first \
             (or set {VARIABLE} to where it put them)"
        );
        return;
    };
    for file in ["builder.tar.gz", "builder.digest", "launcher/linux-amd64", "launcher/linux-arm64"] {
        let path = directory.join(file);
        println!("cargo::rerun-if-changed={}", path.display());
        if !path.is_file() {
            println!("cargo::error=`{}` is missing; run `cargo xtask embed` first", path.display());
        }
    }
    let digest = fs::read_to_string(directory.join("builder.digest")).unwrap_or_default();
    println!("cargo::rustc-env=WAPACK_EMBED_DIR={}", directory.display());
    println!("cargo::rustc-env=WAPACK_BUILDER_DIGEST={}", digest.trim());
}

/// The named directory, or `embed` in the target directory, which is one of the
/// parents of where this script may write.
fn find() -> Option<PathBuf> {
    if let Some(named) = env::var_os(VARIABLE).filter(|named| !named.is_empty()) {
        return Some(named.into());
    }
    let output = PathBuf::from(env::var_os("OUT_DIR")?);
    let beside_output = output.ancestors().map(|ancestor| ancestor.join("embed"));
    // Cargo can be told to put what it builds elsewhere than its results.
    let default = Path::new(&env::var_os("CARGO_MANIFEST_DIR")?).join("../target/embed");
    beside_output.chain([default]).find(|candidate| candidate.join("builder.digest").is_file())
}
