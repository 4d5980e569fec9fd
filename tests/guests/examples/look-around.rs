//! G20: puts into a layer and the log all that could differ between two builds:
//! clocks, random numbers, the order of directories, times and identities of files.

use std::collections::hash_map::RandomState;
use std::fmt::Write;
use std::hash::BuildHasher;
use std::time::{Instant, SystemTime};

use wapack_sdk::{Built, files, fs};
use wapack_test_guests::{say, scratch_layer};

wapack_test_guests::in_build!(|context| {
    let layer = scratch_layer(context)?;
    let mut seen = String::new();
    let start = Instant::now();
    let _ = writeln!(seen, "now {:?}", SystemTime::now());
    let _ = writeln!(seen, "random {:x}", RandomState::new().hash_one(1));
    for entry in std::fs::read_dir(&context.app)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        let _ = writeln!(
            seen,
            "{:?} {:?} {}",
            entry.file_name().to_string_lossy(),
            metadata.modified().ok(),
            metadata.len()
        );
    }
    let _ = writeln!(seen, "app {}", files::hash_tree(&context.app)?);
    let _ = writeln!(seen, "{:?}", std::env::vars().collect::<Vec<_>>());
    #[cfg(target_family = "wasm")]
    for (descriptor, path) in wasip2::filesystem::preopens::get_directories() {
        let _ = writeln!(
            seen,
            "{path} {:?}",
            descriptor.metadata_hash().ok().map(|hash| (hash.lower, hash.upper))
        );
    }
    say(&seen);
    // Waiting has to be possible, so this one may differ; it is coarse.
    say(format_args!("took {:?}", start.elapsed()));
    fs::write(layer.path().join("seen"), seen)?;
    Ok(Built::new().layer(layer))
});
