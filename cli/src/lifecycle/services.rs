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
use wapack_runtime::limits::show_bytes;
use wapack_runtime::network::{FindSource, NetworkSettings};
use wapack_runtime::policy::{Policy, PolicyPaths};
use wapack_runtime::programs::Services;
use wapack_runtime::sources::Sources;
use wapack_runtime::store::{Collected, Store};

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
        let result = run(&mut Services {
            worker: &self.worker,
            code,
            policy: &self.policy,
            sources: &self.sources,
            environment: &self.environment,
            cancel,
            events,
        });
        if let Some(Kept { store, _temporary: None }) = &self.store {
            keep_under_cap(store, &self.policy, events);
        }
        result
    }
}

/// Nobody else looks after a store that is in a volume of the platform.
fn keep_under_cap(store: &Store, policy: &Policy, events: &mut dyn EventSink) {
    let message = match store.keep_under(policy.store.max_bytes) {
        Ok(Some(Collected { pieces: 1.., freed_bytes, .. })) => {
            format!(
                "{} of what is kept in `{}` are given up",
                show_bytes(freed_bytes),
                store.root().display()
            )
        }
        Ok(_) => return,
        Err(error) => format!("what is kept in `{}` may grow: {error}", store.root().display()),
    };
    events.event(Event::Note { message });
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What compiled components and downloads leave in a platform's volume is bounded like the cache of
    /// `wapack build`, and nothing else in the volume is touched.
    #[test]
    fn a_store_in_a_volume_of_the_platform_stays_below_the_cap() {
        let temp = tempfile::tempdir().unwrap();
        let (buildpacks, cache) = (temp.path().join("buildpacks"), temp.path().join("cache"));
        std::fs::create_dir_all(buildpacks.join("acme_node/1")).unwrap();
        std::fs::write(buildpacks.join("acme_node/1/buildpack.wasm"), "").unwrap();
        std::fs::create_dir_all(cache.join("committed")).unwrap();
        std::fs::write(cache.join("committed/layer"), vec![0; 100_000]).unwrap();
        let surroundings =
            Surroundings { environment: [].into(), working_directory: temp.path().to_owned(), user: (0, 0) };
        let (cancel, mut events) = (Cancel::default(), Vec::new());
        let mut tell = |event: Event| events.push(event);
        let keeping = Keeping::EveryBuild(&cache);
        let mut equipment =
            Equipment::gather(&buildpacks, keeping, &surroundings, &cancel, &mut tell).unwrap();
        equipment.policy.store.max_bytes = 50_000;
        let left = cache.join("wapack/downloads/left");
        std::fs::write(&left, vec![0; 100_000]).unwrap();
        equipment.lend(&cancel, &mut tell, |_| {});
        assert!(!left.exists(), "it is above its cap");
        assert!(cache.join("committed/layer").exists());
        let notes = events
            .iter()
            .filter(|event| matches!(event, Event::Note { message } if message.contains("are given up")));
        assert_eq!(notes.count(), 1, "{events:?}");
    }
}
