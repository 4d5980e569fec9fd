//! What the files of an app say about registries.
//!
//! They are the author's words, not the user's: they rank last, no variable is
//! put into them, nothing in them signs in, and `https` is all they can name.

use std::path::{Path, PathBuf};

use wapack_runtime::network::{SourcePlace, SourceTrust, parse_base};

use super::super::files::{self, Links};
use super::super::found::{Found, Remarks};
use super::lock::{self, Origins};
use super::{WHOLE, ini, registry_key, scope_of};

/// npm takes the first of these that is there.
const LOCKS: [&str; 2] = ["npm-shrinkwrap.json", "package-lock.json"];
const RC: &str = ".npmrc";

/// The files, read.
pub(in super::super) struct AppFiles {
    settings: Vec<ini::Item>,
    rc: PathBuf,
    lock: Option<(PathBuf, Origins)>,
}

impl AppFiles {
    pub(in super::super) fn read(app: &Path, remarks: &mut Remarks) -> Self {
        let rc = app.join(RC);
        let settings = match files::read(&rc, Links::Refuse) {
            Ok(text) => ini::parse(&text.unwrap_or_default()),
            Err(error) => {
                remarks.warn(format!("{} is not used: {error}", rc.display()));
                Vec::new()
            }
        };
        let mut lock = None;
        for path in LOCKS.map(|name| app.join(name)) {
            match lock::origins(&path) {
                Ok(None) => continue,
                Ok(Some(origins)) => lock = Some((path, origins)),
                Err(error) => remarks.warn(format!("{} names no source: {error}", path.display())),
            }
            break;
        }
        let files = Self { settings, rc, lock };
        files.warn_of_secrets(remarks);
        files
    }

    fn place(&self, item: &ini::Item) -> String {
        format!("{}:{}", self.rc.display(), item.line)
    }

    /// T3: a line of the app would otherwise decide where a secret of the host goes.
    fn warn_of_secrets(&self, remarks: &mut Remarks) {
        let signs_in = |key: &str| {
            let last = key.rsplit(':').next().unwrap_or(key);
            matches!(last, "_authToken" | "_auth" | "_password" | "username" | "certfile" | "keyfile")
        };
        for item in self.settings.iter().filter(|item| signs_in(&item.key)) {
            remarks.warn(format!(
                "{}: nothing in an app signs in to a source; this line is not used. Put it into `~/.npmrc`, or set \
                 the source with `token-file` or `token-env` in the policy file",
                self.place(item)
            ));
        }
    }

    /// The author's registry for a source.
    pub(in super::super) fn find(&self, name: &str, remarks: &mut Remarks) -> Option<Found> {
        let (origin, set_by) = self.of_settings(name, remarks).or_else(|| self.of_lock(name))?;
        let found = match parse_base(&origin) {
            Ok((base, None)) if base.scheme() == "https" => {
                Ok(Found::at(SourcePlace::Base(base), SourceTrust::LockFile, set_by.as_str()))
            }
            Ok((_, Some(_))) => Err("it has a user or a password".to_owned()),
            Ok(_) => Err("an app's files can name `https` addresses only".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        match found {
            Ok(found) => {
                if let Some(base) = found.base() {
                    remarks.note(format!(
                        "the source `{name}` is `{base}` because {set_by} says so, and nothing else does; \
                         `[sources.{}]` with `url` in the policy file settles it",
                        if name == WHOLE { name.to_owned() } else { format!("\"{name}\"") },
                    ));
                }
                Some(found)
            }
            Err(why) => {
                remarks.warn(format!("{set_by}: this address is not used: {why}"));
                None
            }
        }
    }

    fn of_settings(&self, name: &str, remarks: &mut Remarks) -> Option<(String, String)> {
        let key = registry_key(name)?;
        let item = self.settings.iter().rfind(|item| item.key == key && !item.is_list)?;
        if item.value.contains("${") {
            remarks.warn(format!(
                "{}: no variable is put into a file of the app; this line is not used",
                self.place(item)
            ));
            return None;
        }
        Some((item.value.clone(), self.place(item)))
    }

    fn of_lock(&self, name: &str) -> Option<(String, String)> {
        let (path, origins) = self.lock.as_ref()?;
        let origin = match scope_of(name) {
            None => origins.most_frequent(None)?,
            // The same as for everything else is nothing of its own.
            scope => origins.most_frequent(scope).filter(|own| origins.most_frequent(None) != Some(own))?,
        };
        Some((origin.to_owned(), path.display().to_string()))
    }
}
