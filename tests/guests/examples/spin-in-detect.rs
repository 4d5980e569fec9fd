//! G1: `detect` never returns.

use wapack_sdk::{BuildContext, Buildpack, Built, DetectContext, Detected, Error};

struct Guest;

impl Buildpack for Guest {
    fn detect(_: &DetectContext) -> Result<Detected, Error> {
        loop {
            std::hint::black_box(());
        }
    }

    fn build(_: &BuildContext) -> Result<Built, Error> {
        Ok(Built::new())
    }
}

wapack_sdk::export!(Guest);
