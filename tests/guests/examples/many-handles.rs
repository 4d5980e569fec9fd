//! G5: opens the same file `COUNT` times and closes none.

use std::fs::File;

use wapack_sdk::{Built, fs};
use wapack_test_guests::{number, say, scratch_layer};

wapack_test_guests::in_build!(|context| {
    let layer = scratch_layer(context)?;
    let path = layer.path().join("file");
    fs::write(&path, "x")?;
    let mut held = Vec::new();
    for _ in 0..number(context, "COUNT", 1_000_000) {
        match File::open(&path) {
            Ok(file) => held.push(file),
            Err(error) => {
                say(format_args!("refused after {}: {:?}", held.len(), error.kind()));
                return Ok(Built::new());
            }
        }
    }
    say(format_args!("opened {}", held.len()));
    Ok(Built::new())
});
