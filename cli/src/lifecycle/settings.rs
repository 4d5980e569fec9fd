//! The values of all flags: given, from the environment, or by default.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use wapack_runtime::cnb::api::PlatformApi;

use super::go_flags::{self, FlagError};
use super::program::Program;
use super::table::{self, FLAGS, Fallback, Flag, Kind};
use super::usage::UsageError;

/// What a program finds around it when it starts.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    pub(crate) environment: BTreeMap<OsString, OsString>,
    /// Absolute.
    pub(crate) working_directory: PathBuf,
    /// The effective ids of this process.
    pub(crate) user: (u32, u32),
}

impl Surroundings {
    pub(super) fn of_process() -> Self {
        Self {
            environment: std::env::vars_os().collect(),
            working_directory: std::env::current_dir().unwrap_or_else(|_| "/".into()),
            user: (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()),
        }
    }

    /// Where temporary files go: `TMPDIR`, or `/tmp`.
    pub(super) fn scratch(&self) -> PathBuf {
        self.variable("TMPDIR").map_or_else(|| "/tmp".into(), PathBuf::from)
    }

    /// A variable; an empty one counts as unset (CLI-03).
    pub(super) fn variable(&self, name: &str) -> Option<&OsStr> {
        self.environment.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }
}

/// The values of all flags that there are, also of those that the program does not
/// have: their variables count, as they do with the reference lifecycle.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) program: Program,
    pub(super) api: PlatformApi,
    /// By the flag's name; without those that have no value.
    values: BTreeMap<&'static str, Vec<OsString>>,
    /// Flags of the command line.
    given: Vec<&'static str>,
    /// What follows the flags.
    pub(super) arguments: Vec<OsString>,
}

impl Settings {
    /// Reads the command line of a program.
    ///
    /// # Errors
    /// [`UsageError::Flag`] for what the program does not take, and
    /// [`UsageError::Variable`] for a number that is none.
    pub(super) fn read(
        program: Program,
        api: PlatformApi,
        arguments: &[OsString],
        surroundings: &Surroundings,
    ) -> Result<Self, UsageError> {
        let known = |name: &str| table::flag(name).filter(|flag| flag.is_of(program, api));
        let parsed = go_flags::parse(arguments.iter().cloned(), |name| known(name).map(Flag::takes))?;
        let mut settings =
            Self { program, api, values: BTreeMap::new(), given: Vec::new(), arguments: parsed.rest };
        for flag in FLAGS {
            let values = match parsed.flags.get(flag.name) {
                Some(values) => {
                    settings.given.push(flag.name);
                    of_flag(flag, values)?
                }
                None => of_environment(flag, surroundings)?,
            };
            if let Some(values) = values {
                settings.values.insert(flag.name, values);
            }
        }
        settings.complete(surroundings);
        Ok(settings)
    }

    /// Fills in defaults, and makes paths absolute (CLI-05).
    fn complete(&mut self, surroundings: &Surroundings) {
        let layers = self.values.get("layers").cloned().unwrap_or_else(|| vec!["/layers".into()]);
        let layers = PathBuf::from(layers.into_iter().next().unwrap_or_default());
        for flag in FLAGS {
            let default = match flag.default {
                Fallback::Nothing => None,
                Fallback::Is(text) => Some(OsString::from(text)),
                Fallback::InLayers(name) => Some(layers.join(name).into_os_string()),
            };
            if let Some(default) = default {
                self.values.entry(flag.name).or_insert_with(|| vec![default]);
            }
            if flag.kind == Kind::Path
                && let Some(values) = self.values.get_mut(flag.name)
            {
                values.retain(|value| !value.is_empty());
                for value in values {
                    *value = absolute(&surroundings.working_directory, Path::new(value)).into_os_string();
                }
            }
        }
    }

    /// Whether a flag is on the command line.
    pub(super) fn is_given(&self, name: &str) -> bool {
        self.given.contains(&name)
    }

    fn values(&self, name: &str) -> &[OsString] {
        debug_assert!(table::flag(name).is_some(), "`{name}` is in the table");
        self.values.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    /// The value that counts: the last one.
    fn value(&self, name: &str) -> Option<&OsStr> {
        self.values(name).last().map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// Whether there is a value.
    pub(super) fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// Whether a switch is on.
    pub(super) fn is_on(&self, name: &str) -> bool {
        self.value(name).and_then(go_flags::boolean).unwrap_or_default()
    }

    /// A text, if there is one.
    pub(super) fn text(&self, name: &'static str) -> Result<Option<String>, UsageError> {
        self.value(name).map(|value| text(name, value)).transpose()
    }

    /// All values of a list.
    pub(super) fn texts(&self, name: &'static str) -> Result<Vec<String>, UsageError> {
        self.values(name).iter().map(|value| text(name, value)).collect()
    }

    /// A path, if there is one.
    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.value(name).map(PathBuf::from)
    }

    /// A path that has a default, so that only an empty flag leaves it without.
    pub(super) fn needed_path(&self, name: &'static str) -> Result<PathBuf, UsageError> {
        self.path(name).ok_or(UsageError::Empty { name })
    }

    /// The number of a user or a group.
    pub(super) fn id(&self, name: &'static str) -> Result<Option<u32>, UsageError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        // The largest number says "leave it as it is" to the kernel.
        let id = number(value).and_then(|number| u32::try_from(number).ok()).filter(|id| *id != u32::MAX);
        id.map(Some).ok_or_else(|| UsageError::Id { name, value: value.to_string_lossy().into_owned() })
    }
}

/// The values on a command line, checked as far as the flag's kind says.
fn of_flag(flag: &Flag, values: &[OsString]) -> Result<Option<Vec<OsString>>, UsageError> {
    for value in values {
        let rule = match flag.kind {
            Kind::Switch if go_flags::boolean(value).is_none() => "it is `true` or `false`",
            Kind::Number if number(value).is_none() => "it is a number",
            Kind::Duration if !is_duration(value) => "it is a time such as `336h`",
            _ => continue,
        };
        let value = value.to_string_lossy().into_owned();
        return Err(FlagError::Value { name: flag.name.to_owned(), value, rule }.into());
    }
    Ok(Some(values.to_vec()))
}

/// The value of a flag's variable. What is no boolean is no (CLI-03), and what is no
/// time is the default; but nobody becomes root by a misspelt number.
fn of_environment(flag: &Flag, surroundings: &Surroundings) -> Result<Option<Vec<OsString>>, UsageError> {
    let mut values = flag.variables.iter().filter_map(|name| Some((*name, surroundings.variable(name)?)));
    match flag.kind {
        Kind::Switch => {
            let on = values.any(|(_, value)| go_flags::boolean(value) == Some(true));
            Ok(on.then(|| vec!["true".into()]))
        }
        Kind::List => Ok(values.next().map(|(_, value)| {
            value
                .as_bytes()
                .split(|byte| *byte == b',')
                .map(|part| OsStr::from_bytes(part).to_owned())
                .collect()
        })),
        Kind::Number => match values.next() {
            Some((name, value)) if number(value).is_none() => {
                Err(UsageError::Variable { name, value: value.to_string_lossy().into_owned() })
            }
            found => Ok(found.map(|(_, value)| vec![value.to_owned()])),
        },
        Kind::Duration => {
            Ok(values.next().filter(|(_, value)| is_duration(value)).map(|(_, value)| vec![value.to_owned()]))
        }
        Kind::Text | Kind::Path => Ok(values.next().map(|(_, value)| vec![value.to_owned()])),
    }
}

fn text(name: &'static str, value: &OsStr) -> Result<String, UsageError> {
    value.to_str().map(str::to_owned).ok_or(UsageError::NotText { name })
}

/// An absolute path without `.`, `..` and doubled slashes, by its text alone, as Go
/// makes it.
fn absolute(working_directory: &Path, path: &Path) -> PathBuf {
    use std::path::Component;
    let mut absolute = PathBuf::new();
    for part in working_directory.join(path).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                absolute.pop();
            }
            part => absolute.push(part),
        }
    }
    absolute
}

/// A number as Go reads it on a command line: decimal, or `0x`, `0o`, `0b` or `0` in front.
fn number(value: &OsStr) -> Option<i64> {
    let text = value.to_str()?;
    let (negative, digits) = match text.strip_prefix(['-', '+']) {
        Some(digits) => (text.starts_with('-'), digits),
        None => (false, text),
    };
    let (digits, radix) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&digits[2..], 16),
        [b'0', b'o' | b'O', ..] => (&digits[2..], 8),
        [b'0', b'b' | b'B', ..] => (&digits[2..], 2),
        [b'0', _, ..] => (&digits[1..], 8),
        _ => (digits, 10),
    };
    // `from_str_radix` alone would take another sign.
    if !digits.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return None;
    }
    let number = i64::from_str_radix(digits, radix).ok()?;
    Some(if negative { -number } else { number })
}

/// Whether a text is a time as Go writes it.
fn is_duration(value: &OsStr) -> bool {
    let Some(text) = value.to_str() else { return false };
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest.is_empty() || rest == "0" {
        return !rest.is_empty();
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
        let number = &rest[..digits];
        if !number.bytes().any(|byte| byte.is_ascii_digit()) || number.matches('.').count() > 1 {
            return false;
        }
        rest = &rest[digits..];
        let units = ["ns", "us", "µs", "μs", "ms", "s", "m", "h"];
        match units.iter().find_map(|unit| rest.strip_prefix(unit)) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_go() {
        let read = |text: &str| number(text.as_ref());
        assert_eq!(["0", "1000", "-5", "+7"].map(read), [Some(0), Some(1000), Some(-5), Some(7)]);
        assert_eq!(["0x10", "0o10", "010", "0b11"].map(read), [Some(16), Some(8), Some(8), Some(3)]);
        for text in ["", "-", "a", "1.0", "--1", "1 ", "0x", "99999999999999999999", "0x-1"] {
            assert_eq!(read(text), None, "{text:?}");
        }
    }

    #[test]
    fn times_are_those_of_go() {
        for text in ["336h", "1h30m", "0", "-1.5s", ".5ms", "1µs"] {
            assert!(is_duration(text.as_ref()), "{text}");
        }
        for text in ["", "h", "1", "1d", ".h", "1.2.3s", "1h ", "-"] {
            assert!(!is_duration(text.as_ref()), "{text:?}");
        }
    }

    #[test]
    fn cli_05_paths_are_made_absolute_by_their_text() {
        let made = |path: &str| absolute(Path::new("/work/dir"), Path::new(path));
        assert_eq!(made("a/./b//c/"), Path::new("/work/dir/a/b/c"));
        assert_eq!(made("../../../x"), Path::new("/x"));
        assert_eq!(made("/abs/../y"), Path::new("/y"));
    }
}
