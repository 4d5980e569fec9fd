//! G5: asks for `BYTES` random bytes in one call, 4 GiB less one by default.
#![cfg(target_family = "wasm")]

use wapack_sdk::Built;
use wapack_test_guests::{number, say};

wapack_test_guests::in_build!(|context| {
    let bytes = wasip2::random::random::get_random_bytes(number(context, "BYTES", u64::from(u32::MAX)));
    say(format_args!("got {} bytes", bytes.len()));
    Ok(Built::new())
});
