//! G1: `build` never returns.

use wapack_sdk::{BuildContext, Built, Error};

fn build(_: &BuildContext) -> Result<Built, Error> {
    loop {
        std::hint::black_box(());
    }
}

wapack_test_guests::in_build!(build);
