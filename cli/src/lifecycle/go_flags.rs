//! Flags as the programs of the lifecycle have always taken them: one dash or two,
//! before the first argument that is none.
//!
//! Knows no flag; what there is comes with the call.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

/// Whether a flag needs a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// `-flag value` or `-flag=value`.
    Value,
    /// `-flag`, or `-flag=true`.
    MaybeValue,
}

/// A command line, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Parsed {
    /// The values of each flag that was given, in order.
    pub(super) flags: BTreeMap<String, Vec<OsString>>,
    /// From the first word that is no flag.
    pub(super) rest: Vec<OsString>,
}

/// Why a command line cannot be taken apart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum FlagError {
    #[error("bad flag syntax: {word}")]
    Syntax { word: String },
    #[error("flag provided but not defined: -{name}")]
    Unknown { name: String },
    #[error("flag needs an argument: -{name}")]
    NoValue { name: String },
    #[error("invalid value \"{value}\" for flag -{name}: {rule}")]
    Value { name: String, value: String, rule: &'static str },
    /// Somebody asked what there is.
    #[error("help requested")]
    Help,
}

/// Takes `arguments` apart; `takes` says which flags there are.
///
/// # Spec
/// CLI-02. `-` alone is no flag, `--` ends the flags and is dropped.
pub(super) fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    takes: impl Fn(&str) -> Option<Takes>,
) -> Result<Parsed, FlagError> {
    let mut parsed = Parsed::default();
    let mut words = arguments.into_iter();
    while let Some(word) = words.next() {
        let Some(flag) = word.as_bytes().strip_prefix(b"-").filter(|flag| !flag.is_empty()) else {
            parsed.rest.push(word);
            break;
        };
        if flag == b"-" {
            break;
        }
        let flag = flag.strip_prefix(b"-").unwrap_or(flag);
        if flag.starts_with(b"-") || flag.starts_with(b"=") {
            return Err(FlagError::Syntax { word: word.to_string_lossy().into_owned() });
        }
        let (name, value) = match flag.iter().position(|byte| *byte == b'=') {
            Some(equals) => (&flag[..equals], Some(OsStr::from_bytes(&flag[equals + 1..]).to_owned())),
            None => (flag, None),
        };
        let name = String::from_utf8_lossy(name).into_owned();
        let value = match (takes(&name), value) {
            (None, _) if name == "h" || name == "help" => return Err(FlagError::Help),
            (None, _) => return Err(FlagError::Unknown { name }),
            (Some(_), Some(value)) => value,
            (Some(Takes::MaybeValue), None) => "true".into(),
            (Some(Takes::Value), None) => match words.next() {
                Some(value) => value,
                None => return Err(FlagError::NoValue { name }),
            },
        };
        parsed.flags.entry(name).or_default().push(value);
    }
    parsed.rest.extend(words);
    Ok(parsed)
}

/// A yes or no as Go's `strconv` reads it (CLI-03).
pub(super) fn boolean(text: &OsStr) -> Option<bool> {
    match text.to_str()? {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(name: &str) -> Option<Takes> {
        match name {
            "app" | "tag" => Some(Takes::Value),
            "daemon" => Some(Takes::MaybeValue),
            _ => None,
        }
    }

    /// `name=value …` and what is left over.
    fn show(words: &[&str]) -> Result<(String, Vec<OsString>), FlagError> {
        let parsed = parse(words.iter().map(Into::into), takes)?;
        let flags = parsed.flags.iter().flat_map(|(name, values)| {
            values.iter().map(move |value| format!("{name}={}", value.to_string_lossy()))
        });
        Ok((flags.collect::<Vec<_>>().join(" "), parsed.rest))
    }

    #[test]
    fn cli_02_one_dash_or_two_and_values_in_either_form() {
        for words in [&["-app", "x"][..], &["--app", "x"], &["-app=x"], &["--app=x"]] {
            assert_eq!(show(words), Ok(("app=x".into(), vec![])), "{words:?}");
        }
        for (word, expected) in
            [("-daemon", "true"), ("--daemon", "true"), ("-daemon=false", "false"), ("-daemon=1", "1")]
        {
            assert_eq!(show(&[word]), Ok((format!("daemon={expected}"), vec![])), "{word}");
        }
        assert_eq!(show(&["-app="]), Ok(("app=".into(), vec![])));
        assert_eq!(show(&["-app", "-daemon"]), Ok(("app=-daemon".into(), vec![])));
        assert_eq!(show(&["-app=a=b"]), Ok(("app=a=b".into(), vec![])));
    }

    #[test]
    fn cli_02_flags_end_at_the_first_word_that_is_none() {
        assert_eq!(show(&["-daemon", "false", "-app", "x"]), {
            Ok(("daemon=true".into(), vec!["false".into(), "-app".into(), "x".into()]))
        });
        assert_eq!(show(&["-", "-daemon"]), Ok((String::new(), vec!["-".into(), "-daemon".into()])));
        assert_eq!(show(&["--", "-daemon"]), Ok((String::new(), vec!["-daemon".into()])));
    }

    #[test]
    fn cli_04_a_flag_can_be_given_again() {
        assert_eq!(show(&["-tag", "a", "-tag=b"]), Ok(("tag=a tag=b".into(), vec![])));
    }

    #[test]
    fn what_is_no_flag_of_the_program_is_an_error() {
        let name = || "x".to_owned();
        assert_eq!(show(&["-x"]), Err(FlagError::Unknown { name: name() }));
        assert_eq!(show(&["--x=1"]), Err(FlagError::Unknown { name: name() }));
        assert_eq!(show(&["-app"]), Err(FlagError::NoValue { name: "app".into() }));
        for word in ["---app", "-=x", "--=x"] {
            assert_eq!(show(&[word]), Err(FlagError::Syntax { word: word.into() }), "{word}");
        }
        assert_eq!(show(&["-h"]), Err(FlagError::Help));
        assert_eq!(show(&["--help"]), Err(FlagError::Help));
    }

    #[test]
    fn cli_03_booleans_are_those_of_go() {
        for yes in ["1", "t", "T", "TRUE", "true", "True"] {
            assert_eq!(boolean(yes.as_ref()), Some(true), "{yes}");
        }
        for no in ["0", "f", "F", "FALSE", "false", "False"] {
            assert_eq!(boolean(no.as_ref()), Some(false), "{no}");
        }
        for other in ["", "yes", "tRUE", "2", " true"] {
            assert_eq!(boolean(other.as_ref()), None, "{other}");
        }
    }
}
