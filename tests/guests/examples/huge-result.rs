//! G5: returns a label of `BYTES`, 64 MiB by default.

use wapack_sdk::{BuildContext, Built, Error};
use wapack_test_guests::number;

fn build(context: &BuildContext) -> Result<Built, Error> {
    let bytes = usize::try_from(number(context, "BYTES", 64 * 1024 * 1024)).unwrap_or(usize::MAX);
    Ok(Built::new().label("huge", "x".repeat(bytes)))
}

wapack_test_guests::in_build!(build);
