//! `wapack config show` and `wapack config path`

use std::path::Path;

use serde_json::{Value, json};
use wapack_runtime::cancel::Cancel;
use wapack_runtime::policy::{Origin, Origins, Policy, Setting};
use wapack_runtime::text::harmless;

use crate::app;
use crate::args::{ConfigArguments, ConfigCommand, ConfigShowArguments};
use crate::directories;
use crate::discovery::{self, Environment, Question};
use crate::failure::Failure;
use crate::output::Output;

pub(crate) fn run(arguments: &ConfigArguments, cancel: &Cancel, output: &mut Output) -> Result<u8, Failure> {
    match &arguments.command {
        ConfigCommand::Show(arguments) => show(arguments, cancel, output)?,
        ConfigCommand::Path(arguments) => paths(arguments, output),
    }
    Ok(0)
}

/// One line of what is shown.
struct Line {
    key: String,
    value: String,
    origin: String,
    origin_json: Value,
}

fn show(arguments: &ConfigShowArguments, cancel: &Cancel, output: &mut Output) -> Result<(), Failure> {
    let (policy, origins) = app::policy(&arguments.policy)?;
    let mut lines: Vec<Line> = policy.settings(&origins).into_iter().map(of_policy).collect();
    lines.extend(discovered(&policy, &origins, cancel, output)?);
    lines.sort_by(|one, other| one.key.cmp(&other.key));
    if arguments.json || output.is_json() {
        let settings: Vec<Value> = lines
            .iter()
            .map(|line| json!({ "key": line.key, "value": line.value, "origin": line.origin_json }))
            .collect();
        let ceiling = policy.ceiling.as_ref().map(|ceiling| ceiling.path.display().to_string());
        output.document(&json!({ "settings": settings, "ceiling": ceiling }));
        return Ok(());
    }
    let shown: Vec<String> = lines.iter().map(|Line { key, value, .. }| format!("{key} = {value}")).collect();
    let width = shown.iter().map(|line| line.chars().count()).max().unwrap_or_default();
    for (line, Line { origin, .. }) in shown.iter().zip(&lines) {
        let origin = output.terminal.out.faint(&format!("# {}", harmless(origin)));
        output.line(&format!("{:<width$}  {origin}", harmless(line)));
    }
    if let Some(ceiling) = &policy.ceiling {
        output.line(&format!("# `{}` is the ceiling: nothing can go beyond it", ceiling.path.display()));
    }
    Ok(())
}

fn of_policy(setting: Setting) -> Line {
    let origin_json = match &setting.origin {
        Origin::Default => json!({ "from": "default" }),
        Origin::Flag => json!({ "from": "command line" }),
        Origin::File { path, line } => {
            json!({ "from": "file", "path": path.display().to_string(), "line": line })
        }
    };
    let origin = setting.origin.to_string();
    Line { key: setting.key, value: setting.value, origin, origin_json }
}

/// Sources that no policy names and a build would find all the same.
fn discovered(
    policy: &Policy,
    origins: &Origins,
    cancel: &Cancel,
    output: &mut Output,
) -> Result<Vec<Line>, Failure> {
    let wanted = discovery::known_sources(policy);
    let question = Question { policy, origins, app: None, wanted, cancel };
    let network = discovery::network(&question, Environment::of_process())?;
    let found = network.all_discovered();
    discovery::say_remarks(&network.finder, output);
    let lines = found.iter().flat_map(|(name, found)| discovery::shown(name, found));
    let line = |(key, value, origin): (String, String, String)| {
        let origin_json = json!({ "from": "discovered", "by": origin });
        Line { key, value, origin, origin_json }
    };
    Ok(lines.map(line).collect())
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
