//! What a line of shell is: plain words that need no shell, or something else.
//! Knows nothing of packages.

/// A line as a program and what it gets, if that is all it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Direct {
    /// The variables in front of it.
    pub variables: Vec<(String, String)>,
    /// The program and its arguments.
    pub words: Vec<String>,
}

/// Reads a line as plain words with their quotes resolved; `None` when only a
/// shell would get it right. Errs on the side of the shell.
pub fn direct(line: &str) -> Option<Direct> {
    if !is_plain(line) {
        return None;
    }
    let raw = raw_words(line);
    let assignments = raw.iter().take_while(|word| assignment(word).is_some()).count();
    let mut variables = Vec::new();
    for word in &raw[..assignments] {
        let (name, value) = assignment(word)?;
        variables.push((name.to_owned(), unquoted(value)?));
    }
    let words = raw[assignments..].iter().map(|word| unquoted(word)).collect::<Option<Vec<_>>>()?;
    let first = raw.get(assignments)?;
    let program = words.first()?;
    (!program.is_empty() && !is_shells_own(first)).then_some(Direct { variables, words })
}

/// The line with `exec` before its last command, so that this takes the shell's
/// place and gets its signals; `None` where that could change what happens.
pub fn with_exec(line: &str) -> Option<String> {
    let line = line.trim().trim_end_matches(';').trim_end();
    let start = last_command(line)?;
    let mut rest = &line[start..];
    loop {
        rest = rest.trim_start();
        let word = raw_words(rest).first().copied()?;
        if assignment(word).is_none() {
            let is_sure = !word.contains(['$', '"', '\'', '\\', '<', '>']) && !is_shells_own(word);
            let at = line.len() - rest.len();
            return is_sure.then(|| format!("{}exec {rest}", &line[..at]));
        }
        rest = &rest[word.len()..];
    }
}

/// Where the last command of a list of simple commands begins; `None` when the
/// line is more than that.
fn last_command(line: &str) -> Option<usize> {
    let mut quote = None;
    let mut start = 0;
    let mut previous = ' ';
    let mut characters = line.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        let next = characters.peek().map(|(_, next)| *next);
        match (quote, character) {
            (Some(open), _) if character == open => quote = None,
            (None, '\'' | '"') => quote = Some(character),
            (Some('\''), _) => {}
            (_, '\\') => {
                characters.next();
            }
            (_, '$') if next == Some('(') => return None,
            (None, '(' | ')' | '\n' | '{' | '}') if previous != '$' && !is_inside_name(line, at) => {
                return None;
            }
            (None, '#') if previous.is_whitespace() => return None,
            (None, '<') if next == Some('<') => return None,
            (None, '&' | '|') if next == Some(character) => {
                if is_shells_word(&line[start..]) {
                    return None;
                }
                let (second, _) = characters.next()?;
                start = second + 1;
            }
            (None, '&') if matches!(previous, '<' | '>') => {}
            (_, '`') | (None, '&' | '|') => return None,
            (None, ';') => {
                if is_shells_word(&line[start..]) {
                    return None;
                }
                start = at + 1;
            }
            _ => {}
        }
        previous = character;
    }
    (quote.is_none() && !is_shells_word(&line[start..])).then_some(start)
}

/// Whether a brace belongs to `${…}`, whose parts we leave to the shell.
fn is_inside_name(line: &str, at: usize) -> bool {
    let before = &line[..at];
    before.rfind("${").is_some_and(|open| !before[open..].contains('}'))
}

/// Whether a part begins with a word that makes more of it than a command.
fn is_shells_word(part: &str) -> bool {
    let first = raw_words(part).first().copied().unwrap_or_default();
    RESERVED.contains(&first)
}

/// Words that begin or end something larger than a command.
const RESERVED: [&str; 18] = [
    "!", "case", "do", "done", "elif", "else", "esac", "fi", "for", "function", "if", "in", "select", "then",
    "time", "trap", "until", "while",
];

/// Commands that a shell carries out itself.
const BUILT_IN: [&str; 26] = [
    ".", ":", "alias", "bg", "break", "cd", "command", "continue", "eval", "exec", "exit", "export", "fg",
    "jobs", "local", "read", "readonly", "return", "set", "shift", "source", "type", "ulimit", "umask",
    "unset", "wait",
];

fn is_shells_own(word: &str) -> bool {
    RESERVED.contains(&word) || BUILT_IN.contains(&word) || matches!(word, "{" | "}")
}

/// Whether no character means anything to a shell but quotes and spaces.
fn is_plain(line: &str) -> bool {
    let mut quote = None;
    for character in line.trim().chars() {
        match (quote, character) {
            (Some(open), _) if character == open => quote = None,
            (None, '\'' | '"') => quote = Some(character),
            (Some('\''), _) => {}
            (_, '$' | '`' | '\\') => return false,
            (
                None,
                '|' | '&' | ';' | '<' | '>' | '(' | ')' | '*' | '?' | '[' | ']' | '#' | '~' | '\n' | '\r',
            ) => {
                return false;
            }
            _ => {}
        }
    }
    quote.is_none()
}

/// The words of a line as they are written, quotes and all.
pub fn raw_words(line: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut start = None;
    let mut quote = None;
    for (at, character) in line.char_indices() {
        let is_space = quote.is_none() && character.is_ascii_whitespace();
        match (start, is_space) {
            (None, false) => start = Some(at),
            (Some(from), true) => {
                words.push(&line[from..at]);
                start = None;
            }
            _ => {}
        }
        quote = match quote {
            Some(open) if open == character => None,
            None if matches!(character, '\'' | '"') => Some(character),
            other => other,
        };
    }
    words.extend(start.map(|from| &line[from..]));
    words
}

/// Name and value, still in quotes, of a word that sets a variable.
fn assignment(word: &str) -> Option<(&str, &str)> {
    let (name, value) = word.split_once('=')?;
    is_name(name).then_some((name, value))
}

/// Whether a variable may be called so.
pub fn is_name(name: &str) -> bool {
    !name.starts_with(|first: char| first.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A single word without its quotes.
fn unquoted(word: &str) -> Option<String> {
    if word.is_empty() {
        return Some(String::new());
    }
    match shlex::split(word)?.as_slice() {
        [one] => Some(one.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Option<(String, Vec<String>)> {
        direct(line).map(|direct| {
            let variables: Vec<String> =
                direct.variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
            (variables.join(" "), direct.words)
        })
    }

    #[expect(clippy::unnecessary_wraps, reason = "to be compared with options")]
    fn is(variables: &str, words: &[&str]) -> Option<(String, Vec<String>)> {
        Some((variables.to_owned(), words.iter().map(|&word| word.to_owned()).collect()))
    }

    #[test]
    fn plain_words_need_no_shell() {
        assert_eq!(words("node server.js"), is("", &["node", "server.js"]));
        assert_eq!(words(" node  -r 'a b' \"c d\"e\t "), is("", &["node", "-r", "a b", "c de"]));
        assert_eq!(
            words("PORT=80 NAME='x y' node --flag=1 '$HOME' a=b"),
            is("PORT=80 NAME=x y", &["node", "--flag=1", "$HOME", "a=b"])
        );
        assert_eq!(words("EMPTY= node x"), is("EMPTY=", &["node", "x"]));
        assert_eq!(words("cross-env A=B node x"), is("", &["cross-env", "A=B", "node", "x"]));
        assert_eq!(words("'A'=b x"), is("", &["A=b", "x"]));
    }

    #[test]
    fn everything_else_needs_one() {
        for line in [
            "node $PORT",
            "node \"$PORT\"",
            "a && b",
            "a | b",
            "a; b",
            "a > b",
            "a &",
            "ls *.js",
            "a ~/x",
            "a #b",
            "(a)",
            "`a`",
            "a\\ b",
            "cd x",
            "export A=1",
            "exec a",
            "if a",
            "! a",
            "A=1",
            "",
            "'open",
            "\"a\\\"b\"",
            "{ a",
        ] {
            assert_eq!(direct(line), None, "{line}");
        }
    }

    #[test]
    fn the_last_command_takes_the_place_of_the_shell_where_that_is_safe() {
        for (line, expected) in [
            ("node $A", "exec node $A"),
            ("a && node x", "a && exec node x"),
            ("a || b; node x > \"$LOG\" 2>&1 ;", "a || b; exec node x > \"$LOG\" 2>&1"),
            ("cd x && A=1 B='; y' node ${C:-d e}", "cd x && A=1 B='; y' exec node ${C:-d e}"),
            ("echo 'a && b' ; ./run", "echo 'a && b' ; exec ./run"),
        ] {
            assert_eq!(with_exec(line).as_deref(), Some(expected), "{line}");
        }
        for line in [
            "a | b",
            "a & b",
            "a &",
            "(a)",
            "a && (b)",
            "$A x",
            "\"a b\" c",
            "a `b`",
            "a $(b)",
            "a # b",
            "if a; then b; fi",
            "for x in y; do z; done",
            "a && cd b",
            "! a",
            "{ a; }",
            "cat <<E",
            "a\nb",
            "trap a b; c",
            "A=1",
            "'x",
        ] {
            assert_eq!(with_exec(line), None, "{line}");
        }
    }
}
