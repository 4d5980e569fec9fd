//! Making text of others safe to show.

use std::fmt::Write as _;

/// Escapes what could steer a terminal, a log viewer or a CI system.
///
/// # Shape
/// Control characters other than tab, DEL, and the characters that change the
/// direction of text become `\u{…}` escapes; the mark that begins a command of
/// some CI systems (`##vso[`, `##[`) loses its effect. Commands that need the
/// start of a line (`::set-output`) have none, because lines are prefixed.
#[must_use]
pub fn harmless(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\t' => safe.push('\t'),
            '\u{061c}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
            | '\u{feff}' => {
                escape(&mut safe, character);
            }
            character if character.is_control() => escape(&mut safe, character),
            character => safe.push(character),
        }
    }
    if safe.contains("##") {
        safe = safe.replace("##vso[", "#\\u{23}vso[").replace("##[", "#\\u{23}[");
    }
    safe
}

/// [`harmless`], line by line: line ends stay.
#[must_use]
pub fn harmless_lines(text: &str) -> String {
    text.split('\n').map(harmless).collect::<Vec<_>>().join("\n")
}

/// Bytes in JSON: as text where they are, and else as a list of numbers.
pub(crate) mod mostly_text {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

    use serde::{Deserialize, Deserializer, Serialize as _, Serializer};

    /// What holds any bytes.
    pub(crate) trait Bytes {
        fn bytes(&self) -> &[u8];
        fn of(bytes: Vec<u8>) -> Self;
    }

    impl Bytes for Vec<u8> {
        fn bytes(&self) -> &[u8] {
            self
        }

        fn of(bytes: Vec<u8>) -> Self {
            bytes
        }
    }

    impl Bytes for OsString {
        fn bytes(&self) -> &[u8] {
            self.as_os_str().as_bytes()
        }

        fn of(bytes: Vec<u8>) -> Self {
            Self::from_vec(bytes)
        }
    }

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        Text(String),
        Bytes(Vec<u8>),
    }

    pub(crate) fn serialize<B: Bytes, S: Serializer>(value: &B, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(value.bytes()) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => value.bytes().serialize(serializer),
        }
    }

    pub(crate) fn deserialize<'de, B: Bytes, D: Deserializer<'de>>(deserializer: D) -> Result<B, D::Error> {
        Ok(B::of(match Form::deserialize(deserializer)? {
            Form::Text(text) => text.into_bytes(),
            Form::Bytes(bytes) => bytes,
        }))
    }
}

/// Leaves out the sequences that only choose colours and the like, `ESC [ … m`.
///
/// Programs that were never asked write them; everything else that [`harmless`]
/// escapes stays visible.
#[must_use]
pub fn without_colours(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\x1b[") {
        plain.push_str(before);
        let parameters = after.trim_start_matches(|c: char| c.is_ascii_digit() || matches!(c, ';' | ':'));
        rest = parameters.strip_prefix('m').unwrap_or_else(|| {
            plain.push_str("\x1b[");
            after
        });
    }
    plain + rest
}

fn escape(text: &mut String, character: char) {
    // Writing to a string cannot fail.
    let _ = write!(text, "\\u{{{:x}}}", u32::from(character));
}

#[cfg(test)]
mod tests {
    use super::{harmless, without_colours};

    #[test]
    fn bytes_are_text_in_json_where_they_are_text() {
        #[derive(serde::Serialize, serde::Deserialize)]
        struct Value(#[serde(with = "super::mostly_text")] Vec<u8>);

        for (bytes, json) in [(b"a\n".to_vec(), "\"a\\n\""), (vec![0xff, 0x61], "[255,97]")] {
            assert_eq!(serde_json::to_string(&Value(bytes.clone())).unwrap(), json);
            assert_eq!(serde_json::from_str::<Value>(json).unwrap().0, bytes);
        }
    }

    #[test]
    fn colours_are_left_out_and_nothing_else() {
        assert_eq!(without_colours("\x1b[1;31mred\x1b[0m, \x1b[mplain"), "red, plain");
        assert_eq!(without_colours("\x1b[2Jcleared \x1b[31"), "\x1b[2Jcleared \x1b[31");
    }

    #[test]
    fn g15_control_and_direction_characters_are_escaped() {
        assert_eq!(harmless("a\tb"), "a\tb");
        assert_eq!(harmless("\x1b[31mred\x1b[0m"), "\\u{1b}[31mred\\u{1b}[0m");
        assert_eq!(harmless("good\rbad"), "good\\u{d}bad");
        assert_eq!(harmless("\u{9b}2J\u{7f}\0"), "\\u{9b}2J\\u{7f}\\u{0}");
        assert_eq!(harmless("user\u{202e}txt.exe"), "user\\u{202e}txt.exe");
        assert_eq!(harmless("x ##vso[task.setvariable]"), "x #\\u{23}vso[task.setvariable]");
        assert_eq!(harmless("grüße 漢字 🙂"), "grüße 漢字 🙂");
    }
}
