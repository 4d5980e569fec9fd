//! What the guests in `examples/` share, and the components that Rust cannot
//! express ([`raw`]).
//!
//! A guest takes its parameters from the user's variables and says what
//! happened in its log, one line an attempt: `<what>: done` or
//! `<what>: refused: <kind>`. It never decides whether that was right; the test
//! does.

#[cfg(not(target_family = "wasm"))]
pub mod raw;

use std::fmt::{Debug, Display};
use std::io;
use std::path::Path;

use wapack_sdk::{BuildContext, DetectContext, Error, Layer, LayerTypes};

/// Makes a guest of what it does in `build`; its `detect` passes.
#[macro_export]
macro_rules! in_build {
    (|$context:pat_param| $build:block) => {
        struct Guest;

        impl wapack_sdk::Buildpack for Guest {
            fn detect(_: &wapack_sdk::DetectContext) -> Result<wapack_sdk::Detected, wapack_sdk::Error> {
                Ok(wapack_sdk::Detected::pass())
            }

            fn build($context: &wapack_sdk::BuildContext) -> Result<wapack_sdk::Built, wapack_sdk::Error> {
                $build
            }
        }

        wapack_sdk::export!(Guest);
    };
}

/// Writes one line to the log.
#[expect(clippy::print_stdout, reason = "a guest's log is its standard output")]
pub fn say(line: impl Display) {
    println!("{line}");
}

/// Says how an attempt ended.
pub fn report<T, E: Debug>(what: impl Display, result: &Result<T, E>) {
    match result {
        Ok(_) => say(format_args!("{what}: done")),
        Err(error) => say(format_args!("{what}: refused: {error:?}")),
    }
}

/// The user's variable `name`, or `default`.
pub fn text<'a>(context: &'a DetectContext, name: &str, default: &'a str) -> &'a str {
    context.user_env.get(name).map_or(default, String::as_str)
}

/// The user's variable `name` as a number, or `default`.
pub fn number(context: &DetectContext, name: &str, default: u64) -> u64 {
    context.user_env.get(name).and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// An empty layer to do harm in.
///
/// # Errors
/// When the host refuses it.
pub fn scratch_layer(context: &BuildContext) -> Result<Layer, Error> {
    context.layer("scratch", LayerTypes::LAUNCH).key::<&str>(&[]).fill(|_| Ok(()))
}

/// A symbolic link, on every target.
///
/// # Errors
/// As `std::fs::soft_link`.
#[expect(deprecated, reason = "what replaces it differs between targets")]
pub fn symlink(target: impl AsRef<Path>, link: impl AsRef<Path>) -> io::Result<()> {
    std::fs::soft_link(target, link)
}
