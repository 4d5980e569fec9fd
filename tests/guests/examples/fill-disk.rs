//! G7: writes `BYTES` (1 TiB by default) into one file of a layer, or of
//! `DIRECTORY`.

use std::fs::File;
use std::io::Write;

use wapack_sdk::Built;
use wapack_test_guests::{number, say, scratch_layer, text};

wapack_test_guests::in_build!(|context| {
    let layer = scratch_layer(context)?;
    let layer_directory = layer.path().display().to_string();
    let path = format!("{}/filler", text(context, "DIRECTORY", &layer_directory));
    let mut file = File::create(&path)?;
    let block = vec![7; 1024 * 1024];
    let mut written = 0;
    while written < number(context, "BYTES", 1 << 40) {
        if let Err(error) = file.write_all(&block) {
            say(format_args!("refused after {written} bytes: {:?}", error.kind()));
            return Ok(Built::new());
        }
        written += block.len() as u64;
    }
    say(format_args!("wrote {written} bytes"));
    Ok(Built::new().layer(layer))
});
