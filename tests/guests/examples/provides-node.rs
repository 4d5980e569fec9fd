//! Provides `node` without bringing any: lets buildpacks that need it run.

use wapack_sdk::{BuildContext, Buildpack, Built, DetectContext, Detected, Error};

struct ProvidesNode;

impl Buildpack for ProvidesNode {
    fn detect(_: &DetectContext) -> Result<Detected, Error> {
        Ok(Detected::pass().provides("node"))
    }

    fn build(_: &BuildContext) -> Result<Built, Error> {
        Ok(Built::new())
    }
}

wapack_sdk::export!(ProvidesNode);
