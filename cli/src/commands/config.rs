//! `wapack config show` and `wapack config path`

use std::path::Path;

use serde_json::{Value, json};
use wapack_runtime::policy::{Origin, Setting};

use crate::app;
use crate::args::{ConfigArguments, ConfigCommand, ConfigShowArguments};
use crate::directories;
use crate::failure::Failure;
use crate::output::Output;

pub(crate) fn run(arguments: &ConfigArguments, output: &mut Output) -> Result<u8, Failure> {
    match &arguments.command {
        ConfigCommand::Show(arguments) => show(arguments, output)?,
        ConfigCommand::Path(arguments) => paths(arguments, output),
    }
    Ok(0)
}

fn show(arguments: &ConfigShowArguments, output: &mut Output) -> Result<(), Failure> {
    let (policy, origins) = app::policy(&arguments.policy)?;
    let settings = policy.settings(&origins);
    if arguments.json || output.is_json() {
        let settings: Vec<Value> = settings.iter().map(setting_json).collect();
        let ceiling = policy.ceiling.as_ref().map(|ceiling| ceiling.path.display().to_string());
        output.document(&json!({ "settings": settings, "ceiling": ceiling }));
        return Ok(());
    }
    let lines: Vec<(String, &Origin)> = settings
        .iter()
        .map(|setting| (format!("{} = {}", setting.key, setting.value), &setting.origin))
        .collect();
    let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or_default();
    for (line, origin) in &lines {
        let origin = output.terminal.out.faint(&format!("# {origin}"));
        output.line(&format!("{line:<width$}  {origin}"));
    }
    if let Some(ceiling) = &policy.ceiling {
        output.line(&format!("# `{}` is the ceiling: nothing can go beyond it", ceiling.path.display()));
    }
    Ok(())
}

fn setting_json(setting: &Setting) -> Value {
    let origin = match &setting.origin {
        Origin::Default => json!({ "from": "default" }),
        Origin::Flag => json!({ "from": "command line" }),
        Origin::File { path, line } => {
            json!({ "from": "file", "path": path.display().to_string(), "line": line })
        }
    };
    json!({ "key": setting.key, "value": setting.value, "origin": origin })
}

fn paths(arguments: &ConfigShowArguments, output: &mut Output) {
    let files = directories::policy_files(arguments.policy.policy.as_deref());
    let places = [("system", &files.system), ("user", &files.user), ("command line", &files.explicit)];
    let places: Vec<(&str, &Path)> =
        places.into_iter().filter_map(|(who, path)| Some((who, path.as_deref()?))).collect();
    if arguments.json || output.is_json() {
        let files: Vec<Value> = places
            .iter()
            .map(|(who, path)| json!({ "whose": who, "path": path.display().to_string(), "exists": path.exists() }))
            .collect();
        output.document(&json!({ "files": files }));
        return;
    }
    let width = places.iter().map(|(_, path)| path.display().to_string().len()).max().unwrap_or_default();
    for (who, path) in places {
        let there = if path.exists() { "there" } else { "not there" };
        output.line(&format!("{:<width$}  {there}, {who}", path.display().to_string()));
    }
}
