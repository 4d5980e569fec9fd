//! Who answers guests that may ask for nothing.

use std::path::PathBuf;

use crate::cnb::id::{BuildpackRef, LayerName};
use crate::cnb::layer::LayerTypes;
use crate::executor::{Arrivals, ArtifactRequest, BuildHost, LogSink, OpenedLayer, Refusal};

/// `detect` has no layers and no downloads.
pub(super) struct DetectHost<'a>(pub(super) &'a mut dyn LogSink);

/// For calls whose output was shown already.
pub(super) struct NoHost;

impl LogSink for DetectHost<'_> {
    fn line(&mut self, buildpack: &BuildpackRef, line: &str) {
        self.0.line(buildpack, line);
    }

    fn compiling(&mut self, buildpack: &BuildpackRef) {
        self.0.compiling(buildpack);
    }
}

impl LogSink for NoHost {
    fn line(&mut self, _: &BuildpackRef, _: &str) {}
}

macro_rules! refuse_everything {
    ($host:ty) => {
        impl BuildHost for $host {
            fn open_layer(&mut self, _: &LayerName, _: LayerTypes, _: &str) -> Result<OpenedLayer, Refusal> {
                Err(Refusal::not_in_detect())
            }

            fn update_layer(&mut self, _: &LayerName) -> Result<PathBuf, Refusal> {
                Err(Refusal::not_in_detect())
            }

            fn fetch(&mut self, artifacts: Vec<ArtifactRequest>, arrivals: Arrivals) {
                (0..artifacts.len()).for_each(|index| arrivals(index, Err(Refusal::not_in_detect())));
            }
        }
    };
}

refuse_everything!(DetectHost<'_>);
refuse_everything!(NoHost);
