//! `wapack/procfile`: processes of the image from the app's `Procfile`.
//!
//! Knows how an entry becomes a process; what an entry is, is the business of
//! [`procfile`].

pub mod procfile;

use wapack_sdk::{BuildContext, Buildpack, Built, DetectContext, Detected, Error, Process, fs};

use procfile::Command;

/// The buildpack.
#[derive(Debug)]
pub struct Procfile;

impl Buildpack for Procfile {
    fn detect(context: &DetectContext) -> Result<Detected, Error> {
        if context.app.join("Procfile").is_file() {
            Ok(Detected::pass())
        } else {
            Ok(Detected::fail("no `Procfile`"))
        }
    }

    #[expect(clippy::print_stdout, reason = "the build's log")]
    fn build(context: &BuildContext) -> Result<Built, Error> {
        let text = String::from_utf8(fs::read(context.app.join("Procfile"))?)
            .map_err(|_| Error::app("`Procfile` is not UTF-8").hint("save it as UTF-8"))?;
        let entries = procfile::parse(&text).map_err(|error| {
            Error::app(error.to_string()).hint("each line is `name: command`, each name is there once")
        })?;
        if entries.is_empty() {
            return Err(Error::app("`Procfile` has no processes").hint("add a line such as `web: ./server`"));
        }

        let mut built = Built::new();
        for entry in entries {
            let process = match entry.command {
                Command::Direct(words) => {
                    println!("{}: {}", entry.name, words.join(" "));
                    Process::new(&entry.name, words)
                }
                Command::Shell { line, reason } => {
                    println!("{}: {line}", entry.name);
                    println!("  starts through `bash`, because of `{reason}`: the run image needs `bash`");
                    Process::new(&entry.name, ["bash", "-c", &line])
                }
            };
            built = built.process(if entry.name == "web" { process.default() } else { process });
        }
        Ok(built)
    }
}

wapack_sdk::export!(Procfile);

#[cfg(test)]
mod tests {
    use wapack_sdk::Fault;
    use wapack_sdk::testing::Project;

    use super::*;

    #[test]
    fn takes_part_when_there_is_a_procfile() {
        let project = Project::new().unwrap();
        assert_eq!(project.detect::<Procfile>().unwrap().reason(), Some("no `Procfile`"));
        project.app_file("Procfile", "").unwrap();
        assert!(project.detect::<Procfile>().unwrap().is_pass());
    }

    #[test]
    fn web_is_the_default_and_shell_syntax_gets_a_shell() {
        let project = Project::new().unwrap();
        project.app_file("Procfile", "worker: ./work\nweb: serve -p $PORT\n").unwrap();
        let built = project.build::<Procfile>().unwrap();
        assert_eq!(
            built.processes,
            [
                Process::new("worker", ["./work"]),
                Process::new("web", ["bash", "-c", "serve -p $PORT"]).default(),
            ]
        );
    }

    #[test]
    fn a_bad_procfile_is_the_apps_fault() {
        let project = Project::new().unwrap();
        for text in [&b"oops"[..], b"", b"\xff: x"] {
            project.app_file("Procfile", text).unwrap();
            assert_eq!(project.build::<Procfile>().unwrap_err().fault, Fault::App);
        }
    }
}
