//! How an app is started: what `npm start` would run, without npm.

use std::path::Path;

use serde_json::Value;

use crate::bins;
use crate::manifest::Manifest;
use crate::script::{self, Direct};

/// The shell that npm runs scripts with.
const SHELL: &str = "sh";

/// How often a script may lead to another one with `npm run`.
const DEEPEST: usize = 8;

/// What a process runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Start {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// What is in its environment.
    pub variables: Vec<(String, String)>,
    /// The line that the author wrote.
    pub line: String,
    /// What the author should know about it.
    pub notes: Vec<String>,
}

/// A script and the name under which npm runs it.
#[derive(Debug, Clone)]
struct Step {
    event: String,
    script: String,
}

impl Start {
    /// How the package in `directory` is started, if there is anything to start.
    pub fn of(package: &Manifest, directory: &Path) -> Option<Self> {
        let mut start = match package.scripts.get("start").filter(|script| !script.trim().is_empty()) {
            Some(_) => from_scripts(package),
            None => from_file(package, directory)?,
        };
        start.variables.extend(npm_variables(package));
        Some(start)
    }
}

/// Without a script: the module that the package stands for, or the file that
/// npm falls back to.
fn from_file(package: &Manifest, directory: &Path) -> Option<Start> {
    let named = package.main.as_deref().filter(|main| is_module(directory, main));
    let file = named
        .or_else(|| ["server.js", "index.js"].into_iter().find(|name| directory.join(name).is_file()))?;
    Some(Start {
        command: vec!["node".into(), file.to_owned()],
        variables: vec![("npm_lifecycle_event".into(), "start".into())],
        line: format!("node {file}"),
        ..Start::default()
    })
}

fn from_scripts(package: &Manifest) -> Start {
    let (before, main, after) = steps(package);
    let mut start = Start { line: main.script.clone(), ..Start::default() };
    start.variables.push(("npm_lifecycle_event".into(), main.event.clone()));
    for step in before.iter().chain([&main]).chain(&after) {
        if let Some(program) = package_manager(&step.script) {
            start.notes.push(format!(
                "`scripts.{}` uses `{program}`, which the image does not have: write what it stands for",
                step.event
            ));
        }
    }
    let direct = script::direct(&main.script).filter(|_| before.is_empty() && after.is_empty());
    if let Some(Direct { variables, words }) = direct {
        start.variables.extend(variables);
        start.command = words;
        return start;
    }

    let exec = script::with_exec(&main.script);
    if exec.is_none() {
        start.notes.push(format!(
            "`scripts.{}` keeps its shell, which does not pass signals on: the server may be killed instead of stopped",
            main.event
        ));
    }
    let before: String = before.iter().flat_map(|step| [grouped(step), " && ".to_owned()]).collect();
    let after: String = after.iter().flat_map(|step| [" && ".to_owned(), grouped(step)]).collect();
    let line = match exec {
        _ if !after.is_empty() => {
            format!("{before}{{ {}; }}{after}", supervised(exec.as_deref().unwrap_or(&main.script)))
        }
        Some(exec) if before.is_empty() => exec,
        // Braces, because a shell in between would keep the signals.
        Some(exec) => format!("{before}{{ {exec}; }}"),
        None if before.is_empty() => main.script,
        None => format!("{before}{}", group(&main.script)),
    };
    start.command = vec![SHELL.into(), "-c".into(), line];
    start
}

/// A command that something comes after: the shell stays, waits, and passes
/// signals on, also one that comes before there is anything to wait for. The
/// second `wait` is for the one that a signal interrupted.
fn supervised(command: &str) -> String {
    format!(
        "trap 'test -n \"$child\" && kill -TERM $child' TERM INT; {} & child=$!; wait $child; status=$?; \
         while kill -0 $child 2>/dev/null; do wait $child; status=$?; done; trap - TERM INT; (exit $status)",
        group(command)
    )
}

/// A script in a shell of its own, as npm runs each, under its own name.
fn grouped(step: &Step) -> String {
    group(&format!("npm_lifecycle_event={}; {}", step.event, step.script))
}

fn group(script: &str) -> String {
    // A comment at the end must not take the bracket with it.
    if script.contains('#') { format!("({script}\n)") } else { format!("({script})") }
}

/// What npm runs for `start`: what comes before, the script itself, and what
/// comes after. A script that only says `npm run x` stands for `x`.
fn steps(package: &Manifest) -> (Vec<Step>, Step, Vec<Step>) {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let mut event = "start".to_owned();
    for _ in 0..DEEPEST {
        before.extend(step(package, format!("pre{event}")));
        after.splice(0..0, step(package, format!("post{event}")));
        let script = package.scripts.get(&event).map(String::as_str).unwrap_or_default();
        match other_script(script).filter(|other| package.scripts.contains_key(other)) {
            Some(other) => event = other,
            None => break,
        }
    }
    let script = package.scripts.get(&event).cloned().unwrap_or_default();
    (before, Step { event, script }, after)
}

fn step(package: &Manifest, event: String) -> Option<Step> {
    let script = package.scripts.get(&event).filter(|script| !script.trim().is_empty())?.clone();
    Some(Step { event, script })
}

/// The script that a script only passes on to.
fn other_script(script: &str) -> Option<String> {
    let Direct { variables, words } = script::direct(script)?;
    let words: Vec<&str> = words
        .iter()
        .map(String::as_str)
        .filter(|word| !matches!(*word, "-s" | "--silent" | "--loglevel=silent"))
        .collect();
    match words.as_slice() {
        ["npm", "run" | "run-script", other] if variables.is_empty() && !other.starts_with('-') => {
            Some((*other).to_owned())
        }
        _ => None,
    }
}

/// A program of the package manager's, if a script uses one.
fn package_manager(script: &str) -> Option<&str> {
    let commands = script.split(['|', '&', ';', '(', ')', '\n']);
    commands
        .filter_map(|command| script::raw_words(command).into_iter().find(|word| !word.contains('=')))
        .find(|program| {
            ["npm", "npx", "yarn", "yarnpkg", "pnpm", "pnpx", "bun", "bunx", "corepack"].contains(program)
        })
}

/// What npm tells a script about its package.
fn npm_variables(package: &Manifest) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    for (name, value) in [("name", package.name()), ("version", package.version())] {
        variables.extend(value.map(|value| (format!("npm_package_{name}"), value.to_owned())));
    }
    for (name, value) in &package.config {
        flatten(&format!("npm_package_config_{name}"), value, &mut variables);
    }
    variables.retain(|(name, _)| script::is_name(name));
    variables
}

fn flatten(name: &str, value: &Value, variables: &mut Vec<(String, String)>) {
    match value {
        Value::Null | Value::Bool(false) => variables.push((name.to_owned(), String::new())),
        Value::Bool(true) => variables.push((name.to_owned(), "true".into())),
        Value::Number(number) => variables.push((name.to_owned(), number.to_string())),
        Value::String(text) => variables.push((name.to_owned(), text.clone())),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                flatten(&format!("{name}_{index}"), item, variables);
            }
        }
        Value::Object(fields) => {
            for (field, value) in fields {
                flatten(&format!("{name}_{field}"), value, variables);
            }
        }
    }
}

/// Whether Node would find something to run under a path.
pub fn is_module(directory: &Path, path: &str) -> bool {
    let inside = crate::tree::normal(path).is_some();
    let file = directory.join(path);
    let with = |extension: &str| directory.join(format!("{}{extension}", path.trim_end_matches('/')));
    inside
        && (file.is_file()
            || [".js", ".json", ".node"].iter().any(|extension| with(extension).is_file())
            || file.join("index.js").is_file()
            || file.join("package.json").is_file())
}

/// The `PATH` that scripts get in front of the usual one.
pub fn search_path(app: &Path, project: &str) -> String {
    let path: Vec<String> =
        bins::search_path(app, project).iter().map(|directory| directory.display().to_string()).collect();
    path.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(package: &str, files: &[&str]) -> Option<Start> {
        let directory = tempfile::tempdir().unwrap();
        for file in files {
            let file = directory.path().join(file);
            wapack_sdk::fs::create_dir_all(file.parent().unwrap()).unwrap();
            wapack_sdk::fs::write(file, "").unwrap();
        }
        Start::of(&Manifest::parse(package).unwrap(), directory.path())
    }

    fn command(package: &str, files: &[&str]) -> Vec<String> {
        start(package, files).unwrap().command
    }

    #[test]
    fn a_script_of_plain_words_is_started_directly() {
        let start = start(
            r#"{"name":"@acme/x","version":"1.2.3","config":{"port":80,"a":{"b":[true]},"odd-name":1},
                "scripts":{"start":"NODE_OPTIONS='--a b' node server.js"}}"#,
            &[],
        )
        .unwrap();
        assert_eq!(start.command, ["node", "server.js"]);
        let variables: Vec<String> =
            start.variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            variables,
            [
                "npm_lifecycle_event=start",
                "NODE_OPTIONS=--a b",
                "npm_package_name=@acme/x",
                "npm_package_version=1.2.3",
                "npm_package_config_a_b_0=true",
                "npm_package_config_port=80",
            ]
        );
    }

    #[test]
    fn shell_syntax_gets_a_shell_that_makes_way() {
        assert_eq!(
            command(r#"{"scripts":{"start":"migrate && node server.js"}}"#, &[]),
            ["sh", "-c", "migrate && exec node server.js"]
        );
        let kept = start(r#"{"scripts":{"start":"node server.js | pretty"}}"#, &[]).unwrap();
        assert_eq!(kept.command, ["sh", "-c", "node server.js | pretty"]);
        assert!(kept.notes[0].contains("does not pass signals on"), "{:?}", kept.notes);
    }

    #[test]
    fn prestart_comes_first_under_its_own_name() {
        assert_eq!(
            command(r#"{"scripts":{"start":"node server.js","prestart":"cd x; y"}}"#, &[])[2],
            "(npm_lifecycle_event=prestart; cd x; y) && { exec node server.js; }"
        );
        assert_eq!(
            command(r#"{"scripts":{"start":"a | b # c","prestart":"y"}}"#, &[])[2],
            "(npm_lifecycle_event=prestart; y) && (a | b # c\n)"
        );
    }

    #[test]
    fn npm_run_stands_for_what_it_runs() {
        let package = r#"{"scripts":{"start":"npm run -s start:prod","start:prod":"node dist/main","prestart:prod":"a"}}"#;
        let start = start(package, &[]).unwrap();
        assert_eq!(start.command[2], "(npm_lifecycle_event=prestart:prod; a) && { exec node dist/main; }");
        assert_eq!(start.variables[0].1, "start:prod");
        assert_eq!(start.notes, Vec::<String>::new());
        let circle = command(r#"{"scripts":{"start":"npm run start"}}"#, &[]);
        assert_eq!(circle, ["npm", "run", "start"]);
    }

    #[test]
    fn a_package_manager_in_a_script_is_named() {
        let notes =
            |script: &str| start(&format!(r#"{{"scripts":{{"start":"{script}"}}}}"#), &[]).unwrap().notes;
        assert!(notes("npm run build && node x")[0].contains("`npm`"));
        assert!(notes("A=1 npx serve")[0].contains("`npx`"));
        assert_eq!(notes("node npm.js"), Vec::<String>::new());
    }

    #[test]
    fn without_a_script_main_then_server_js_is_started() {
        let package = r#"{"main":"lib/app"}"#;
        assert_eq!(command(package, &["lib/app.js", "server.js"]), ["node", "lib/app"]);
        assert_eq!(command(package, &["server.js", "index.js"]), ["node", "server.js"]);
        assert_eq!(command("{}", &["index.js"]), ["node", "index.js"]);
        assert_eq!(start(package, &[]), None);
        assert_eq!(start(r#"{"main":"../x.js"}"#, &[]), None);
    }
}
