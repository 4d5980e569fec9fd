//! G8: makes `COUNT` (10 million) empty files, a thousand to a directory.

use std::fs;

use wapack_sdk::Built;
use wapack_test_guests::{number, say, scratch_layer};

wapack_test_guests::in_build!(|context| {
    let layer = scratch_layer(context)?;
    for index in 0..number(context, "COUNT", 10_000_000) {
        let directory = layer.path().join((index / 1000).to_string());
        if let Err(error) =
            fs::create_dir_all(&directory).and_then(|()| fs::write(directory.join(index.to_string()), ""))
        {
            say(format_args!("refused after {index} files: {:?}", error.kind()));
            return Ok(Built::new().layer(layer));
        }
    }
    say("made them all");
    Ok(Built::new().layer(layer))
});
