//! G8: makes names of 255, 256 and 65,536 bytes, and of characters that break
//! other people's tools.

use std::fs;

use wapack_sdk::Built;
use wapack_test_guests::{report, scratch_layer};

wapack_test_guests::in_build!(|context| {
    let layer = scratch_layer(context)?;
    for length in [255, 256, 65_536] {
        let made = fs::write(layer.path().join("n".repeat(length)), "");
        report(format_args!("name of {length} bytes"), &made.map_err(|error| error.kind()));
    }
    for name in
        ["line\nbreak", "esc\u{1b}[31m", "back\\slash", "-rf", "\u{202e}gnp", ".wh.passwd", ".wh..wh..opq"]
    {
        let made = fs::write(layer.path().join(name), "");
        report(format_args!("{name:?}"), &made.map_err(|error| error.kind()));
    }
    Ok(Built::new().layer(layer))
});
