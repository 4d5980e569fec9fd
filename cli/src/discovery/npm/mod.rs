//! Where npm gets its packages: the user's configuration, and what an app's files say.

mod app;
mod ini;
mod lock;
mod rc;

pub(super) use app::AppFiles;
pub(super) use rc::{Npm, Proxies};

/// The source of packages without a registry of their own.
pub(super) const WHOLE: &str = "npm";

/// The scope that a source is for: `@acme` of `npm:@acme`.
fn scope_of(name: &str) -> Option<&str> {
    name.strip_prefix("npm:").filter(|scope| scope.len() > 1 && scope.starts_with('@'))
}

/// The key of a source's address: `registry`, or `@acme:registry`.
fn registry_key(name: &str) -> Option<String> {
    if name == WHOLE { Some("registry".to_owned()) } else { Some(format!("{}:registry", scope_of(name)?)) }
}
