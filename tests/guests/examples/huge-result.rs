//! G5: returns a label of `BYTES`, 64 MiB by default.

use wapack_sdk::Built;
use wapack_test_guests::number;

wapack_test_guests::in_build!(|context| {
    let bytes = usize::try_from(number(context, "BYTES", 64 * 1024 * 1024)).unwrap_or(usize::MAX);
    Ok(Built::new().label("huge", "x".repeat(bytes)))
});
