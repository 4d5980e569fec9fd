//! Sources: what a buildpack calls `npm` or `debian`, and where the operator put it.
//!
//! ```text
//!  artifact ─▶ granted? set? a path? ─┬─▶ directory ──────────────┐
//!             (mod)                   ├─▶ in the store? ──────────┤ verified, 2 threads ─▶ arrives
//!                                     └─▶ base, mirrors ─▶ store ─┘
//!                                         (broker, transfer)
//! ```
//! A guest names a source and a path below it; where that is, is never said to
//! it, and no credential ever is. This is the one part of the library that
//! opens connections, and it opens the first when something has to come over
//! the network: a build that finds everything in the store or in directories
//! starts no client and reads no certificate.

mod broker;
mod path;
mod transfer;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{self, Seek as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

pub use broker::Session;

use self::broker::Runtime;
use self::path::SourcePath;
use self::transfer::{Network, Target, table};
use crate::cnb::id::BuildpackRef;
use crate::executor::{ArtifactRequest, Refusal};
use crate::grant::{Grant, Grants};
use crate::http::client::{Clients, World};
use crate::integrity::{Algorithm, Integrity};
use crate::limits::Limits;
use crate::network::{NetworkSettings, SourcePlace, SourceSettings, SourceTrust, source_variable};
use crate::store::Downloads;

/// Artifacts that one warning names.
const NAMED: usize = 20;

/// The sources of one build: where they are, how to get there, and what came.
#[derive(Clone, Default)]
pub struct Sources {
    shared: Arc<Shared>,
    /// Apart from what its tasks hold, so that they never end it.
    runtime: Arc<Runtime>,
}

impl fmt::Debug for Sources {
    /// Addresses may have passwords in them.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&String> = self.shared.settings.sources.keys().collect();
        formatter.debug_struct("Sources").field("names", &names).finish_non_exhaustive()
    }
}

/// What threads and tasks of a build share.
struct Shared {
    settings: NetworkSettings,
    /// What the finder answered: it is asked once for each name.
    found: Mutex<BTreeMap<String, Option<SourceSettings>>>,
    network: Network,
    /// Where downloads are kept; without it nothing comes over the network.
    downloads: Option<Downloads>,
    tally: Mutex<Tally>,
}

impl Default for Shared {
    fn default() -> Self {
        Self::new(NetworkSettings::default(), &Limits::default(), None, World::default())
    }
}

/// What the user is told at the end.
#[derive(Default)]
struct Tally {
    /// Artifacts that have nothing better than SHA-1.
    weak: usize,
    /// Artifacts over the network without an integrity value.
    unchecked: usize,
    /// What an offline build did not find.
    missing: BTreeSet<String>,
}

impl Shared {
    fn new(settings: NetworkSettings, limits: &Limits, downloads: Option<Downloads>, world: World) -> Self {
        let connect_timeout = Duration::from_secs(limits.http_connect_seconds);
        let clients = Clients::new(&settings, world, connect_timeout);
        let network = Network { clients, limits: limits.clone(), received: AtomicU64::new(0) };
        Self { settings, found: Mutex::default(), network, downloads, tally: Mutex::default() }
    }

    /// Where the source `name` is. A scope, such as `npm:@acme`, is in the whole
    /// source unless it has a place of its own; other parts are places of their own.
    fn settings_of(&self, name: &str) -> Option<SourceSettings> {
        let whole = name.split_once(':').filter(|(_, part)| part.starts_with('@')).map(|(whole, _)| whole);
        self.find(name).or_else(|| self.find(whole?))
    }

    fn find(&self, name: &str) -> Option<SourceSettings> {
        if let Some(settings) = self.settings.sources.get(name) {
            return Some(settings.clone());
        }
        let finder = self.settings.finder.as_ref()?;
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.entry(name.to_owned()).or_insert_with(|| finder.find(name)).clone()
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sources {
    /// The sources of `settings`; what comes over the network is kept in `downloads`.
    #[must_use]
    pub fn new(settings: NetworkSettings, limits: &Limits, downloads: Downloads) -> Self {
        Self::with_world(settings, limits, Some(downloads), World::default())
    }

    /// Sources by name, each a directory on this machine laid out like the source.
    #[must_use]
    pub fn of_directories(directories: BTreeMap<String, PathBuf>) -> Self {
        let source = |directory| SourceSettings {
            place: SourcePlace::Directory(directory),
            mirrors: Vec::new(),
            credentials: None,
            ca: Vec::new(),
            trust: SourceTrust::Configured,
            set_by: String::new(),
        };
        let sources = directories.into_iter().map(|(name, directory)| (name, source(directory))).collect();
        let settings = NetworkSettings { sources, ..NetworkSettings::default() };
        Self::with_world(settings, &Limits::default(), None, World::default())
    }

    fn with_world(
        settings: NetworkSettings,
        limits: &Limits,
        downloads: Option<Downloads>,
        world: World,
    ) -> Self {
        Self { shared: Arc::new(Shared::new(settings, limits, downloads, world)), runtime: Arc::default() }
    }

    /// What one running buildpack fetches. Dropping it ends what is still on its way.
    #[must_use]
    pub fn session(&self, buildpack: &BuildpackRef, grants: &Grants) -> Session {
        Session::new(self.clone(), buildpack.clone(), grants.clone())
    }

    /// What the user should know of everything that was fetched since the last call.
    #[must_use]
    pub fn take_warnings(&self) -> Vec<String> {
        let Tally { weak, unchecked, missing } = std::mem::take(&mut *self.shared.tally());
        let mut warnings = Vec::new();
        let files = |count: usize| if count == 1 { "1 file".to_owned() } else { format!("{count} files") };
        if weak > 0 {
            warnings.push(format!(
                "{} could be checked by SHA-1 only, which can be forged; a newer lock file has better",
                files(weak)
            ));
        }
        if unchecked > 0 {
            warnings.push(format!(
                "{} came without an integrity value: not checked, not kept, and fetched each time",
                files(unchecked)
            ));
        }
        if !missing.is_empty() {
            let named: Vec<&str> = missing.iter().take(NAMED).map(String::as_str).collect();
            let more = missing.len() - named.len();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            warnings.push(format!(
                "this build is offline, and the store does not have {}{more}",
                named.join(", ")
            ));
        }
        warnings
    }
}

/// An artifact that may be fetched, and from where.
struct Wanted {
    /// As the guest named it.
    source: String,
    /// `None` in a build without a network: the store may have the file, wherever it was from.
    settings: Option<SourceSettings>,
    path: SourcePath,
    integrity: Option<Integrity>,
}

fn refusal(id: &str, message: String, hint: Option<String>) -> Refusal {
    Refusal { id: id.to_owned(), message, hint }
}

impl Wanted {
    /// Looks at one request of `buildpack`.
    ///
    /// # Errors
    /// `sandbox.source_refused` when the source was not granted, `source.unset`
    /// when the operator did not say where it is, `source.bad_path` and
    /// `source.integrity` when the request itself is wrong, and
    /// `source.integrity_required` when the place is not trusted without.
    fn check(
        shared: &Shared,
        buildpack: &BuildpackRef,
        grants: &Grants,
        artifact: ArtifactRequest,
    ) -> Result<Self, Refusal> {
        let ArtifactRequest { source, path, integrity } = artifact;
        if !grants.allows(&Grant::Source(source.clone())) {
            return Err(refusal(
                "sandbox.source_refused",
                format!(
                    "buildpack `{buildpack}` was refused the source `{}`: it is not among this build's grants",
                    source.escape_default()
                ),
                Some(format!(
                    "list it under `grants.sources` in `buildpack.toml`; the operator allows it with `--grant source={}` or in the policy file",
                    source.escape_default()
                )),
            ));
        }
        let path = SourcePath::parse(&path).ok_or_else(|| {
            let shown: String = path.chars().take(200).flat_map(char::escape_default).collect();
            refusal("source.bad_path", format!("`{shown}` is not a path below the source `{source}`"), None)
        })?;
        let integrity: Option<Integrity> = integrity.map(|text| text.parse()).transpose().map_err(
            |error: crate::integrity::InvalidIntegrity| {
                let hint =
                    "`sha512-<base64>`, `sha512:<hex>`, and so on with `sha384`, `sha256` and `sha1`, are";
                refusal("source.integrity", error.to_string(), Some(hint.to_owned()))
            },
        )?;
        let settings = shared.settings_of(&source);
        if settings.is_none() && !(shared.settings.offline && integrity.is_some()) {
            return Err(unset(&source));
        }
        let trust = settings.as_ref().map(|settings| settings.trust);
        if trust == Some(SourceTrust::LockFile) && integrity.is_none() {
            return Err(refusal(
                "source.integrity_required",
                format!(
                    "`{}` has no integrity value, and the place of the source `{source}` is known from a lock file only",
                    path.in_directory()
                ),
                Some(set_lines(&source)),
            ));
        }
        Ok(Self { source, settings, path, integrity })
    }

    /// The directory that is the source, if it is one.
    fn directory(&self) -> Option<&Path> {
        match &self.settings.as_ref()?.place {
            SourcePlace::Directory(directory) => Some(directory),
            SourcePlace::Base(_) => None,
        }
    }

    /// What to ask over the network; `None` for a directory.
    fn target(&self) -> Option<Target<'_>> {
        let settings = self.settings.as_ref()?;
        match &settings.place {
            SourcePlace::Directory(_) => None,
            SourcePlace::Base(base) => Some(Target {
                source: &self.source,
                settings,
                base,
                path: &self.path,
                integrity: self.integrity.as_ref(),
            }),
        }
    }

    fn is_weak(&self) -> bool {
        self.integrity.as_ref().is_some_and(|integrity| integrity.algorithm() == Algorithm::Sha1)
    }

    /// Opens the file in `directory`, checked against its integrity value.
    ///
    /// # Errors
    /// `source.not_found`, `source.unreadable` and `source.integrity` as they say.
    fn open_in(&self, directory: &Path, stop: &dyn Fn() -> bool) -> Result<File, Refusal> {
        let (name, path) = (&self.source, self.path.in_directory());
        let mut file = open_beneath(directory, &path).map_err(|error| {
            let message = format!("the source `{name}` has no `{path}`: {}", error.kind());
            refusal("source.not_found", message, None)
        })?;
        let Some(expected) = &self.integrity else { return Ok(file) };
        let unreadable = |error: io::Error| {
            refusal("source.unreadable", format!("cannot read `{path}`: {}", error.kind()), None)
        };
        let found = expected.hash(&file, stop).map_err(unreadable)?;
        if !expected.accepts(&found) {
            return Err(refusal(
                "source.integrity",
                format!(
                    "`{path}` of the source `{name}` is not what was expected: `{expected}`, found `{found}`"
                ),
                None,
            ));
        }
        file.rewind().map_err(unreadable)?;
        Ok(file)
    }
}

fn unset(source: &str) -> Refusal {
    refusal("source.unset", format!("the source `{source}` is not set"), Some(set_lines(source)))
}

/// The lines that say where a source is.
fn set_lines(source: &str) -> String {
    format!(
        "say where it is in the policy file:\n{}\nurl = \"https://mirror.example/\"\nor with the variable `{}`",
        table(source),
        source_variable(source)
    )
}

fn open_beneath(directory: &Path, path: &str) -> io::Result<File> {
    let root =
        rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file =
        openat2(&root, path, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS)?;
    let file = File::from(file);
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::NotFound.into()) }
}
