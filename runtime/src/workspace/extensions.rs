//! What calls of image extensions are told; they are executables, and work in place only.

use std::ffi::OsString;
use std::path::PathBuf;

use super::Workspace;
use super::environment::target_variables;
use crate::catalog::Extension;
use crate::cnb::api::ApiVersion;
use crate::cnb::env::Environment;
use crate::cnb::id::ExecEnv;
use crate::cnb::target::Target;
use crate::executor::{Executables, Program};

impl Workspace {
    /// What runs `extension` here; `None` when nothing does.
    pub fn extension_program(&self, extension: &Extension) -> Option<Program> {
        self.in_place.then(|| {
            Program::Executables(Executables {
                directory: extension.directory.clone(),
                api: extension.descriptor.api,
                app: PathBuf::from(&self.places.app),
                platform: PathBuf::from(&self.places.platform),
                sbom_formats: Vec::new(),
                scratch: self.root.join("tmp"),
            })
        })
    }

    /// The environment of `bin/detect` of an extension, or without `exec_env` that of
    /// `bin/generate`, except for what only the call itself knows.
    ///
    /// # Spec
    /// `image_extension.md` "Environment"; ENV-01 and the table of section 4.4.
    pub fn extension_environment(
        &self,
        extension: &Extension,
        target: &Target,
        exec_env: Option<&ExecEnv>,
    ) -> Environment {
        let mut environment = self.surroundings.inherited.clone();
        self.surround(&mut environment, extension.descriptor.clear_env);
        let api = extension.descriptor.api;
        let mut set = |name: &str, value: OsString| environment.insert(name.to_owned(), value);
        set("CNB_EXTENSION_DIR", extension.directory.clone().into_os_string());
        set("CNB_PLATFORM_DIR", self.places.platform.clone().into());
        if api >= ApiVersion::zero(10) {
            for (name, value) in target_variables(target, true) {
                set(name, value.into());
            }
        }
        if let Some(exec_env) = exec_env.filter(|_| api >= ApiVersion::zero(12)) {
            set("CNB_EXEC_ENV", exec_env.as_str().into());
        }
        environment
    }
}
