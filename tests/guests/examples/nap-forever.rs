//! G2: sleeps a millisecond at a time, for ever: little CPU, many host calls.

use std::time::Duration;

wapack_test_guests::in_build!(|_| {
    loop {
        std::thread::sleep(Duration::from_millis(1));
    }
});
