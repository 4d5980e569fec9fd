//! Every flag of every program: its variable, its default, and since when it is there.
//!
//! One row says all there is to say about a flag; nothing else knows its name but
//! [`super::inputs`], which puts its value where it belongs.

use std::fmt::Write as _;

use wapack_runtime::cnb::api::PlatformApi;

use super::go_flags::Takes;
use super::program::Program::{
    self, Analyzer, Builder, Creator, Detector, Exporter, Extender, Rebaser, Restorer,
};

/// What the value of a flag is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    /// A file or a directory; made absolute.
    Path,
    /// Yes or no.
    Switch,
    /// The number of a user or a group.
    Number,
    /// As Go writes it: `336h`, `1h30m`.
    Duration,
    /// Given once for each value; the variable has them with commas between.
    List,
}

/// The value without flag and variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fallback {
    Nothing,
    Is(&'static str),
    /// A name in the layers directory that is in force.
    InLayers(&'static str),
}

/// The programs that have a flag, from and before which Platform API 0.x.
#[derive(Debug, Clone, Copy)]
struct Where {
    programs: &'static [Program],
    from: u64,
    before: Option<u64>,
}

/// One flag.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flag {
    pub(super) name: &'static str,
    /// Read where the flag is not given.
    pub(super) variables: &'static [&'static str],
    pub(super) default: Fallback,
    pub(super) kind: Kind,
    places: &'static [Where],
    pub(super) help: &'static str,
}

impl Flag {
    pub(super) fn takes(&self) -> Takes {
        if self.kind == Kind::Switch { Takes::MaybeValue } else { Takes::Value }
    }

    /// Whether a program has it.
    pub(super) fn is_of(&self, program: Program, api: PlatformApi) -> bool {
        self.places.iter().any(|place| {
            place.programs.contains(&program)
                && api.at_least(place.from)
                && place.before.is_none_or(|before| !api.at_least(before))
        })
    }
}

/// The flag with a name, whichever programs have it.
pub(super) fn flag(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.name == name)
}

/// What the flags of a program are, for people.
pub(super) fn usage(program: Program, api: PlatformApi) -> String {
    let mut text = format!("Usage of {} (Platform API {api}):", program.name());
    for flag in FLAGS.iter().filter(|flag| flag.is_of(program, api)) {
        let default = match flag.default {
            Fallback::Nothing => String::new(),
            Fallback::Is(default) => format!(" (default `{default}`)"),
            Fallback::InLayers(name) => format!(" (default `<layers>/{name}`)"),
        };
        let variable = flag.variables.first().map(|name| format!(" [{name}]")).unwrap_or_default();
        let _ = write!(text, "\n  -{}\n    \t{}{variable}{default}", flag.name, flag.help);
    }
    text
}

const EVERY: &[Program] = &Program::ALL;

/// The oldest Platform API that is spoken.
const OLDEST: u64 = 7;

const fn always(programs: &'static [Program]) -> Where {
    Where { programs, from: OLDEST, before: None }
}

const fn since(from: u64, programs: &'static [Program]) -> Where {
    Where { programs, from, before: None }
}

const fn until(before: u64, programs: &'static [Program]) -> Where {
    Where { programs, from: OLDEST, before: Some(before) }
}

macro_rules! flags {
    ($($name:literal $kind:ident [$($variable:literal)*] $default:expr, [$($place:expr),*], $help:literal;)*) => {
        &[$(Flag {
            name: $name,
            kind: Kind::$kind,
            variables: &[$($variable),*],
            default: $default,
            places: &[$($place),*],
            help: $help,
        }),*]
    };
}

use Fallback::{InLayers, Is, Nothing};

/// All flags, by name.
///
/// # Spec
/// `platform.md` 0.15 "Lifecycle Interface", the tables of inputs; which Platform API
/// a flag came or went with is what the reference lifecycle does.
#[rustfmt::skip]
pub(super) const FLAGS: &[Flag] = flags![
    "analyzed" Path ["CNB_ANALYZED_PATH"] InLayers("analyzed.toml"),
        [always(&[Analyzer, Restorer, Extender, Exporter]), since(10, &[Detector]), since(12, &[Builder])],
        "path to analyzed.toml";
    "app" Path ["CNB_APP_DIR"] Is("/workspace"),
        [always(&[Detector, Extender, Builder, Exporter, Creator])],
        "path to app directory";
    // The specification has it for the extender too, the reference has not.
    "build-config" Path ["CNB_BUILD_CONFIG_DIR"] Is("/cnb/build-config"),
        [since(11, &[Detector, Extender, Builder, Creator])],
        "path to build config directory";
    "build-image" Text ["CNB_BUILD_IMAGE"] Nothing,
        [since(10, &[Restorer])],
        "reference to build image";
    "buildpacks" Path ["CNB_BUILDPACKS_DIR"] Is("/cnb/buildpacks"),
        [always(&[Detector, Extender, Builder, Creator])],
        "path to buildpacks directory";
    "cache-dir" Path ["CNB_CACHE_DIR"] Nothing,
        [always(&[Restorer, Exporter, Creator])],
        "path to cache directory";
    "cache-image" Text ["CNB_CACHE_IMAGE"] Nothing,
        [always(&[Analyzer, Restorer, Exporter, Creator])],
        "reference to cache image";
    "daemon" Switch ["CNB_USE_DAEMON"] Nothing,
        [always(&[Analyzer, Exporter, Creator, Rebaser]), since(12, &[Restorer])],
        "read and write images in a docker daemon";
    "extended" Path ["CNB_EXTENDED_DIR"] InLayers("extended"),
        [since(12, &[Extender, Exporter])],
        "path to the layers of extended images";
    "extensions" Path ["CNB_EXTENSIONS_DIR"] Is("/cnb/extensions"),
        [since(10, &[Detector])],
        "path to image extensions directory";
    "force" Switch ["CNB_FORCE_REBASE"] Nothing,
        [since(12, &[Rebaser])],
        "rebase even where it is unsafe";
    "generated" Path ["CNB_GENERATED_DIR"] InLayers("generated"),
        [always(&[Extender]), since(10, &[Detector]), since(12, &[Restorer])],
        "path to what image extensions generate";
    "gid" Number ["CNB_GROUP_ID"] Nothing,
        [always(&[Analyzer, Restorer, Extender, Exporter, Creator, Rebaser])],
        "group id of the user of the build image";
    "group" Path ["CNB_GROUP_PATH"] InLayers("group.toml"),
        [always(&[Detector, Restorer, Extender, Builder, Exporter])],
        "path to group.toml";
    "image" Text [] Nothing,
        [always(&[Exporter, Rebaser])],
        "[deprecated] reference to run image";
    "insecure-registry" List ["CNB_INSECURE_REGISTRIES"] Nothing,
        [since(13, &[Analyzer, Restorer, Exporter, Creator, Rebaser])],
        "registry that may be spoken to without TLS; can be given again";
    "kaniko-cache-ttl" Duration ["CNB_KANIKO_CACHE_TTL"] Is("336h"),
        [always(&[Extender])],
        "how long layers of extended images are cached";
    "kind" Text ["CNB_EXTEND_KIND"] Is("build"),
        [since(12, &[Extender])],
        "kind of image to extend: `build` or `run`";
    "launch-cache" Path ["CNB_LAUNCH_CACHE_DIR"] Nothing,
        [always(&[Exporter, Creator]), since(9, &[Analyzer])],
        "path to launch cache directory";
    "launcher" Path [] Is("/cnb/lifecycle/launcher"),
        [always(&[Exporter, Creator])],
        "path to launcher";
    "launcher-sbom" Path [] Is("/cnb/lifecycle"),
        [since(11, &[Exporter, Creator])],
        "path to the directory with the launcher's bills of materials";
    "layers" Path ["CNB_LAYERS_DIR"] Is("/layers"),
        [always(&[Analyzer, Detector, Restorer, Extender, Builder, Exporter, Creator])],
        "path to layers directory";
    "layout" Switch ["CNB_USE_LAYOUT"] Nothing,
        [since(12, &[Analyzer, Restorer, Exporter, Creator])],
        "read and write images in OCI image layouts";
    "layout-dir" Path ["CNB_LAYOUT_DIR"] Nothing,
        [since(12, &[Analyzer, Restorer, Exporter, Creator])],
        "path to the directory with the OCI image layouts";
    "log-level" Text ["CNB_LOG_LEVEL"] Is("info"),
        [always(EVERY)],
        "how much is said: `debug`, `info`, `warn` or `error`";
    "no-color" Switch ["CNB_NO_COLOR"] Nothing,
        [always(EVERY)],
        "no colours";
    "order" Path ["CNB_ORDER_PATH"] Nothing,
        [always(&[Detector, Creator])],
        "path to order.toml";
    "parallel" Switch ["CNB_PARALLEL_EXPORT"] Nothing,
        [always(&[Exporter, Creator])],
        "write app image and cache image at the same time";
    "plan" Path ["CNB_PLAN_PATH"] InLayers("plan.toml"),
        [always(&[Detector, Extender, Builder])],
        "path to plan.toml";
    "platform" Path ["CNB_PLATFORM_DIR"] Is("/platform"),
        [always(&[Detector, Extender, Builder, Creator])],
        "path to platform directory";
    "previous-image" Text ["CNB_PREVIOUS_IMAGE"] Nothing,
        [always(&[Analyzer, Creator]), since(11, &[Rebaser])],
        "reference to previous image";
    "process-type" Text ["CNB_PROCESS_TYPE"] Nothing,
        [always(&[Exporter, Creator])],
        "type of the default process";
    "project-metadata" Path ["CNB_PROJECT_METADATA_PATH"] InLayers("project-metadata.toml"),
        [always(&[Exporter, Creator])],
        "path to project-metadata.toml";
    "report" Path ["CNB_REPORT_PATH"] InLayers("report.toml"),
        [always(&[Exporter, Creator, Rebaser])],
        "path to report.toml";
    "run" Path ["CNB_RUN_PATH"] Is("/cnb/run.toml"),
        [since(12, &[Analyzer, Detector, Exporter, Creator]), since(14, &[Restorer])],
        "path to run.toml";
    "run-image" Text ["CNB_RUN_IMAGE"] Nothing,
        [always(&[Analyzer, Creator, Rebaser, Exporter])],
        "reference to run image";
    "skip-layers" Switch ["CNB_SKIP_LAYERS" "CNB_SKIP_RESTORE"] Nothing,
        [always(&[Restorer]), since(9, &[Analyzer])],
        "leave the layers of the previous image alone";
    "skip-restore" Switch ["CNB_SKIP_RESTORE" "CNB_SKIP_LAYERS"] Nothing,
        [always(&[Creator])],
        "restore neither layers nor their metadata";
    "stack" Path ["CNB_STACK_PATH"] Is("/cnb/stack.toml"),
        [until(12, &[Analyzer, Exporter]), always(&[Creator])],
        "path to stack.toml";
    "system" Path ["CNB_SYSTEM_PATH"] Is("/cnb/system.toml"),
        [since(15, &[Detector, Creator])],
        "path to system.toml";
    "tag" List [] Nothing,
        [always(&[Analyzer, Creator])],
        "further name of the image; can be given again";
    "uid" Number ["CNB_USER_ID"] Nothing,
        [always(&[Analyzer, Restorer, Extender, Exporter, Creator, Rebaser])],
        "id of the user of the build image";
    "version" Switch [] Nothing,
        [always(EVERY)],
        "show the version";
];
