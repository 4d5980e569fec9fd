//! G7: writes `BYTES` (64 MiB) into a file and deletes it, `COUNT` times. What
//! is gone must not count, and what counts must not be got round that way.

use std::fs;

use wapack_sdk::Built;
use wapack_test_guests::{number, say, scratch_layer};

wapack_test_guests::in_build!(|context| {
    let layer = scratch_layer(context)?;
    let path = layer.path().join("file");
    let contents = vec![7; usize::try_from(number(context, "BYTES", 64 << 20)).unwrap_or(usize::MAX)];
    for round in 0..number(context, "COUNT", 100) {
        if let Err(error) = fs::write(&path, &contents).and_then(|()| fs::remove_file(&path)) {
            say(format_args!("refused in round {round}: {:?}", error.kind()));
            return Ok(Built::new());
        }
    }
    say("all rounds done");
    Ok(Built::new())
});
