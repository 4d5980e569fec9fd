//! How the programs reach registries: what the platform says in variables and flags.

use std::collections::BTreeMap;

use wapack_runtime::cancel::Cancel;
use wapack_runtime::images::RegistryImages;
use wapack_runtime::network::{NetworkSettings, RegistrySettings};
use wapack_runtime::policy::Policy;
use wapack_runtime::registry::Registry;

use super::settings::Surroundings;
use crate::app;
use crate::discovery::{self, Environment, InvalidRegistryAuth};

/// Opens the images of registries. Nothing is asked of any yet.
///
/// # Errors
/// When the platform's credentials (CLI-08) cannot be read.
pub(super) fn images(
    insecure: &[String],
    surroundings: &Surroundings,
    policy: &Policy,
    cancel: &Cancel,
) -> Result<RegistryImages, InvalidRegistryAuth> {
    let environment = Environment::of_variables(surroundings.environment.clone());
    let network = discovery::of_variables(policy, environment, cancel)?;
    let mut settings = NetworkSettings { sources: BTreeMap::new(), finder: None, ..network.settings };
    for name in insecure {
        let registry = settings.registries.entry(discovery::registry_of_key(name)).or_default();
        *registry = RegistrySettings { insecure: true, ..std::mem::take(registry) };
    }
    let target = app::host_target();
    let registry = Registry::new(&settings, &policy.limits, surroundings.scratch());
    Ok(RegistryImages::new(registry, target.arch, target.variant, surroundings.scratch()))
}
