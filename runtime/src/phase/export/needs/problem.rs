//! What keeps a process from starting, and what helps.

use std::collections::BTreeSet;

use crate::cnb::id::{BuildpackRef, LayerName};
use crate::fault::Fault;

/// Libraries listed in one message.
const LISTED_LIBRARIES: usize = 10;

/// A file of a process, and what it needs in vain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmet {
    /// As it is in the image, or as the process names it when it is nowhere.
    pub program: String,
    /// Whose file it is, if there is one.
    pub origin: Option<Origin>,
    /// Whether the image has a base.
    pub has_base: bool,
    pub problem: Problem,
}

/// Who put a file into the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    App,
    Layer { buildpack: BuildpackRef, name: LayerName },
    RunImage,
}

/// What is wrong with a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Problem {
    /// It is nowhere; with where it was looked for when that was a list.
    NoProgram { search_path: Option<String> },
    /// It is there and has no permission to be executed.
    NotExecutable,
    /// The interpreter of a script is not there.
    NoInterpreter { interpreter: String },
    /// It is for other processors.
    WrongMachine { machine: String, architecture: String },
    /// Its dynamic loader is not there; with the libraries that it names itself.
    NoLoader { loader: String, libraries: Vec<String> },
    /// The loader would not find these.
    NoLibraries { missing: Vec<MissingLibrary> },
}

/// A library that is not found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingLibrary {
    pub name: String,
    /// The program or library that names it.
    pub needed_by: String,
}

impl std::error::Error for Unmet {}

impl std::fmt::Display for Unmet {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let program = self.program.escape_debug();
        match &self.origin {
            None => write!(out, "`{program}`")?,
            Some(Origin::App) => write!(out, "`{program}` of the app")?,
            Some(Origin::RunImage) => write!(out, "`{program}` of the run image")?,
            Some(Origin::Layer { buildpack, name }) => {
                write!(out, "`{program}` of layer `{name}` of buildpack `{buildpack}`")?;
            }
        }
        match &self.problem {
            Problem::NoProgram { search_path: None } => write!(out, " is not in the image"),
            Problem::NoProgram { search_path: Some(path) } if path.is_empty() => {
                write!(out, " is not in the image, where `PATH` is empty")
            }
            Problem::NoProgram { search_path: Some(path) } => {
                write!(out, " is in no directory of `PATH`: `{}`", path.escape_debug())
            }
            Problem::NotExecutable => write!(out, " is not executable"),
            Problem::NoInterpreter { interpreter } => {
                write!(out, " needs `{}`, which is not in the image", interpreter.escape_debug())
            }
            Problem::WrongMachine { machine, architecture } => {
                write!(out, " is a program for `{machine}`, the image is for `{architecture}`")
            }
            Problem::NoLoader { loader, .. } => {
                write!(out, " needs the loader `{}`, which is not in the image", loader.escape_debug())
            }
            Problem::NoLibraries { missing } => {
                let kind = if missing.len() == 1 { "library" } else { "libraries" };
                write!(out, " does not find the {kind} ")?;
                for (number, library) in missing.iter().take(LISTED_LIBRARIES).enumerate() {
                    let separator = if number == 0 { "" } else { ", " };
                    write!(out, "{separator}`{}`", library.name.escape_debug())?;
                    if library.needed_by != self.program {
                        write!(out, " (for `{}`)", library.needed_by.escape_debug())?;
                    }
                }
                match missing.len().saturating_sub(LISTED_LIBRARIES) {
                    0 => Ok(()),
                    more => write!(out, " and {more} more"),
                }
            }
        }
    }
}

impl Problem {
    pub(in super::super) fn id(&self) -> &'static str {
        match self {
            Self::NoProgram { .. } => "export.no_program",
            Self::NotExecutable => "export.not_executable",
            Self::NoInterpreter { .. } => "export.no_interpreter",
            Self::WrongMachine { .. } => "export.wrong_machine",
            Self::NoLoader { .. } => "export.no_loader",
            Self::NoLibraries { .. } => "export.no_libraries",
        }
    }

    pub(in super::super) fn fault(&self) -> Fault {
        match self {
            Self::NoProgram { .. } | Self::NotExecutable => Fault::App,
            // Whoever chooses the run image can help.
            Self::NoInterpreter { .. }
            | Self::WrongMachine { .. }
            | Self::NoLoader { .. }
            | Self::NoLibraries { .. } => Fault::Caller,
        }
    }

    /// Whether variables that are set when the image starts could make it good.
    pub(super) fn depends_on_environment(&self) -> bool {
        matches!(self, Self::NoProgram { .. } | Self::NoInterpreter { .. } | Self::NoLibraries { .. })
    }
}

impl Unmet {
    pub(in super::super) fn hint(&self) -> String {
        match &self.problem {
            Problem::NoProgram { .. } if is_shell(&self.program) => format!(
                "this process starts through a shell: take a run image that has `{}` (`--run-image`), \
                 or write its command without shell syntax",
                self.program
            ),
            Problem::NoProgram { search_path: Some(_) } => {
                "name a file of the app with a path, such as `./server`, or take a run image that has it"
                    .into()
            }
            Problem::NoProgram { search_path: None } => {
                "the command has to name a file of the app, a layer or the run image".into()
            }
            Problem::NotExecutable => format!("make it executable: `chmod +x {}`", file_name(&self.program)),
            Problem::NoInterpreter { interpreter } if interpreter.ends_with('\r') => {
                "its lines end as on Windows; save it with the line ends of Unix".into()
            }
            Problem::NoInterpreter { interpreter } => {
                format!("take a run image that has `{}` (`--run-image`)", interpreter.escape_debug())
            }
            Problem::WrongMachine { architecture, .. } => {
                format!("build it for `{architecture}`, or take a run image for other processors")
            }
            Problem::NoLoader { loader, libraries } => {
                let (what, packages) = packages(loader, libraries.iter().map(String::as_str));
                take_a_run_image(&format!("that has {what}"), &packages)
            }
            Problem::NoLibraries { missing } => {
                let (_, packages) = packages("", missing.iter().map(|library| library.name.as_str()));
                let them = if missing.len() == 1 { "it" } else { "them" };
                take_a_run_image(&format!("that has {them}"), &packages)
            }
        }
    }
}

fn take_a_run_image(that: &str, packages: &[&str]) -> String {
    let packages = match packages {
        [] => String::new(),
        packages => format!(", such as one made from Debian with `{}`", packages.join("`, `")),
    };
    format!("take a run image {that}{packages} (`--run-image oci:DIR:NAME`)")
}

/// What a loader and libraries are part of, and Debian's packages for them.
fn packages<'a>(loader: &str, libraries: impl Iterator<Item = &'a str>) -> (String, Vec<&'static str>) {
    const KNOWN: [(&str, &str); 10] = [
        ("libatomic.so.1", "libatomic1"),
        ("libc.so.6", "libc6"),
        ("libcrypto.so.3", "libssl3"),
        ("libcurl.so.4", "libcurl4"),
        ("libgcc_s.so.1", "libgcc-s1"),
        ("libpq.so.5", "libpq5"),
        ("libsqlite3.so.0", "libsqlite3-0"),
        ("libssl.so.3", "libssl3"),
        ("libstdc++.so.6", "libstdc++6"),
        ("libz.so.1", "zlib1g"),
    ];
    let name = file_name(loader);
    let is_musl = name.starts_with("ld-musl-");
    let is_glibc = name.starts_with("ld-linux") || name.starts_with("ld64.so");
    let mut parts = Vec::new();
    let mut packages = BTreeSet::new();
    if is_glibc {
        parts.push("glibc".to_owned());
        packages.insert("libc6");
    } else if is_musl {
        parts.push("musl".to_owned());
    } else if !loader.is_empty() {
        parts.push(format!("`{}`", loader.escape_debug()));
    }
    for library in libraries {
        if library.starts_with("libstdc++.so") {
            parts.push("libstdc++".to_owned());
        }
        // Names of Debian's packages say nothing to a program that was made for another C library.
        if !is_musl && let Some((_, package)) = KNOWN.iter().find(|(known, _)| *known == library) {
            packages.insert(*package);
        }
    }
    (parts.join(" and "), packages.into_iter().collect())
}

fn is_shell(program: &str) -> bool {
    matches!(file_name(program), "sh" | "bash" | "dash" | "ash" | "zsh")
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
