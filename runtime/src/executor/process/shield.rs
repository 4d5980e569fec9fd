//! The app as `bin/detect` may see it: to read, not to change.
//!
//! Landlock knows only what is allowed. So everything beside the app is, and
//! everything beside the directories above it. That cannot be said where somebody
//! may make new files in a directory above the app, so there the app stays as it is.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use fs_err as fs;
use landlock::{
    ABI, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, RulesetError,
};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, accessat};

/// The oldest Landlock under which files can still be moved between directories and
/// no file be truncated.
const ABI: ABI = ABI::V3;

/// Takes the right to change an app from threads, and from all programs they start.
#[derive(Debug)]
pub(super) struct Shield(RulesetCreated);

impl Shield {
    /// A shield for `app`, if there can be one. `scratch` stays writable wherever it is.
    ///
    /// # Spec
    /// `platform.md` 0.15 "Phase: Detection"; DET-07.
    pub(super) fn of(app: &Path, scratch: &Path, is_writable: fn(&Path) -> bool) -> Option<Self> {
        let app = fs::canonicalize(app).ok()?;
        if app.ancestors().skip(1).any(is_writable) {
            return None;
        }
        rules(&app, scratch).ok().map(Self)
    }

    /// Puts it before the calling thread, for good.
    pub(super) fn enter(&self) {
        // Without it a buildpack is what it always was: on its honour.
        if let Ok(rules) = self.0.try_clone() {
            drop(rules.restrict_self());
        }
    }
}

/// Whether this process may make files in a directory.
pub(super) fn is_writable(directory: &Path) -> bool {
    accessat(CWD, directory, rustix::fs::Access::WRITE_OK, AtFlags::EACCESS).is_ok()
}

#[derive(Debug, thiserror::Error)]
enum NoRules {
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Kernel(#[from] RulesetError),
}

fn rules(app: &Path, scratch: &Path) -> Result<RulesetCreated, NoRules> {
    let changes = AccessFs::from_write(ABI);
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(changes)?
        .create()?
        .set_compatibility(CompatLevel::BestEffort);
    for path in beside(app)?.into_iter().chain([scratch.to_owned()]) {
        // What is gone by now, or cannot even be named, cannot be changed either.
        let Ok(opened) =
            rustix::fs::open(&path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        else {
            continue;
        };
        let opened: OwnedFd = opened;
        let is_directory = File::from(opened.try_clone()?).metadata()?.is_dir();
        let allowed: BitFlags<AccessFs> =
            if is_directory { changes } else { changes & AccessFs::from_file(ABI) };
        rules = rules.add_rule(PathBeneath::new(opened, allowed))?;
    }
    Ok(rules)
}

/// Everything that stands beside the app, and beside each directory above it.
fn beside(app: &Path) -> Result<Vec<PathBuf>, std::io::Error> {
    let mut found = Vec::new();
    for below in app.ancestors() {
        let Some(directory) = below.parent() else { break };
        // What we may not list we may not write into either.
        let Ok(entries) = fs::read_dir(directory) else { continue };
        for entry in entries {
            let path = entry?.path();
            if path != below {
                found.push(path);
            }
        }
    }
    Ok(found)
}
