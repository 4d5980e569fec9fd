//! Reads the text of a `Procfile`. Knows nothing of buildpacks or files.

use std::fmt;

/// One line of a `Procfile`.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// The process type, such as `web`.
    pub name: String,
    /// What to start.
    pub command: Command,
}

/// How a command is started.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// By itself: a program and its arguments.
    Direct(Vec<String>),
    /// By a shell, because of the syntax in `reason`.
    Shell {
        /// The command as it stands in the file.
        line: String,
        /// What only a shell understands.
        reason: String,
    },
}

/// Why a `Procfile` is not one.
#[derive(Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: String,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "line {} of `Procfile` {}", self.line, self.problem)
    }
}

/// Reads the text of a `Procfile`, in its order.
///
/// # Errors
/// For the first line that is no `name: command`, or whose name came before.
pub fn parse(text: &str) -> Result<Vec<Entry>, SyntaxError> {
    let mut entries: Vec<(usize, Entry)> = Vec::new();
    // Editors on Windows put a byte order mark in front.
    for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let (number, line) = (index + 1, line.trim());
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let entry = parse_line(line).map_err(|problem| SyntaxError { line: number, problem })?;
        if let Some((first, _)) = entries.iter().find(|(_, other)| other.name == entry.name) {
            let problem = format!("defines `{}` again; it is on line {first} already", entry.name);
            return Err(SyntaxError { line: number, problem });
        }
        entries.push((number, entry));
    }
    Ok(entries.into_iter().map(|(_, entry)| entry).collect())
}

fn parse_line(line: &str) -> Result<Entry, String> {
    let (name, command) =
        line.split_once(':').ok_or_else(|| format!("is not of the form `name: command`: `{line}`"))?;
    let (name, line) = (name.trim(), command.trim());
    if name.is_empty() {
        return Err("has no name before the `:`".to_owned());
    }
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')) {
        return Err(format!(
            "has a name with other characters than letters, digits, `.`, `_` and `-`: `{name}`"
        ));
    }
    if line.is_empty() {
        return Err(format!("has no command for `{name}`"));
    }
    let command = match shell_syntax(line) {
        Some(reason) => Command::Shell { line: line.to_owned(), reason },
        None => match shlex::split(line) {
            Some(words) if words.first().is_some_and(|program| !program.is_empty()) => Command::Direct(words),
            Some(_) => return Err(format!("has no program for `{name}`")),
            None => return Err(format!("has an open quote or a backslash at its end: `{line}`")),
        },
    };
    Ok(Entry { name: name.to_owned(), command })
}

/// The first thing in `line` that a program started directly would not get to
/// see as a shell does. Errs on the side of the shell.
fn shell_syntax(line: &str) -> Option<String> {
    let mut quote = None;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some('\''), '\'') | (Some('"'), '"') => quote = None,
            (None, '\'' | '"') => quote = Some(character),
            // What follows a backslash means itself.
            (None | Some('"'), '\\') => {
                characters.next();
            }
            // Double quotes keep these two alive.
            (None | Some('"'), '$' | '`')
            | (
                None,
                '&' | '|' | ';' | '<' | '>' | '(' | ')' | '{' | '}' | '[' | ']' | '*' | '?' | '~' | '#' | '!',
            ) => {
                return Some(character.to_string());
            }
            _ => {}
        }
    }
    let first = line.split_whitespace().next().unwrap_or_default();
    let is_assignment = first.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    });
    (is_assignment || SHELL_WORDS.contains(&first)).then(|| first.to_owned())
}

/// Words that begin a command only a shell knows.
const SHELL_WORDS: &[&str] = &[
    ".", ":", "cd", "command", "eval", "exec", "export", "for", "if", "set", "source", "time", "trap",
    "ulimit", "umask", "unset", "until", "wait", "while",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn command(line: &str) -> Command {
        parse(&format!("web: {line}")).unwrap().remove(0).command
    }

    fn problem(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn comments_empty_lines_and_line_ends_of_windows_are_fine() {
        let entries = parse("\u{feff}# first\r\n\r\nweb:  node server.js \r\n  worker:./run\n").unwrap();
        assert_eq!(
            entries,
            [
                Entry {
                    name: "web".into(),
                    command: Command::Direct(vec!["node".into(), "server.js".into()])
                },
                Entry { name: "worker".into(), command: Command::Direct(vec!["./run".into()]) },
            ]
        );
        assert_eq!(parse("# nothing\n"), Ok(vec![]));
    }

    #[test]
    fn words_are_split_as_a_shell_splits_them() {
        for (line, words) in [
            (r#"echo "a b" 'c "d"' e\ f"#, vec!["echo", "a b", "c \"d\"", "e f"]),
            ("java -Dx=y '$PORT' -jar app.jar", vec!["java", "-Dx=y", "$PORT", "-jar", "app.jar"]),
            (r"run \$PORT ''", vec!["run", "$PORT", ""]),
            ("serve http://[::1]", vec![]),
        ] {
            match command(line) {
                Command::Direct(found) => assert_eq!(found, words, "{line}"),
                Command::Shell { .. } => assert!(words.is_empty(), "{line}"),
            }
        }
    }

    #[test]
    fn shell_syntax_needs_a_shell() {
        for (line, reason) in [
            ("node server.js --port $PORT", "$"),
            (r#"node "--port=$PORT""#, "$"),
            ("echo `date`", "`"),
            ("a && b", "&"),
            ("a | b", "|"),
            ("a > b", ">"),
            ("ls *.js", "*"),
            ("NODE_ENV=test node x", "NODE_ENV=test"),
            ("cd server", "cd"),
            ("exec node x", "exec"),
        ] {
            assert_eq!(command(line), Command::Shell { line: line.into(), reason: reason.into() }, "{line}");
        }
    }

    #[test]
    fn bad_lines_are_named() {
        assert_eq!(
            problem("web: x\n\nnonsense"),
            "line 3 of `Procfile` is not of the form `name: command`: `nonsense`"
        );
        assert_eq!(problem(": x"), "line 1 of `Procfile` has no name before the `:`");
        assert_eq!(problem("#\nweb:"), "line 2 of `Procfile` has no command for `web`");
        assert!(problem("we b: x").contains("`we b`"));
        assert!(problem("web: 'x").contains("open quote"));
        assert!(problem("web: ''").contains("no program"));
        assert_eq!(
            problem("web: a\nx: b\nweb: c"),
            "line 3 of `Procfile` defines `web` again; it is on line 1 already"
        );
    }
}
