//! G14: prints `BYTES` (1 GB) without an end of line, NULs among them.

use std::io::Write;

use wapack_sdk::Built;
use wapack_test_guests::number;

wapack_test_guests::in_build!(|context| {
    let block = b"no end \0 in sight ".repeat(1024);
    let mut written = 0;
    while written < number(context, "BYTES", 1_000_000_000) {
        std::io::stdout().write_all(&block)?;
        written += block.len() as u64;
    }
    Ok(Built::new().label("after-the-line", "reached"))
});
