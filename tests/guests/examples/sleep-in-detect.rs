//! G2: blocks inside the host in `detect`, for 500 years.

use std::time::Duration;

use wapack_sdk::{BuildContext, Buildpack, Built, DetectContext, Detected, Error};

struct Guest;

impl Buildpack for Guest {
    fn detect(_: &DetectContext) -> Result<Detected, Error> {
        std::thread::sleep(Duration::from_hours(500 * 365 * 24));
        Ok(Detected::pass())
    }

    fn build(_: &BuildContext) -> Result<Built, Error> {
        Ok(Built::new())
    }
}

wapack_sdk::export!(Guest);
