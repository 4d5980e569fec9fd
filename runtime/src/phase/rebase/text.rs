//! A JSON document changed in some places, and as it was written in all others.

use serde::de::{Deserialize, IgnoredAny};
use serde_json::{Deserializer, Value};

/// `value` as text: whatever `text` says already stays as it is written there, and
/// where it is.
pub(super) fn updated(text: &str, value: &Value) -> String {
    if serde_json::from_str::<Value>(text).is_ok_and(|old| old == *value) {
        return text.to_owned();
    }
    let (Some(members), Value::Object(object)) = (members(text), value) else { return value.to_string() };
    let is_new = |key: &String| !members.iter().any(|(known, _)| known == key);
    let new = object.iter().filter(|(key, _)| is_new(key)).map(|(key, value)| (key, value.to_string()));
    let kept = members.iter().filter_map(|(key, text)| Some((key, updated(text, object.get(key)?))));
    let written: Vec<String> =
        kept.chain(new).map(|(key, text)| format!("{}:{text}", Value::from(key.as_str()))).collect();
    format!("{{{}}}", written.join(","))
}

/// The members of an object with the texts of their values, in their order.
fn members(text: &str) -> Option<Vec<(String, &str)>> {
    let mut rest = text.trim_start().strip_prefix('{')?.trim_start();
    let mut found = Vec::new();
    while !rest.starts_with('}') {
        let (key, behind) = next::<String>(rest)?;
        let value = behind.trim_start().strip_prefix(':')?.trim_start();
        let (IgnoredAny, behind) = next(value)?;
        found.push((key, &value[..value.len() - behind.len()]));
        let behind = behind.trim_start();
        rest = behind.strip_prefix(',').unwrap_or(behind).trim_start();
    }
    Some(found)
}

/// The value that a text begins with, and what is behind it.
fn next<'a, T: Deserialize<'a>>(text: &'a str) -> Option<(T, &'a str)> {
    let mut values = Deserializer::from_str(text).into_iter();
    let value = values.next()?.ok()?;
    Some((value, &text[values.byte_offset()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_change_is_not_written_anew() {
        let text = r#"{ "z":[1, 2.50,{"b":1,"a":"\u003c"}], "m" : {"y":{"d":1,"c":1}, "x":"old"},"a":null}"#;
        let mut value: Value = serde_json::from_str(text).unwrap();
        assert_eq!(updated(text, &value), text);
        value["m"]["x"] = "new".into();
        value["m"]["w"] = 1.into();
        value.as_object_mut().unwrap().remove("a");
        let expected = r#"{"z":[1, 2.50,{"b":1,"a":"\u003c"}],"m":{"y":{"d":1,"c":1},"x":"new","w":1}}"#;
        assert_eq!(updated(text, &value), expected);
        assert_eq!(updated("[1]", &Value::from(2)), "2");
        assert_eq!(updated("{}", &serde_json::json!({ "a": {} })), r#"{"a":{}}"#);
    }
}
