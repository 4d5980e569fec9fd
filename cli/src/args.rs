//! The arguments, and nothing else: what they mean is decided by the commands.

mod amount;

pub(crate) use self::amount::{Age, Bytes};

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::Styles;
use clap::builder::styling::AnsiColor;
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use wapack_runtime::cnb::id::ProcessType;
use wapack_runtime::grant::Grant;
use wapack_runtime::oci::encoder::Encoding;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const OVERVIEW: &str = "\
Examples:
  wapack build my/app                       build the app in this directory
  wapack detect --path samples/website      who would build it, and why the others would not
  wapack rebase oci:my-app.oci --run-image oci:base:debian
                                            put the same app on a newer run image
  wapack inspect oci:my-app.oci             what is in an image
  wapack inspect --host                     what holds a buildpack on this machine
  wapack config show                        the policy in force, and where each line came from

`wapack lifecycle` runs the phases as programs, for platforms; `wapack lifecycle -h` lists them.";

const BUILD_EXAMPLES: &str = "\
Examples:
  wapack build my/app
  wapack build --path samples/website --output oci:image demo/website
  wapack build --run-image oci:base:debian --env NODE_ENV=production my/app:1.0
  wapack build --buildpack ./my-buildpack --buildpack wapack/procfile my/app
  wapack build --env-file .env.build --tag my/app:1.0 --tag my/app:1 my/app
  wapack build --explain my/app             why each layer was made anew, or was not
  wapack build --output docker my/app       into the container engine of this machine
  wapack build --publish --target linux/amd64,linux/arm64 registry.example/my/app

Without --output the image is written to an OCI layout, a directory, under its full name:
  skopeo inspect oci:image:demo/website:latest
  podman run --rm -p 8080:8080 oci:image:demo/website:latest

Exit codes:
    0  the image is there             20  no buildpack takes part
    1  trouble of the machine         21  none, and at least one went wrong
    2  arguments that are not known   51  a buildpack's build failed
    3  arguments, inputs or policy    52  building failed in another way
   12  an unknown Buildpack API       62  the image cannot be made or written
  130  interrupted (129 hang-up, 143 terminated); nothing was published";

const DETECT_EXAMPLES: &str = "\
Examples:
  wapack detect
  wapack detect --path samples/website
  wapack detect --buildpack ./my-buildpack
  wapack detect --explain                   why this group, and no other
  wapack detect --descriptor ci/project.toml

Exit codes: 0 somebody takes part, 20 nobody does, 21 nobody does and at least one went wrong.";

const REBASE_EXAMPLES: &str = "\
Examples:
  wapack rebase oci:image --run-image oci:base:debian
  wapack rebase oci:image:my/app:latest --run-image oci:base:debian --output oci:image:my/app:patched
  wapack rebase oci:image --run-image oci:base:ubuntu --force
  wapack rebase registry.example/my/app:1.0
                                            onto the newest of the run image it was built on; no layer is moved

Layers of the app stay as they are, and nothing is built: only the manifest, the configuration and the layers below
are new. The run image is refused when it is for another system, or is not called as the one that the app was
built on.

Exit codes:
    0  the image is there             3  arguments, or an image that cannot be used
    1  trouble of the machine        72  the image cannot be rebased or written
    2  arguments that are not known";

const INSPECT_EXAMPLES: &str = "\
Examples:
  wapack inspect path/to/buildpack          a buildpack's directory, or its .wasm file
  wapack inspect oci:image                  the only image of a layout
  wapack inspect oci:image:my/app:latest    one of several
  wapack inspect registry.example/my/app    in a registry; nothing but its documents is fetched
  wapack inspect oci:image --html image.html
                                            a page about its layers and files, to look at or pass on
  wapack inspect --host --required          exit code 1 when some isolation is missing";

const SBOM_EXAMPLES: &str = "\
Examples:
  wapack sbom list oci:image
  wapack sbom show oci:image layers/sbom/launch/wapack_node-engine/sbom.cdx.json
  wapack sbom download oci:image --output-dir sboms

Only the layer that has them is read. Images that pack or others built have them in the same place.";

const CONFIG_EXAMPLES: &str = "\
Later files win over earlier ones: the built-in defaults, /etc/wapack/policy.toml, wapack/policy.toml in
$XDG_CONFIG_HOME (or ~/.config), the file of --policy. The one in /etc is a ceiling: with it, the others can
lower limits and take grants away, nothing else.

A source that no policy names is looked for, in this order: `WAPACK_SOURCE_<NAME>`, the configuration of npm, pip,
Go and apt, the installed tool itself, the app's lock file. Where there is a file in /etc, only the variable counts.";

/// Turns an app's source into an OCI image by running buildpacks as sandboxed
/// WebAssembly components. No Docker, no daemon, no root.
#[derive(Debug, Parser)]
#[command(name = "wapack", version, about, styles = STYLES, after_help = OVERVIEW, max_term_width = 110)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,

    #[command(flatten)]
    pub(crate) speech: Speech,
}

/// How to speak.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct Speech {
    /// Say more: verdicts of every buildpack, the time of each phase, notes
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    pub(crate) verbose: bool,

    /// Say nothing but warnings, errors and the digest of the image
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,

    /// No colours; also when `NO_COLOR` is set, and never in a pipe
    #[arg(long, global = true)]
    pub(crate) no_color: bool,

    /// `json` prints every event as one object per line, and an error as the last line of standard error
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output_format: OutputFormat,
}

/// How events are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum OutputFormat {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build an image of an app
    Build(Box<BuildArguments>),
    /// Find out which buildpacks would build an app, and why the others would not
    Detect(Box<DetectArguments>),
    /// Put the app of an image on another run image, without building it again
    Rebase(RebaseArguments),
    /// Look into a buildpack, an image, or the isolation of this machine
    Inspect(Box<InspectArguments>),
    /// List, show or download the bills of materials inside an image
    Sbom(SbomArguments),
    /// Show the policy: limits, grants, isolation, sources
    Config(ConfigArguments),
    /// See and shrink what is kept between builds
    Cache(CacheArguments),
}

#[derive(Debug, Args)]
#[command(after_help = BUILD_EXAMPLES)]
pub(crate) struct BuildArguments {
    /// Name of the image, such as `my/app:1.0`; without a tag it is `latest`
    #[arg(value_name = "NAME")]
    pub(crate) name: String,

    /// Where the image goes: an OCI layout `oci:DIR`, an archive `oci-archive:FILE` or `docker-archive:FILE`,
    /// `docker` for a container engine, or `registry` [default: oci:NAME.oci, `/` as `-`]
    #[arg(short, long, value_name = "PLACE")]
    pub(crate) output: Option<OsString>,

    /// Publish the image to the registry of NAME and of each further name; the same as `--output registry`
    #[arg(long, conflicts_with = "output")]
    pub(crate) publish: bool,

    /// What the image is built upon: `scratch`, `NAME` in a registry, `oci:DIR[:REF]`, `oci-archive:FILE[:REF]`,
    /// `docker-archive:FILE[:NAME]`, or `docker:NAME`
    #[arg(long, value_name = "IMAGE", default_value = "scratch")]
    pub(crate) run_image: OsString,

    /// Another name of the same image; may be given more than once
    #[arg(short, long = "tag", value_name = "NAME")]
    pub(crate) tags: Vec<String>,

    /// Have buildpacks choose versions anew; otherwise what an earlier build chose stays while it fits
    #[arg(long)]
    pub(crate) update: bool,

    #[command(flatten)]
    pub(crate) app: AppArguments,

    #[command(flatten)]
    pub(crate) image: ImageArguments,

    #[command(flatten)]
    pub(crate) earlier: EarlierArguments,
}

/// What an earlier build left, and what becomes of it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Earlier builds")]
pub(crate) struct EarlierArguments {
    /// Forget first what was kept for this image
    #[arg(long)]
    pub(crate) clear_cache: bool,

    /// An image to take unchanged layers from when nothing is kept for this one, written like a run image
    /// [default: the one that is there under this name]
    #[arg(long, value_name = "IMAGE")]
    pub(crate) previous_image: Option<OsString>,

    /// An image for the layers that are kept, for machines without a cache of their own: read before the build when
    /// nothing is kept for the image here, written after it; in a registry, `oci:DIR:REF` or `oci-archive:FILE:REF`
    #[arg(long, value_name = "IMAGE")]
    pub(crate) cache_image: Option<OsString>,

    /// Say of each layer of a buildpack whether it was used again or made anew, and why
    #[arg(long, conflicts_with = "quiet")]
    pub(crate) explain: bool,

    /// Read again everything that is kept, and make anew what is damaged
    #[arg(long)]
    pub(crate) verify: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Image")]
pub(crate) struct ImageArguments {
    /// Whether a launcher starts the process; `auto` leaves it out on `scratch` when nothing needs it
    #[arg(long, value_enum, default_value_t, value_name = "WHEN", hide_possible_values = false)]
    pub(crate) launcher: LauncherChoice,

    /// User the image runs as; GID is UID if left out [default: the base's, or 1000:1000]
    #[arg(long, value_name = "UID[:GID]")]
    pub(crate) user: Option<String>,

    /// Who owns the app and the layers; GID is UID if left out [default: the user]
    #[arg(long, value_name = "UID[:GID]")]
    pub(crate) owner: Option<String>,

    /// Let the group of the app and the layers do what their owner may, for platforms that run images under
    /// any user of group 0; the group is 0 unless `--owner` says another
    #[arg(long)]
    pub(crate) group_writable: bool,

    /// The process to start [default: what the buildpacks say, often `web`]
    #[arg(long, visible_alias = "default-process", value_name = "TYPE")]
    pub(crate) process_type: Option<ProcessType>,

    /// When the image says it was made: seconds since 1970, or `now`, which no second build repeats
    /// [default: `SOURCE_DATE_EPOCH` if it is set, or 1980-01-01]
    #[arg(long, value_name = "SECONDS|now")]
    pub(crate) creation_time: Option<CreationTime>,

    /// How layers are compressed: zstd is faster and smaller, and needs a run image in the OCI's format; LEVEL
    /// is 1 to 19, or 3 if left out
    #[arg(long, value_name = "gzip|zstd[:LEVEL]", default_value_t)]
    pub(crate) compression: Encoding,

    /// Attach documents to the image, where registries and layouts keep what belongs to it: each bill of
    /// materials, and the provenance (what it was built from); `sbom,provenance` for both
    #[arg(long, value_enum, value_name = "WHAT", value_delimiter = ',')]
    pub(crate) attach: Vec<Attach>,

    /// Write bills of materials there as well, below `layers/sbom/launch` and `layers/sbom/build`
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) sbom_output_dir: Option<PathBuf>,
}

/// What is attached to an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Attach {
    Sbom,
    Provenance,
}

/// When an image says it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CreationTime {
    Now,
    /// Since 1970.
    Seconds(u64),
}

impl std::str::FromStr for CreationTime {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "now" => Ok(Self::Now),
            seconds if seconds.bytes().all(|byte| byte.is_ascii_digit()) => seconds
                .parse()
                .ok()
                .filter(|seconds| *seconds <= LAST_SECOND)
                .map(Self::Seconds)
                .ok_or("it is after the year 9999, or empty"),
            _ => Err("it is neither `now` nor a number of seconds since 1970"),
        }
    }
}

/// Of the year 9999, beyond which dates in images have no spelling.
const LAST_SECOND: u64 = 253_402_300_799;

/// Whether the image gets a launcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum LauncherChoice {
    #[default]
    Auto,
    Always,
    Never,
}

#[derive(Debug, Args)]
#[command(after_help = DETECT_EXAMPLES)]
pub(crate) struct DetectArguments {
    /// Show every group in order: what each member says and wants, and why the group builds or does not
    #[arg(long)]
    pub(crate) explain: bool,

    #[command(flatten)]
    pub(crate) app: AppArguments,
}

/// What building and detecting share.
#[derive(Debug, Args)]
#[command(next_help_heading = "App and buildpacks")]
pub(crate) struct AppArguments {
    /// Directory of the app; it is never written
    #[arg(short, long, value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
    pub(crate) path: PathBuf,

    /// What the app says of itself [default: `project.toml` in its directory, if it is there]
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) descriptor: Option<PathBuf>,

    /// Let `.git` take part, which is left out otherwise
    #[arg(long)]
    pub(crate) include_git: bool,

    /// The buildpacks at hand and their order: `builtin`, or a directory with `order.toml`
    /// [default: what `project.toml` says, or `builtin`]
    #[arg(short = 'B', long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) builder: Option<PathBuf>,

    /// A buildpack's directory, `ID[@VERSION]` of one in the builder, or `from=builder` for its order;
    /// given more than once, they build in this order, instead of the builder's own
    #[arg(short, long = "buildpack", value_name = "BUILDPACK")]
    pub(crate) buildpacks: Vec<OsString>,

    /// A variable for the buildpacks; without `=VALUE` it has the value it has here
    #[arg(short, long = "env", value_name = "NAME[=VALUE]")]
    pub(crate) environment: Vec<OsString>,

    /// A file of variables, one `NAME=VALUE` a line, as for docker; `--env` wins over it
    #[arg(long = "env-file", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) env_files: Vec<PathBuf>,

    /// Service bindings for the buildpacks that ask for them: a directory with one directory for
    /// each, which they find in `/platform/bindings`
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) bindings: Option<PathBuf>,

    /// The system the image is for, such as `linux/arm64`; several with commas between them make one image of all
    /// [default: that of the run image, or this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) target: Option<String>,

    /// Where layers and compiled buildpacks are kept between builds
    /// [default: wapack in `$XDG_CACHE_HOME` or `~/.cache`]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, help_heading = "Machine")]
    pub(crate) cache_dir: Option<PathBuf>,

    /// Leave the directories that the buildpacks saw, and say where they are
    #[arg(long, help_heading = "Machine")]
    pub(crate) keep_work_dir: bool,

    #[command(flatten)]
    pub(crate) policy: PolicyArguments,
}

/// The policy, and what is allowed beside it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Policy")]
pub(crate) struct PolicyArguments {
    /// A policy file that wins over those of the user; see `wapack config`
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) policy: Option<PathBuf>,

    /// Allow every buildpack: `app-write`, `bindings`, `clock`, `random` or `source=NAME`
    #[arg(long = "grant", value_name = "GRANT")]
    pub(crate) grants: Vec<Grant>,

    /// Where a source is: an address or a directory, instead of what else says so; see `wapack config`
    #[arg(long = "source", value_name = "NAME=URL|DIR")]
    pub(crate) sources: Vec<String>,

    /// Use no network: what is not here already is an error
    #[arg(long, visible_alias = "no-network")]
    pub(crate) offline: bool,
}

#[derive(Debug, Args)]
#[command(after_help = REBASE_EXAMPLES)]
pub(crate) struct RebaseArguments {
    /// The image of an app: `NAME` in a registry, `oci:DIR[:REF]`, `oci-archive:FILE[:REF]`,
    /// `docker-archive:FILE[:NAME]`, or `docker:NAME`
    #[arg(value_name = "IMAGE")]
    pub(crate) image: OsString,

    /// What to put below the app instead, written like IMAGE [default: the best of the names that the image has]
    #[arg(long, value_name = "IMAGE")]
    pub(crate) run_image: Option<OsString>,

    /// Where the new image goes, and what it is called there, written like IMAGE [default: in place of IMAGE]
    #[arg(short, long, value_name = "IMAGE")]
    pub(crate) output: Option<OsString>,

    /// Of an image for several systems, only the one for this, to another place [default: all of them]
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) target: Option<String>,

    /// Go on when the image is marked as not rebasable, or the run image is for another system or has another name
    #[arg(long)]
    pub(crate) force: bool,

    #[command(flatten)]
    pub(crate) policy: PolicyArguments,
}

#[derive(Debug, Args)]
#[command(after_help = INSPECT_EXAMPLES)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(crate) struct InspectArguments {
    /// A buildpack's directory, a `.wasm` file, or an image: `NAME` in a registry, `oci:DIR[:REF]`, `docker:NAME`, or an archive
    #[arg(value_name = "TARGET", required_unless_present = "host", conflicts_with = "host")]
    pub(crate) target: Option<OsString>,

    /// Of an image for several systems, the one for this [default: this machine's]
    #[arg(long = "target", value_name = "OS/ARCH", conflicts_with = "host")]
    pub(crate) system: Option<String>,

    /// Show what holds a buildpack on this machine, by starting a worker that tries to get out
    #[arg(long)]
    pub(crate) host: bool,

    /// With `--host`: exit code 1 when something is missing
    #[arg(long, requires = "host")]
    pub(crate) required: bool,

    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,

    /// Print the provenance that is attached to an image
    #[arg(long, conflicts_with_all = ["host", "json", "html"])]
    pub(crate) provenance: bool,

    /// Write one page about an image, its layers and its files, for any browser; `-` prints it
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with_all = ["host", "json"])]
    pub(crate) html: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) policy: PolicyArguments,
}

#[derive(Debug, Args)]
#[command(after_help = SBOM_EXAMPLES)]
pub(crate) struct SbomArguments {
    #[command(subcommand)]
    pub(crate) command: SbomCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SbomCommand {
    /// Write them as files, below `layers/sbom/launch`
    Download {
        #[command(flatten)]
        image: ImageToRead,

        /// Where to; it is made if it is not there
        #[arg(short, long, value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
        output_dir: PathBuf,
    },
    /// Print their paths, formats and sizes
    List {
        #[command(flatten)]
        image: ImageToRead,

        /// Print one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Print one of them
    Show {
        #[command(flatten)]
        image: ImageToRead,

        /// Its path, as `wapack sbom list` prints it
        #[arg(value_name = "PATH")]
        path: String,
    },
}

/// An image, and how registries are reached.
#[derive(Debug, Args)]
pub(crate) struct ImageToRead {
    /// An image: `oci:DIR[:NAME]`, `oci-archive:FILE[:NAME]`, `docker-archive:FILE[:NAME]`, `docker:NAME`,
    /// or a name in a registry
    #[arg(value_name = "IMAGE")]
    pub(crate) image: OsString,

    /// Of an image for several systems, the one for this [default: this machine's]
    #[arg(long = "target", value_name = "OS/ARCH")]
    pub(crate) system: Option<String>,

    #[command(flatten)]
    pub(crate) policy: PolicyArguments,
}

#[derive(Debug, Args)]
#[command(after_help = CONFIG_EXAMPLES)]
pub(crate) struct ConfigArguments {
    #[command(subcommand)]
    pub(crate) command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print every value in force and where it came from
    #[command(after_help = CONFIG_EXAMPLES)]
    Show(ConfigShowArguments),
    /// Print the files that are looked at, in order, and which are there
    Path(ConfigShowArguments),
}

#[derive(Debug, Args)]
pub(crate) struct ConfigShowArguments {
    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) policy: PolicyArguments,
}

const CACHE_EXAMPLES: &str = "\
Examples:
  wapack cache du                           what takes how much
  wapack cache gc                           down to what the policy allows: `store.max_bytes`
  wapack cache gc --keep-bytes 2GiB --max-age 30d
  wapack cache clear --image my/app         what is kept for one image
  wapack cache clear                        everything

The least recently used goes first. What a running build uses stays. A build collects by itself when there is more
than `store.max_bytes` of the policy; whatever is gone is made again when it is needed.";

#[derive(Debug, Args)]
#[command(after_help = CACHE_EXAMPLES)]
pub(crate) struct CacheArguments {
    #[command(subcommand)]
    pub(crate) command: CacheCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CacheCommand {
    /// Print what takes how much, by kind and by image
    Du(CachePlaceArguments),
    /// Take away what is too much or too old, the least recently used first
    Gc(CacheGcArguments),
    /// Take away everything, or what is kept for one image
    Clear(CacheClearArguments),
}

/// Which cache, and how to speak of it.
#[derive(Debug, Args)]
pub(crate) struct CachePlaceArguments {
    /// Where layers and compiled buildpacks are kept between builds
    /// [default: wapack in `$XDG_CACHE_HOME` or `~/.cache`]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) cache_dir: Option<PathBuf>,

    /// A policy file that wins over those of the user; see `wapack config`
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) policy: Option<PathBuf>,

    /// Print one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CacheGcArguments {
    /// How much to keep at most, such as `500MiB` or `2GiB` [default: `store.max_bytes` of the policy]
    #[arg(long, value_name = "BYTES")]
    pub(crate) keep_bytes: Option<Bytes>,

    /// Also take away what was not used for so long, such as `12h` or `30d`
    #[arg(long, value_name = "AGE")]
    pub(crate) max_age: Option<Age>,

    #[command(flatten)]
    pub(crate) place: CachePlaceArguments,
}

#[derive(Debug, Args)]
pub(crate) struct CacheClearArguments {
    /// Only what is kept for this image
    #[arg(long, value_name = "NAME")]
    pub(crate) image: Option<String>,

    #[command(flatten)]
    pub(crate) place: CachePlaceArguments,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }
}
