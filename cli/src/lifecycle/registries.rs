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
    allow_insecure(&mut settings, insecure);
    let target = app::host_target();
    let registry = Registry::new(&settings, &policy.limits, surroundings.scratch());
    Ok(RegistryImages::new(registry, target.arch, target.variant, surroundings.scratch()))
}

/// Registries that may be spoken to without TLS: those that are named, and no other.
fn allow_insecure(settings: &mut NetworkSettings, names: &[String]) {
    for name in names {
        let registry = settings.registries.entry(discovery::registry_of_key(name)).or_default();
        *registry = RegistrySettings { insecure: true, ..std::mem::take(registry) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CLI-09: what a client does with it is shown where the client is.
    #[test]
    fn cli_09_only_registries_that_are_named_are_insecure() {
        let named = |name: &str| RegistrySettings { set_by: name.to_owned(), ..RegistrySettings::default() };
        let mut settings = NetworkSettings {
            registries: ["a.example:5000", "b.example"].map(|name| (name.to_owned(), named(name))).into(),
            ..NetworkSettings::default()
        };
        allow_insecure(&mut settings, &["A.example:5000".to_owned(), "docker.io".to_owned()]);
        let insecure: Vec<_> =
            settings.registries.iter().map(|(name, registry)| (name.as_str(), registry.insecure)).collect();
        assert_eq!(insecure, [("a.example:5000", true), ("b.example", false), ("index.docker.io", true)]);
        assert_eq!(settings.registries["a.example:5000"].set_by, "a.example:5000");
    }
}
