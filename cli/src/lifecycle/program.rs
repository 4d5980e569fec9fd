//! Which program of the lifecycle this one was started as.

use std::ffi::{OsStr, OsString};
use std::path::Path;

/// A program of the lifecycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    Analyzer,
    Detector,
    Restorer,
    Extender,
    Builder,
    Exporter,
    Creator,
    Rebaser,
}

impl Program {
    pub(crate) const ALL: [Self; 8] = [
        Self::Analyzer,
        Self::Detector,
        Self::Restorer,
        Self::Extender,
        Self::Builder,
        Self::Exporter,
        Self::Creator,
        Self::Rebaser,
    ];

    /// The name of the program in a builder image.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Analyzer => "analyzer",
            Self::Detector => "detector",
            Self::Restorer => "restorer",
            Self::Extender => "extender",
            Self::Builder => "builder",
            Self::Exporter => "exporter",
            Self::Creator => "creator",
            Self::Rebaser => "rebaser",
        }
    }

    /// What it does: the word for it behind `lifecycle`.
    pub(crate) fn verb(self) -> &'static str {
        match self {
            Self::Analyzer => "analyze",
            Self::Detector => "detect",
            Self::Restorer => "restore",
            Self::Extender => "extend",
            Self::Builder => "build",
            Self::Exporter => "export",
            Self::Creator => "create",
            Self::Rebaser => "rebase",
        }
    }

    /// The same in a line.
    pub(crate) fn purpose(self) -> &'static str {
        match self {
            Self::Analyzer => "find the images, and what the last build left in them",
            Self::Detector => "find the group of buildpacks that builds the app, and its plan",
            Self::Restorer => "put back layers of the last build",
            Self::Extender => "apply what image extensions generated, as far as that needs no engine",
            Self::Builder => "run the group's buildpacks",
            Self::Exporter => "make the image, and the cache of the next build",
            Self::Creator => "all of the above but `extender`",
            Self::Rebaser => "put an app on another run image",
        }
    }
}

/// How the lifecycle was called, and with what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    /// The program, when its name alone says it; else the first argument does.
    pub(crate) program: Option<Program>,
    pub(crate) arguments: Vec<OsString>,
}

impl Call {
    /// What a command line asks of the lifecycle; `None` when it asks for something
    /// else: `analyzer …` and its like, `lifecycle …`, and `wapack lifecycle …`.
    ///
    /// # Spec
    /// CLI-01, CLI-07. Like the reference's, the name may have an extension.
    pub(crate) fn of(command_line: impl IntoIterator<Item = OsString>) -> Option<Self> {
        let mut words = command_line.into_iter();
        let called = words.next()?;
        let name = Path::new(&called).file_stem().unwrap_or_default();
        if let Some(program) = Program::ALL.into_iter().find(|program| name == program.name()) {
            return Some(Self { program: Some(program), arguments: words.collect() });
        }
        let arguments: Vec<OsString> = words.collect();
        if name == LIFECYCLE {
            return Some(Self { program: None, arguments });
        }
        match arguments.split_first() {
            Some((first, rest)) if first == LIFECYCLE => {
                Some(Self { program: None, arguments: rest.to_vec() })
            }
            _ => None,
        }
    }
}

/// The program that an argument names, by its verb or its name.
pub(super) fn named(argument: &OsStr) -> Option<Program> {
    let word = Path::new(argument).file_name().unwrap_or_default();
    Program::ALL.into_iter().find(|program| word == program.verb() || word == program.name())
}

const LIFECYCLE: &str = "lifecycle";

#[cfg(test)]
mod tests {
    use super::*;

    fn called(words: &[&str]) -> Option<(Option<Program>, Vec<OsString>)> {
        Call::of(words.iter().map(Into::into)).map(|call| (call.program, call.arguments))
    }

    #[test]
    fn cli_01_the_name_of_the_file_chooses_the_program() {
        for program in Program::ALL {
            let path = format!("/cnb/lifecycle/{}", program.name());
            assert_eq!(called(&[&path, "-x"]), Some((Some(program), vec!["-x".into()])));
        }
        assert_eq!(called(&["detector.exe"]), Some((Some(Program::Detector), vec![])));
        for other in ["wapack", "/bin/analyzer2", "Analyzer", ""] {
            assert_eq!(called(&[other]), None, "{other}");
        }
        assert_eq!(called(&[]), None);
    }

    #[test]
    fn cli_07_lifecycle_and_wapack_lifecycle_take_the_program_as_a_word() {
        let rest = || vec![OsString::from("detect"), "-app".into(), "x".into()];
        assert_eq!(called(&["/cnb/lifecycle/lifecycle", "detect", "-app", "x"]), Some((None, rest())));
        assert_eq!(called(&["wapack", "lifecycle", "detect", "-app", "x"]), Some((None, rest())));
        assert_eq!(called(&["wapack", "build", "lifecycle"]), None);
        let verbs = ["analyze", "detect", "restore", "extend", "build", "export", "create", "rebase"];
        assert_eq!(verbs.map(|verb| named(verb.as_ref())), Program::ALL.map(Some));
        assert_eq!(named("launch".as_ref()), None);
    }
}
