//! G5: opens a layer under a key-sized name of `BYTES`, 64 MiB by default.

use wapack_sdk::{Built, LayerTypes};
use wapack_test_guests::{number, report};

wapack_test_guests::in_build!(|context| {
    let bytes = usize::try_from(number(context, "BYTES", 64 * 1024 * 1024)).unwrap_or(usize::MAX);
    let opened = context.layer("x".repeat(bytes), LayerTypes::LAUNCH).key::<&str>(&[]).fill(|_| Ok(()));
    report("huge name", &opened.map_err(|error| error.message.chars().take(200).collect::<String>()));
    Ok(Built::new())
});
