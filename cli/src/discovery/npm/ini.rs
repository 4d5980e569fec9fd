//! Lines of an `.npmrc`, as npm reads them.
//!
//! npm's way with this format is its own (quotes are JSON, backslashes guard
//! only some characters); tests beside `rc` compare with npm itself. Knows no keys.

/// One setting. Those below a `[section]` are not npm's and are left out.
pub(super) struct Item {
    pub(super) key: String,
    pub(super) value: String,
    /// `key[] = value`
    pub(super) is_list: bool,
    pub(super) line: usize,
}

/// Reads every line; there is no text that npm refuses.
pub(super) fn parse(text: &str) -> Vec<Item> {
    let mut items = Vec::new();
    let lines = (1..).zip(text.split('\n')).flat_map(|(number, line)| {
        // A carriage return ends a line for npm, and is none for whoever counts.
        line.split('\r').map(move |part| (number, part))
    });
    for (line, text) in lines {
        let trimmed = trim(text);
        if trimmed.is_empty() || trimmed.starts_with([';', '#']) {
            continue;
        }
        if is_section(text) {
            break;
        }
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key, unquoted(value)),
            None => (text, "true".to_owned()),
        };
        if key.is_empty() {
            continue;
        }
        let key = unquoted(key);
        let (key, is_list) = match key.strip_suffix("[]").filter(|name| !name.is_empty()) {
            Some(name) => (name.to_owned(), true),
            None => (key, false),
        };
        items.push(Item { key, value, is_list, line });
    }
    items
}

/// `[name]` and nothing before it. The first one ends what is npm's.
fn is_section(line: &str) -> bool {
    line.strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
        .is_some_and(|(_, rest)| trim(rest).is_empty())
}

/// What JavaScript calls white space.
fn trim(text: &str) -> &str {
    text.trim_matches(|letter: char| (letter.is_whitespace() && letter != '\u{85}') || letter == '\u{feff}')
}

fn unquoted(text: &str) -> String {
    let text = trim(text);
    let quoted = |quote: char| text.starts_with(quote) && text.ends_with(quote);
    if quoted('"') || quoted('\'') {
        let inner = if quoted('\'') {
            text.strip_prefix('\'').and_then(|text| text.strip_suffix('\'')).unwrap_or_default()
        } else {
            text
        };
        return match serde_json::from_str(inner) {
            Ok(serde_json::Value::String(text)) => text,
            Ok(other) => other.to_string(),
            Err(_) => inner.to_owned(),
        };
    }
    let mut plain = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            ';' | '#' => break,
            '\\' => match letters.next() {
                Some(guarded @ ('\\' | ';' | '#')) => plain.push(guarded),
                other => plain.extend(['\\'].into_iter().chain(other)),
            },
            letter => plain.push(letter),
        }
    }
    trim(&plain).to_owned()
}
