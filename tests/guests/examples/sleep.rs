//! G2: blocks inside the host, for `SECONDS` or 500 years.

use std::time::Duration;

use wapack_sdk::Built;
use wapack_test_guests::{number, say};

wapack_test_guests::in_build!(|context| {
    std::thread::sleep(Duration::from_secs(number(context, "SECONDS", 500 * 365 * 24 * 3600)));
    say("awake");
    Ok(Built::new())
});
