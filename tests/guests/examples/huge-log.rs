//! G14: prints `BYTES` (10 GB) in lines of 100 bytes, then ends well.

use wapack_sdk::Built;
use wapack_test_guests::{number, say};

wapack_test_guests::in_build!(|context| {
    let line = "x".repeat(99);
    for _ in 0..number(context, "BYTES", 10_000_000_000) / 100 {
        say(&line);
    }
    Ok(Built::new().label("after-the-log", "reached"))
});
