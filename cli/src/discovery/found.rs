//! A source that something on this machine names, and what there is to say about it.

use std::path::{Path, PathBuf};

use url::{Host, Url};
use wapack_runtime::network::{Credentials, SourcePlace, SourceSettings, SourceTrust, parse_base};

/// A source, and where its parts come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) settings: SourceSettings,
    /// Who said how to sign in, if anybody did.
    pub(crate) signed_in_by: Option<String>,
}

/// What the user should hear; each thing once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Remark {
    Warning(String),
    Note(String),
}

/// Remarks in the order they came up.
#[derive(Debug, Default)]
pub(crate) struct Remarks {
    all: Vec<Remark>,
    /// How many of them were taken.
    taken: usize,
}

impl Remarks {
    pub(super) fn warn(&mut self, text: impl Into<String>) {
        self.add(Remark::Warning(text.into()));
    }

    pub(super) fn note(&mut self, text: impl Into<String>) {
        self.add(Remark::Note(text.into()));
    }

    fn add(&mut self, remark: Remark) {
        if !self.all.contains(&remark) {
            self.all.push(remark);
        }
    }

    /// Those that are new.
    pub(super) fn take(&mut self) -> Vec<Remark> {
        let new = self.all[self.taken..].to_vec();
        self.taken = self.all.len();
        new
    }
}

impl Found {
    /// A place without anything else to it.
    pub(super) fn at(place: SourcePlace, trust: SourceTrust, set_by: impl Into<String>) -> Self {
        let set_by = set_by.into();
        Self {
            settings: SourceSettings {
                place,
                mirrors: Vec::new(),
                credentials: None,
                ca: Vec::new(),
                trust,
                set_by,
            },
            signed_in_by: None,
        }
    }

    /// An address that the configuration of one of the user's tools names. One that
    /// is none is passed over with a warning, which does not repeat it: it may
    /// hold a password.
    pub(super) fn of_tool(text: &str, set_by: &str, remarks: &mut Remarks) -> Option<Self> {
        if let Some(directory) = text.strip_prefix("file://").filter(|path| path.starts_with('/')) {
            return Some(Self::at(
                SourcePlace::Directory(PathBuf::from(directory)),
                SourceTrust::Configured,
                set_by,
            ));
        }
        match parse_base(text) {
            Ok((base, credentials)) => {
                let mut found = Self::at(SourcePlace::Base(base), SourceTrust::Configured, set_by);
                found.sign_in(credentials, set_by);
                Some(found)
            }
            Err(error) => {
                remarks.warn(format!("{set_by}: this address is not used: {error}"));
                None
            }
        }
    }

    pub(super) fn sign_in(&mut self, credentials: Option<Credentials>, set_by: &str) {
        if credentials.is_some() && self.settings.credentials.is_none() {
            self.settings.credentials = credentials;
            self.signed_in_by = Some(set_by.to_owned());
        }
    }

    pub(super) fn base(&self) -> Option<&Url> {
        match &self.settings.place {
            SourcePlace::Base(url) => Some(url),
            SourcePlace::Directory(_) => None,
        }
    }

    /// R14: what travels in the clear is said, once.
    pub(super) fn warn_of_plain_http(&self, name: &str, remarks: &mut Remarks) {
        let Some(url) = self.base().filter(|url| url.scheme() == "http" && !is_loopback(url)) else { return };
        let what = if self.settings.credentials.is_some() { " and what signs in to it" } else { "" };
        remarks.warn(format!(
            "the source `{name}`{what} can be read on the way: {} says `http://{}`",
            self.settings.set_by,
            url.host_str().unwrap_or_default(),
        ));
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// A file with authorities, if it is there.
pub(super) fn authority(path: &Path, set_by: &str, remarks: &mut Remarks) -> Option<PathBuf> {
    if path.is_absolute() && path.is_file() {
        return Some(path.to_owned());
    }
    remarks.warn(format!("{set_by}: there is no file `{}`; it is not used", path.display()));
    None
}
