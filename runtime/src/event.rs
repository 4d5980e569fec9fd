//! What happens during a build, as values. The library never prints.

use std::time::Duration;

use serde::Serialize;

use crate::cnb::id::BuildpackRef;
use crate::cnb::layer::LayerTypes;

/// A phase of the build, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Read the previous build of the image and the run image.
    Analyze,
    /// Decide who takes part.
    Detect,
    /// Look up what can be used again.
    Restore,
    /// Run the buildpacks.
    Build,
    /// Make the image.
    Export,
}

/// How one buildpack's `detect` ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "verdict")]
pub enum Verdict {
    Pass,
    /// Does not apply.
    Fail {
        reason: String,
    },
    /// Went wrong.
    Error {
        message: String,
    },
}

/// Which way layers go between this machine and where images are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transfer {
    /// To this machine.
    Fetch,
    /// To the place of the image.
    Publish,
}

/// How a layer got into the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerSource {
    /// Made by this build.
    Added,
    /// Taken over, untouched.
    Reused,
}

/// What became of a layer of a buildpack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LayerFate {
    /// As the last build left it, contents and all.
    Reused,
    /// As it is in the last image; its contents are not on this machine.
    Kept,
    /// The one of the last build, with changes.
    Changed,
    /// Made by this build.
    Rebuilt,
    /// Not in this build any more.
    Dropped,
}

/// Why that became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "reason")]
pub enum LayerReason {
    /// What the buildpack says the contents depend on is the same.
    SameKey { key: String },
    /// It is another, and the buildpack does not say it input by input.
    KeyChanged { old: String, new: String },
    /// Some of it is another.
    InputsChanged { changed: Vec<ChangedInput> },
    /// The layer is for something else than it was.
    TypesChanged { old: LayerTypes, new: LayerTypes },
    /// The last build left none, or none that is sound.
    NoEarlierLayer,
    /// It is for the build only, so nothing of it is ever kept.
    NeverCached,
    /// The last build left what it is, but not its contents.
    ContentsMissing,
    /// The buildpack wrote to what was restored.
    WrittenTo,
    /// The buildpack changed what the layer does to the environment.
    EnvironmentChanged,
    /// The buildpack did not ask for it.
    NoLongerMade,
}

/// One of the things that a layer's contents depend on, and is another now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChangedInput {
    pub name: String,
    /// `None` when the last build had no such input.
    pub old: Option<String>,
    /// `None` when this build has none.
    pub new: Option<String>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum Event {
    PhaseStarted {
        phase: Phase,
    },
    PhaseFinished {
        phase: Phase,
        #[serde(serialize_with = "milliseconds", rename = "milliseconds")]
        elapsed: Duration,
    },
    /// One member of a group was asked.
    Detected {
        buildpack: BuildpackRef,
        #[serde(flatten)]
        verdict: Verdict,
    },
    /// Everything one member of a group printed, told by the programs of the
    /// lifecycle once detection is over; its verdict follows.
    DetectOutput {
        buildpack: BuildpackRef,
        lines: Vec<String>,
        /// Whether it is for everybody; else for those who look for a mistake.
        prominent: bool,
    },
    /// The group that builds: image extensions, then buildpacks.
    GroupChosen {
        buildpacks: Vec<BuildpackRef>,
        considered: usize,
    },
    /// A component is compiled to native code, once; this takes a moment.
    Compiling {
        buildpack: BuildpackRef,
    },
    /// A layer of the last build that may be used again.
    LayerRestored {
        buildpack: BuildpackRef,
        layer: String,
    },
    /// A buildpack starts building.
    BuildpackStarted {
        buildpack: BuildpackRef,
    },
    /// A buildpack has built.
    BuildpackFinished {
        buildpack: BuildpackRef,
        #[serde(serialize_with = "milliseconds", rename = "milliseconds")]
        elapsed: Duration,
    },
    /// A buildpack printed a line; control characters are already escaped.
    Output {
        buildpack: BuildpackRef,
        line: String,
    },
    /// Why a layer of a buildpack was used again, or was not.
    LayerExplained {
        buildpack: BuildpackRef,
        layer: String,
        fate: LayerFate,
        #[serde(flatten)]
        reason: LayerReason,
        /// The version of the buildpack that made the last one, if it was another.
        version_was: Option<String>,
    },
    /// A layer of the image is settled.
    LayerExported {
        name: String,
        source: LayerSource,
        bytes: u64,
        digest: String,
    },
    /// Downloads that are on their way or done, in this fetch.
    Download {
        done_bytes: u64,
        /// As far as the servers said.
        total_bytes: Option<u64>,
        done_files: usize,
        total_files: usize,
    },
    /// Bytes of layers written so far.
    Progress {
        done_bytes: u64,
        total_bytes: Option<u64>,
    },
    /// Bytes of layers that were fetched or written so far; what is there is not among them.
    Transfer {
        transfer: Transfer,
        done_bytes: u64,
        /// As far as it is known by now.
        total_bytes: u64,
    },
    /// The image is where it belongs.
    ImageWritten {
        reference: String,
        digest: String,
        bytes: u64,
    },
    /// Something the user should know that does not stop the build.
    Warning {
        message: String,
    },
    /// Something to know, without alarm.
    Note {
        message: String,
    },
    /// Something for `--verbose`.
    Detail {
        message: String,
    },
}

fn milliseconds<S: serde::Serializer>(elapsed: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((elapsed.as_secs_f64() * 1e6).round() / 1e3)
}

/// Takes events as they happen.
pub trait EventSink {
    fn event(&mut self, event: Event);
}

impl<F: FnMut(Event)> EventSink for F {
    fn event(&mut self, event: Event) {
        self(event);
    }
}
