//! G2: sleeps a millisecond at a time, for ever: little CPU, many host calls.

use std::time::Duration;

use wapack_sdk::{BuildContext, Built, Error};

fn build(_: &BuildContext) -> Result<Built, Error> {
    loop {
        std::thread::sleep(Duration::from_millis(1));
    }
}

wapack_test_guests::in_build!(build);
