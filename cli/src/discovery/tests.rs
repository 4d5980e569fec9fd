//! Every step of the order, with files and variables of the test's own.

mod apps;
mod network;
mod order;
mod secrets;
mod tools;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;
use wapack_runtime::fault::Diagnose as _;
use wapack_runtime::network::{FindSource as _, Secret, SourceSettings};
use wapack_runtime::policy::PolicyPaths;

use super::*;
use crate::report;
use crate::style::Style;

/// A home, an app, a system, and programs that say what they are told.
struct Machine {
    temp: TempDir,
    variables: Vec<(String, String)>,
}

/// What was found, and what was said about it.
struct Outcome {
    network: Network,
    said: Vec<Remark>,
}

impl Machine {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        for directory in ["home", "app", "bin"] {
            std::fs::create_dir(temp.path().join(directory)).unwrap();
        }
        let mut machine = Self { temp, variables: Vec::new() };
        let (home, bin) = (machine.path("home"), machine.path("bin"));
        machine.set("HOME", &home).set("PATH", &bin);
        machine
    }

    fn path(&self, name: &str) -> String {
        self.temp.path().join(name).display().to_string()
    }

    fn set(&mut self, name: &str, value: &str) -> &mut Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    fn file(&mut self, name: &str, text: &str) -> &mut Self {
        let path = self.temp.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    /// Installs a program that answers with `answer`.
    fn program(&mut self, name: &str, answer: &str) -> &mut Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/discovery/testdata/tool");
        std::os::unix::fs::symlink(script, self.temp.path().join("bin").join(name)).unwrap();
        let variable = format!("FAKE_{}", name.trim_end_matches('3').to_uppercase());
        self.set(&variable, answer)
    }

    fn environment(&self) -> Environment {
        let variables: Vec<(&str, &str)> =
            self.variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        Environment::of(self.temp.path(), &variables)
    }

    fn look(&self, wanted: &[&str]) -> Result<Outcome, Failure> {
        let paths = PolicyPaths {
            system: Some(self.path("etc/wapack/policy.toml").into()),
            user: Some(self.path("home/policy.toml").into()),
            explicit: None,
        };
        let (policy, origins) = Policy::load(&paths)?;
        let app = self.temp.path().join("app");
        let question = Question {
            policy: &policy,
            origins: &origins,
            app: Some(&app),
            wanted: wanted.iter().map(|name| (*name).to_owned()).collect(),
            cancel: &Cancel::default(),
        };
        let network = network(&question, self.environment())?;
        let said = network.finder.take_remarks();
        Ok(Outcome { network, said })
    }

    /// Where one source is, and who says so, looking as far as it takes.
    fn find(&self, name: &str) -> Option<(String, String)> {
        self.look(&[name]).unwrap().get(name).map(|found| {
            let set_by = found.set_by.replace(&self.path(""), "");
            (address(&found), set_by)
        })
    }

    /// Everything that is said when one source is looked for.
    fn said(&self, name: &str) -> Vec<String> {
        let mut outcome = self.look(&[name]).unwrap();
        outcome.get(name);
        outcome.said.extend(outcome.network.finder.take_remarks());
        let text = |remark: Remark| match remark {
            Remark::Warning(text) | Remark::Note(text) => text.replace(&self.path(""), ""),
        };
        outcome.said.into_iter().map(text).collect()
    }
}

impl Outcome {
    fn get(&self, name: &str) -> Option<SourceSettings> {
        let at_hand = self.network.settings.sources.get(name).cloned();
        at_hand.or_else(|| self.network.finder.find(name))
    }

    fn credentials(&self, name: &str) -> Option<Credentials> {
        self.get(name)?.credentials
    }
}

fn address(settings: &SourceSettings) -> String {
    match &settings.place {
        SourcePlace::Base(url) => url.to_string(),
        SourcePlace::Directory(path) => path.display().to_string(),
    }
}

fn bearer(token: &str) -> Credentials {
    Credentials::Bearer(Secret::new(token))
}

fn basic(user: &str, password: &str) -> Credentials {
    Credentials::Basic { user: user.to_owned(), password: Secret::new(password) }
}

fn lock(origin: &str) -> String {
    format!(
        r#"{{ "packages": {{ "": {{ "name": "x" }},
            "node_modules/a": {{ "resolved": "{origin}a/-/a-1.0.0.tgz", "integrity": "sha512-x" }} }} }}"#
    )
}
