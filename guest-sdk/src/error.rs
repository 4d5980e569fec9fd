//! Why a buildpack failed, and who can do something about it.

use std::fmt;
use std::io;

/// Who can do something about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The author of the app: a file is missing or wrong.
    App,
    /// The author of the buildpack: a defect.
    Buildpack,
    /// Whoever runs the build; trying again may help.
    Environment,
}

/// Why `detect` or `build` failed.
///
/// The message says what could not be done, in lower case without a full stop;
/// the hint says what would help. "Does not apply to this app" is not an error:
/// that is [`Detected::fail`](crate::Detected::fail).
///
/// # Example
/// ```
/// use wapack_sdk::Error;
///
/// let error = Error::app("`package.json` has no `scripts.start`")
///     .hint("add a start script, or a `Procfile` with a `web` process");
/// assert_eq!(error.to_string(), "`package.json` has no `scripts.start`");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// Who can do something about it.
    pub fault: Fault,
    /// What could not be done.
    pub message: String,
    /// What would help.
    pub hint: Option<String>,
    /// When the host refused something: the id of why, which never changes, such
    /// as `source.unset`.
    pub id: Option<String>,
}

impl Error {
    /// An error that the author of the app can mend.
    pub fn app(message: impl Into<String>) -> Self {
        Self::new(Fault::App, message)
    }

    /// A defect of the buildpack.
    pub fn buildpack(message: impl Into<String>) -> Self {
        Self::new(Fault::Buildpack, message)
    }

    /// A failure of the surroundings, such as a full disk.
    pub fn environment(message: impl Into<String>) -> Self {
        Self::new(Fault::Environment, message)
    }

    /// Adds what would help.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The host did not do what it was asked for. The id leads, so that it
    /// survives a buildpack that passes the message on.
    pub(crate) fn host(id: &str, message: &str, hint: Option<String>) -> Self {
        // What a source or the network did not give is nobody's defect.
        let fault = match id.split('.').next() {
            Some("archive" | "host" | "net" | "source") => Fault::Environment,
            _ => Fault::Buildpack,
        };
        Self { id: Some(id.to_owned()), hint, ..Self::new(fault, format!("{id}: {message}")) }
    }

    fn new(fault: Fault, message: impl Into<String>) -> Self {
        Self { fault, message: message.into(), hint: None, id: None }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// The message names the path when the error comes from [`crate::fs`]; plain
/// [`std::fs`] leaves it out.
impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind as Kind;
        let fault = match error.kind() {
            Kind::StorageFull
            | Kind::Interrupted
            | Kind::OutOfMemory
            | Kind::TimedOut
            | Kind::ResourceBusy => Fault::Environment,
            // What the app lacks should have been noticed, and said in the app's terms.
            _ => Fault::Buildpack,
        };
        Self::new(fault, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_io_error_of_our_fs_names_the_path() {
        let error: Error = crate::fs::read("/no/such/file").unwrap_err().into();
        assert_eq!(error.fault, Fault::Buildpack);
        assert!(error.message.contains("/no/such/file"), "{}", error.message);
    }

    #[test]
    fn a_full_disk_is_the_environments() {
        assert_eq!(Error::from(io::Error::from(io::ErrorKind::StorageFull)).fault, Fault::Environment);
    }
}
