//! TOML and JSON as the reference lifecycle writes them, byte for byte.
//!
//! Some of the files end up in layers, whose digests are compared. Values of a table
//! come first and its tables after, each level is indented by two blanks, and texts
//! are escaped the way of the tools that the reference is made of.

use std::fmt::Write as _;

use toml::{Table, Value};

/// A table whose keys stay in their order.
#[derive(Debug, Default)]
pub(super) struct Fields(Vec<(String, Field)>);

#[derive(Debug)]
enum Field {
    /// Already written.
    Value(String),
    Table(Fields),
    Tables(Vec<Fields>),
}

impl Fields {
    pub(super) fn text(&mut self, name: &str, value: &str) {
        self.value(name, quoted(value));
    }

    pub(super) fn text_if_any(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.text(name, value);
        }
    }

    pub(super) fn flag_if_set(&mut self, name: &str, flag: bool) {
        if flag {
            self.value(name, "true".to_owned());
        }
    }

    pub(super) fn texts(&mut self, name: &str, values: &[impl AsRef<str>]) {
        self.value(name, list(values.iter().map(|value| quoted(value.as_ref()))));
    }

    /// A value as it is to be written.
    pub(super) fn value(&mut self, name: &str, written: String) {
        self.0.push((name.to_owned(), Field::Value(written)));
    }

    pub(super) fn table(&mut self, name: &str, fields: Fields) {
        self.0.push((name.to_owned(), Field::Table(fields)));
    }

    /// Nothing is written where there are none.
    pub(super) fn tables(&mut self, name: &str, tables: Vec<Fields>) {
        self.0.push((name.to_owned(), Field::Tables(tables)));
    }

    /// The document that this is the root of.
    pub(super) fn document(&self) -> String {
        let mut text = String::new();
        self.write(&[], &mut text);
        text
    }

    fn write(&self, path: &[&str], text: &mut String) {
        let indent = "  ".repeat(path.len());
        for (name, field) in &self.0 {
            if let Field::Value(value) = field {
                // Writing to a string cannot fail.
                let _ = writeln!(text, "{indent}{} = {value}", key(name));
            }
        }
        for (name, field) in &self.0 {
            let mut inner = path.to_vec();
            inner.push(name);
            let header = inner.iter().map(|name| key(name)).collect::<Vec<_>>().join(".");
            match field {
                Field::Value(_) => {}
                Field::Table(fields) => {
                    if path.is_empty() && !text.is_empty() {
                        text.push('\n');
                    }
                    let _ = writeln!(text, "{indent}[{header}]");
                    fields.write(&inner, text);
                }
                Field::Tables(tables) => {
                    for fields in tables {
                        if !text.is_empty() {
                            text.push('\n');
                        }
                        let _ = writeln!(text, "{indent}[[{header}]]");
                        fields.write(&inner, text);
                    }
                }
            }
        }
    }
}

/// A table whose keys are sorted.
impl From<&Table> for Fields {
    fn from(table: &Table) -> Self {
        let mut fields = Self::default();
        for (name, value) in sorted(table) {
            match value {
                Value::Table(table) => fields.table(name, table.into()),
                Value::Array(values) if is_tables(values) => {
                    let tables = values.iter().filter_map(Value::as_table).map(Fields::from).collect();
                    fields.tables(name, tables);
                }
                value => fields.value(name, inline(value)),
            }
        }
        fields
    }
}

fn is_tables(values: &[Value]) -> bool {
    !values.is_empty() && values.iter().all(Value::is_table)
}

fn sorted(table: &Table) -> Vec<(&String, &Value)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| *name);
    entries
}

fn inline(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Float(number) => float(*number),
        Value::Array(values) => list(values.iter().map(inline)),
        Value::Table(table) => {
            let is_table = |value: &Value| {
                matches!(value, Value::Table(_)) || value.as_array().is_some_and(|values| is_tables(values))
            };
            let (tables, values): (Vec<_>, Vec<_>) =
                sorted(table).into_iter().partition(|(_, value)| is_table(value));
            let entry = |(name, value): (&String, &Value)| format!("{} = {}", key(name), inline(value));
            format!("{{{}}}", values.into_iter().chain(tables).map(entry).collect::<Vec<_>>().join(", "))
        }
        value => value.to_string(),
    }
}

fn list(values: impl Iterator<Item = String>) -> String {
    format!("[{}]", values.collect::<Vec<_>>().join(", "))
}

fn key(name: &str) -> String {
    let is_bare =
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    if is_bare { name.to_owned() } else { quoted(name) }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        if !escape_common(character, &mut out) {
            match character {
                '\u{7f}' => out.push_str("\\u007f"),
                character => out.push(character),
            }
        }
    }
    out.push('"');
    out
}

/// A text as in JSON that can stand in HTML.
pub(super) fn json_text(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        if !escape_common(character, &mut out) {
            match character {
                '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => escape_unicode(character, &mut out),
                character => out.push(character),
            }
        }
    }
    out.push('"');
    out
}

/// Escapes what both formats escape alike; whether it did.
fn escape_common(character: char, out: &mut String) -> bool {
    match character {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\u{8}' => out.push_str("\\b"),
        '\u{c}' => out.push_str("\\f"),
        '\0'..='\u{1f}' => escape_unicode(character, out),
        _ => return false,
    }
    true
}

pub(super) fn escape_unicode(character: char, out: &mut String) {
    let _ = write!(out, "\\u{:04x}", u32::from(character));
}

/// As the reference writes numbers with a point in TOML.
fn float(number: f64) -> String {
    if !number.is_finite() {
        return Value::Float(number).to_string();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) || number == 0.0 {
        let plain = number.to_string();
        return if plain.contains('.') { plain } else { plain + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// As the reference writes numbers with a point in JSON.
fn json_float(number: f64) -> String {
    let size = number.abs();
    if number == 0.0 || (1e-6..1e21).contains(&size) {
        return number.to_string();
    }
    let scientific = format!("{number:e}");
    match scientific.split_once('e') {
        Some((digits, exponent)) if !exponent.starts_with('-') => format!("{digits}e+{exponent}"),
        _ => scientific,
    }
}

/// A value of TOML as JSON without blanks, keys sorted.
pub(super) fn json(value: &Value) -> String {
    match value {
        Value::String(text) => json_text(text),
        Value::Integer(number) => number.to_string(),
        // JSON has no word for the others; the reference ends with an error there.
        Value::Float(number) if number.is_finite() => json_float(*number),
        Value::Float(_) => "null".to_owned(),
        Value::Boolean(flag) => flag.to_string(),
        Value::Datetime(when) => json_text(&moment(when)),
        Value::Array(values) => {
            format!("[{}]", values.iter().map(json).collect::<Vec<_>>().join(","))
        }
        Value::Table(table) => {
            let entry = |(name, value): (&String, &Value)| format!("{}:{}", json_text(name), json(value));
            format!("{{{}}}", sorted(table).into_iter().map(entry).collect::<Vec<_>>().join(","))
        }
    }
}

/// A moment in full: what a date or a time of day leaves open is zero.
pub(super) fn moment(when: &toml::value::Datetime) -> String {
    let date = when.date.map_or("0000-01-01".to_owned(), |date| date.to_string());
    let time = when.time.map_or("00:00:00".to_owned(), |time| time.to_string());
    let offset = when.offset.map_or("Z".to_owned(), |offset| offset.to_string());
    format!("{date}T{time}{offset}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the reference wrote for a bill of materials with all of this in it.
    const WRITTEN: &str = r#"a = "é<"
b = true
d = 1979-05-27T07:32:00Z
e = []
f = 1.0
g = 1e+30
h = 1.5e-09
i = inf
ld = 1979-05-27
ldt = 1979-05-27T07:32:00.5
lt = 07:32:00
mixed = [1, {y = 2}]
off = 1979-05-27T07:32:00+02:00
"quoted key" = 1

[sub]
  [sub.deep]
    k = [[1, 2], ["a"]]

[[t]]
  x = 1

[[t]]
  y = "z"
"#;

    #[test]
    fn values_and_tables_are_written_as_by_the_reference() {
        let read: Table = WRITTEN.parse().unwrap();
        assert_eq!(Fields::from(&read).document(), WRITTEN);
    }

    #[test]
    fn numbers_and_moments_in_json() {
        let read: Table = "f = 1.0\ng = 1e30\nh = 1.5e-9\ng2 = 1e20\ng3 = 123456789012345680000.0\n\
            h2 = 0.000001\nh3 = 0.0000001\nd = 1979-05-27T07:32:00Z\nld = 1979-05-27\nlt = 07:32:00\n\
            ldt = 1979-05-27T07:32:00.5\noff = 1979-05-27T07:32:00+02:00\ns = \"<>&\\u2028\\u0001\\t\\b\\f\"\n"
            .parse()
            .unwrap();
        // What the reference wrote.
        let expected = r#"{"d":"1979-05-27T07:32:00Z","f":1,"g":1e+30,"g2":100000000000000000000,"g3":123456789012345680000,"h":1.5e-9,"h2":0.000001,"h3":1e-7,"ld":"1979-05-27T00:00:00Z","ldt":"1979-05-27T07:32:00.5Z","lt":"0000-01-01T07:32:00Z","off":"1979-05-27T07:32:00+02:00","s":"\u003c\u003e\u0026\u2028\u0001\t\b\f"}"#;
        assert_eq!(json(&Value::Table(read)), expected);
    }
}
