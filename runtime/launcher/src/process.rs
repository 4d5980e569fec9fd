//! Which process runs, and with which arguments.
//!
//! Decides from the program's own arguments and the metadata alone; looks at no
//! file and starts nothing.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::metadata::{self, Metadata};
use crate::platform::{ApiVersion, Platform};

/// From this buildpack API on, the user's arguments replace the defaults.
const OVERRIDABLE_ARGUMENTS: ApiVersion = ApiVersion::new(0, 9);
/// From this platform API on, commands are lists and arguments may be replaced.
const COMMAND_LISTS: ApiVersion = ApiVersion::new(0, 10);
/// From this platform API on, a process may be limited to execution environments.
const EXECUTION_ENVIRONMENTS: ApiVersion = ApiVersion::new(0, 15);
/// From this buildpack API on, a shell process with arguments is a list of words.
const SHELL_WORDS: ApiVersion = ApiVersion::new(0, 4);

/// What is going to run.
#[derive(Debug, PartialEq, Eq)]
#[expect(clippy::struct_field_names, reason = "`process type` is the spec's word, and `type` is taken")]
pub(crate) struct Process {
    /// `None` for a command of the user's own: nothing that belongs to a type applies.
    pub(crate) process_type: Option<String>,
    pub(crate) start: Start,
    /// Absolute.
    pub(crate) working_directory: PathBuf,
}

/// How it is started.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// Program and arguments, as they are; no shell need exist.
    Direct { program: OsString, arguments: Vec<OsString> },
    /// Words that bash expands one by one, and then runs as one command.
    ShellWords(Vec<OsString>),
    /// A script for bash; the arguments are `$1`, `$2`, …
    ShellScript { script: OsString, arguments: Vec<OsString> },
}

/// Chooses the process.
///
/// # Shape
/// ```text
/// /cnb/process/web a b                 the process `web`, user arguments `a b`
/// /cnb/lifecycle/launcher -- ls -l     a command, started directly
/// /cnb/lifecycle/launcher 'echo $HOME' a command for bash
/// ```
pub(crate) fn choose(
    caller: &OsStr,
    user_arguments: Vec<OsString>,
    metadata: &Metadata,
    platform: &Platform,
) -> Result<Process, Failure> {
    let name = Path::new(caller).file_name().unwrap_or_default();
    match metadata.processes.iter().find(|process| OsStr::new(&process.process_type) == name) {
        Some(process) => of_image(process, user_arguments, metadata, platform),
        None => of_user(name, user_arguments, metadata, platform),
    }
}

fn of_image(
    process: &metadata::Process,
    user_arguments: Vec<OsString>,
    metadata: &Metadata,
    platform: &Platform,
) -> Result<Process, Failure> {
    if platform.api >= EXECUTION_ENVIRONMENTS && !is_eligible(process, &platform.exec_env) {
        return Err(Failure::launch(format!(
            "process `{}` is for the execution environment `{}`, this is `{}`; set `CNB_EXEC_ENV` to run it",
            process.process_type,
            process.exec_envs.join("`, `"),
            platform.exec_env
        )));
    }
    let api = metadata
        .buildpacks
        .iter()
        .find(|buildpack| buildpack.id == process.buildpack_id)
        .map(|buildpack| buildpack.api);
    let nobodys = || {
        Failure::launch(format!(
            "process `{}` is of the buildpack `{}`, which the image does not list",
            process.process_type, process.buildpack_id
        ))
    };
    // What becomes of the user's arguments depends on the buildpack.
    if platform.api >= COMMAND_LISTS && process.command.len() == 1 && !user_arguments.is_empty() {
        api.ok_or_else(nobodys)?;
    }
    // Before buildpack API 0.9 a command was one string, so several elements settle it too.
    let overridable = platform.api >= COMMAND_LISTS
        && (process.command.len() > 1 || api.is_some_and(|api| api >= OVERRIDABLE_ARGUMENTS));

    let (program, mut arguments): (OsString, Vec<OsString>) =
        if platform.api < COMMAND_LISTS && !process.direct {
            // For these platforms a command is one text, however it is written.
            (process.command.join(" ").into(), Vec::new())
        } else {
            let mut words = process.command.iter().map(OsString::from);
            (words.next().unwrap_or_default(), words.collect())
        };
    if user_arguments.is_empty() || !overridable {
        arguments.extend(process.args.iter().map(OsString::from));
    }
    arguments.extend(user_arguments);

    let start = if process.direct {
        if program.is_empty() {
            return Err(Failure::launch(format!("process `{}` has no command", process.process_type)));
        }
        Start::Direct { program, arguments }
    } else if !arguments.is_empty() && !process.buildpack_id.is_empty() && api.is_none() {
        return Err(nobodys());
    } else if arguments.is_empty() || api.is_some_and(|api| api < SHELL_WORDS) {
        Start::ShellScript { script: program, arguments }
    } else {
        arguments.insert(0, program);
        Start::ShellWords(arguments)
    };
    let working_directory = process.working_directory.as_deref().unwrap_or_default();
    Ok(Process {
        process_type: Some(process.process_type.clone()),
        start,
        working_directory: if working_directory.is_empty() {
            platform.app_directory.clone()
        } else {
            platform.app_directory.join(working_directory)
        },
    })
}

fn of_user(
    name: &OsStr,
    mut user_arguments: Vec<OsString>,
    metadata: &Metadata,
    platform: &Platform,
) -> Result<Process, Failure> {
    let direct = user_arguments.first().is_some_and(|first| first == "--");
    if direct {
        user_arguments.remove(0);
    }
    if user_arguments.is_empty() {
        let types: Vec<_> = metadata.processes.iter().map(|process| process.process_type.as_str()).collect();
        let types = if types.is_empty() {
            "this image has none".into()
        } else {
            format!("this image has `{}`", types.join("`, `"))
        };
        return Err(Failure::launch(format!(
            "no command was given, and `{}` is no process type ({types}); start `/cnb/process/TYPE`, \
             or give a command after `--`",
            name.display()
        )));
    }
    let start = if direct {
        let program = user_arguments.remove(0);
        Start::Direct { program, arguments: user_arguments }
    } else if user_arguments.len() == 1 {
        Start::ShellScript { script: user_arguments.remove(0), arguments: Vec::new() }
    } else {
        Start::ShellWords(user_arguments)
    };
    Ok(Process { process_type: None, start, working_directory: platform.app_directory.clone() })
}

fn is_eligible(process: &metadata::Process, exec_env: &str) -> bool {
    process.exec_envs.is_empty()
        || process.exec_envs.iter().any(|allowed| allowed == "*" || allowed == exec_env)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Buildpack;

    fn platform() -> Platform {
        Platform {
            api: ApiVersion::new(0, 15),
            layers_directory: "/layers".into(),
            app_directory: "/workspace".into(),
            exec_env: "production".into(),
        }
    }

    fn web() -> metadata::Process {
        metadata::Process {
            process_type: "web".into(),
            command: vec!["serve".into()],
            args: vec!["--default".into()],
            direct: true,
            buildpack_id: "acme/site".into(),
            working_directory: None,
            exec_envs: vec![],
        }
    }

    fn image(process: metadata::Process, buildpack_api: ApiVersion) -> Metadata {
        Metadata {
            buildpacks: vec![Buildpack { id: "acme/site".into(), api: buildpack_api }],
            processes: vec![process],
        }
    }

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    const NOW: ApiVersion = ApiVersion::new(0, 12);

    fn started(caller: &str, arguments: &[&str], metadata: &Metadata, platform: &Platform) -> Start {
        choose(OsStr::new(caller), words(arguments), metadata, platform).unwrap().start
    }

    fn direct(program: &str, arguments: &[&str]) -> Start {
        Start::Direct { program: program.into(), arguments: words(arguments) }
    }

    #[test]
    fn lau_03_the_name_of_the_caller_is_the_process_type() {
        let metadata = image(web(), NOW);
        assert_eq!(started("/cnb/process/web", &[], &metadata, &platform()), direct("serve", &["--default"]));
        assert_eq!(started("web", &[], &metadata, &platform()), direct("serve", &["--default"]));
    }

    #[test]
    fn lau_04_otherwise_the_arguments_are_a_command() {
        let metadata = image(web(), NOW);
        let launcher = "/cnb/lifecycle/launcher";
        assert_eq!(started(launcher, &["--", "ls", "-l"], &metadata, &platform()), direct("ls", &["-l"]));
        assert_eq!(
            started(launcher, &["echo $A"], &metadata, &platform()),
            Start::ShellScript { script: "echo $A".into(), arguments: vec![] }
        );
        assert_eq!(
            started(launcher, &["echo", "$A"], &metadata, &platform()),
            Start::ShellWords(words(&["echo", "$A"]))
        );
        for nothing in [&[][..], &["--"]] {
            let failure = choose(OsStr::new(launcher), words(nothing), &metadata, &platform()).unwrap_err();
            assert_eq!(failure.exit_code(), 82);
            assert!(failure.to_string().contains("this image has `web`"), "{failure}");
        }
    }

    #[test]
    fn lau_06_a_process_may_be_for_some_execution_environments_only() {
        let metadata = image(metadata::Process { exec_envs: vec!["test".into()], ..web() }, NOW);
        let failure = choose(OsStr::new("web"), vec![], &metadata, &platform()).unwrap_err();
        assert_eq!(failure.exit_code(), 82);
        assert!(failure.to_string().contains("`test`, this is `production`"), "{failure}");

        let testing = Platform { exec_env: "test".into(), ..platform() };
        assert!(choose(OsStr::new("web"), vec![], &metadata, &testing).is_ok());
        let older = Platform { api: ApiVersion::new(0, 14), ..platform() };
        assert!(choose(OsStr::new("web"), vec![], &metadata, &older).is_ok());
        let everywhere = image(metadata::Process { exec_envs: vec!["*".into()], ..web() }, NOW);
        assert!(choose(OsStr::new("web"), vec![], &everywhere, &platform()).is_ok());
    }

    #[test]
    fn lau_07_user_arguments_replace_the_defaults_or_follow_them() {
        let now = image(web(), NOW);
        assert_eq!(started("web", &["a"], &now, &platform()), direct("serve", &["a"]));

        let old_buildpack = image(web(), ApiVersion::new(0, 8));
        assert_eq!(started("web", &["a"], &old_buildpack, &platform()), direct("serve", &["--default", "a"]));

        let old_platform = Platform { api: ApiVersion::new(0, 9), ..platform() };
        assert_eq!(started("web", &["a"], &now, &old_platform), direct("serve", &["--default", "a"]));

        let fixed = metadata::Process { command: vec!["serve".into(), "--fixed".into()], ..web() };
        let fixed = image(fixed, ApiVersion::new(0, 8));
        assert_eq!(started("web", &["a"], &fixed, &platform()), direct("serve", &["--fixed", "a"]));
        assert_eq!(started("web", &[], &fixed, &platform()), direct("serve", &["--fixed", "--default"]));
    }

    #[test]
    fn lau_08_a_user_command_has_no_type_and_runs_in_the_app() {
        let metadata = image(metadata::Process { working_directory: Some("sub".into()), ..web() }, NOW);
        let process = choose(OsStr::new("launcher"), words(&["--", "x"]), &metadata, &platform()).unwrap();
        assert_eq!(process.process_type, None);
        assert_eq!(process.working_directory, Path::new("/workspace"));
    }

    /// LAU-27, LAU-28, LAU-29
    #[test]
    fn a_shell_process_is_a_script_or_words() {
        let shell = |args: &[&str]| metadata::Process {
            command: vec!["echo $A".into()],
            args: args.iter().map(ToString::to_string).collect(),
            direct: false,
            ..web()
        };
        let old = ApiVersion::new(0, 8);
        assert_eq!(
            started("web", &[], &image(shell(&[]), old), &platform()),
            Start::ShellScript { script: "echo $A".into(), arguments: vec![] }
        );
        assert_eq!(
            started("web", &["b"], &image(shell(&["a"]), old), &platform()),
            Start::ShellWords(words(&["echo $A", "a", "b"]))
        );
        assert_eq!(
            started("web", &[], &image(shell(&["a"]), ApiVersion::new(0, 3)), &platform()),
            Start::ShellScript { script: "echo $A".into(), arguments: words(&["a"]) }
        );
    }

    #[test]
    fn lau_09_before_platform_api_0_10_a_list_for_the_shell_is_one_text() {
        let shell = metadata::Process {
            command: vec!["serve".into(), "--fixed $A".into()],
            args: vec![],
            direct: false,
            ..web()
        };
        let old = Platform { api: ApiVersion::new(0, 9), ..platform() };
        assert_eq!(
            started("web", &[], &image(shell, NOW), &old),
            Start::ShellScript { script: "serve --fixed $A".into(), arguments: vec![] }
        );
    }

    #[test]
    fn lau_31_the_working_directory_is_relative_to_the_app() {
        let directory = |named: &str| {
            let process = metadata::Process { working_directory: Some(named.into()), ..web() };
            choose(OsStr::new("web"), vec![], &image(process, NOW), &platform()).unwrap().working_directory
        };
        assert_eq!(directory("sub"), Path::new("/workspace/sub"));
        assert_eq!(directory("/srv"), Path::new("/srv"));
    }
}
