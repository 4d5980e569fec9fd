//! What programs that run buildpacks get from this machine.
//!
//! A builder image with classic buildpacks alone needs none of it, so nothing is made
//! or opened for those.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use wapack_runtime::cancel::Cancel;
use wapack_runtime::event::{Event, EventSink};
use wapack_runtime::executor::worker::{CodeCache, NoCode, WorkerCommand};
use wapack_runtime::lifecycle::Code;
use wapack_runtime::network::{FindSource, NetworkSettings};
use wapack_runtime::policy::{Policy, PolicyPaths};
use wapack_runtime::programs::Services;
use wapack_runtime::sources::Sources;
use wapack_runtime::store::Store;

use super::inputs::Keeping;
use super::settings::Surroundings;
use crate::app;
use crate::discovery::{self, Environment};
use crate::failure::{Failure, InputError};

/// Everything of [`Services`], owned.
pub(super) struct Equipment {
    worker: WorkerCommand,
    policy: Policy,
    sources: Sources,
    store: Option<Kept>,
    environment: Vec<(OsString, OsString)>,
}

/// A store, and what removes it when it was only for this run.
struct Kept {
    store: Store,
    _temporary: Option<TempDir>,
}

impl Equipment {
    /// What the buildpacks below `buildpacks` need.
    pub(super) fn gather(
        buildpacks: &Path,
        keeping: Keeping<'_>,
        surroundings: &Surroundings,
        cancel: &Cancel,
        events: &mut dyn EventSink,
    ) -> Result<Self, Failure> {
        // Policy files are for `wapack build`: here the platform decides, by what it puts into the image.
        let (policy, _) = Policy::load(&PolicyPaths::default())?;
        let store = if has_components(buildpacks) { open_store(keeping, surroundings, events) } else { None };
        let sources = match &store {
            Some(kept) => {
                let environment = Environment::of_variables(surroundings.environment.clone());
                let network = discovery::of_variables(&policy, environment, cancel)
                    .map_err(InputError::RegistryAuth)?;
                let finder = Arc::clone(&network.finder) as Arc<dyn FindSource>;
                let settings = NetworkSettings { finder: Some(finder), ..network.settings };
                Sources::new(settings, &policy.limits, kept.store.downloads())
            }
            None => Sources::default(),
        };
        let environment = surroundings.environment.iter().map(|(name, value)| (name.clone(), value.clone()));
        Ok(Self { worker: app::worker()?, policy, sources, store, environment: environment.collect() })
    }

    /// Lends it to a program.
    pub(super) fn lend<T>(
        &self,
        cancel: &Cancel,
        events: &mut dyn EventSink,
        run: impl FnOnce(&mut Services<'_>) -> T,
    ) -> T {
        let code = self.store.as_ref().map(|kept| Code(&kept.store));
        let code: &dyn CodeCache = match &code {
            Some(code) => code,
            None => &NoCode,
        };
        run(&mut Services {
            worker: &self.worker,
            code,
            policy: &self.policy,
            sources: &self.sources,
            environment: &self.environment,
            cancel,
            events,
        })
    }
}

/// Whether there is a component among the buildpacks: `<id>/<version>/buildpack.wasm`.
fn has_components(buildpacks: &Path) -> bool {
    let directories = |path: &Path| -> Vec<PathBuf> {
        let entries = fs_err::read_dir(path).into_iter().flatten();
        entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect()
    };
    directories(buildpacks)
        .iter()
        .flat_map(|buildpack| directories(buildpack))
        .any(|version| version.join("buildpack.wasm").is_file())
}

/// The first store that can be used: one that the user has set up, one in a volume of the
/// platform, the one that `wapack build` uses as well, or one that is gone with this process.
///
/// What buildpacks of executables run as can write the first three. They are of the same
/// builder image, and what they leave in the same volumes becomes part of the image anyway.
fn open_store(keeping: Keeping<'_>, surroundings: &Surroundings, events: &mut dyn EventSink) -> Option<Kept> {
    let absolute = |name| surroundings.variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let of_user = absolute("XDG_CACHE_HOME").map(|base| base.join("wapack"));
    let of_platform = match keeping {
        Keeping::EveryBuild(cache) => Some(cache.join("wapack")),
        // No buildpack's directory has a name like this: identifiers have no `~`.
        Keeping::ThisBuild(layers) => Some(layers.join("~wapack")),
        Keeping::Nothing => None,
    };
    let of_home = absolute("HOME").map(|home| home.join(".cache/wapack"));
    for directory in [of_user, of_platform, of_home].into_iter().flatten() {
        match Store::open(&directory) {
            Ok((store, warnings)) => {
                for message in warnings {
                    events.event(Event::Warning { message });
                }
                return Some(Kept { store, _temporary: None });
            }
            Err(error) => {
                let message = format!("what is compiled is not kept in `{}`: {error}", directory.display());
                events.event(Event::Note { message });
            }
        }
    }
    let temporary = tempfile::tempdir().ok()?;
    let (store, _) = Store::open(&temporary.path().join("store")).ok()?;
    Some(Kept { store, _temporary: Some(temporary) })
}
