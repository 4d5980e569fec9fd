//! G2: waits for several timers at once, none of which ends in our lifetime.
#![cfg(target_family = "wasm")]

use wapack_sdk::Built;
use wasip2::clocks::monotonic_clock::subscribe_duration;
use wasip2::io::poll::poll;

wapack_test_guests::in_build!(|_| {
    let timers = [subscribe_duration(u64::MAX), subscribe_duration(u64::MAX / 2)];
    poll(&timers.each_ref());
    Ok(Built::new())
});
