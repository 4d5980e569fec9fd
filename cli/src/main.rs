//! Placeholder for the command line: says what is built in.

#![expect(clippy::print_stdout, reason = "a command line program speaks")]

mod embedded;

fn main() {
    println!(
        "wapack {}: builder {} ({} bytes), launchers {} and {} bytes",
        env!("CARGO_PKG_VERSION"),
        embedded::BUILDER_DIGEST,
        embedded::BUILDER_ARCHIVE.len(),
        embedded::LAUNCHER_AMD64.len(),
        embedded::LAUNCHER_ARM64.len()
    );
}
