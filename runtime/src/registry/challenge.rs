//! What a server says about how to sign in: `WWW-Authenticate`.

use std::collections::BTreeMap;

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// Longer ones are cut off: nothing real needs them.
const MAX_BYTES: usize = 8 << 10;

/// One way to sign in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    /// With a token that `realm` gives for `service`.
    Bearer {
        realm: String,
        service: Option<String>,
    },
}

/// Everything that is offered, in order; unknown ways are left out.
///
/// # Spec
/// RFC 9110, 11.6.1; distribution's "Token Authentication Specification".
pub(super) fn challenges(headers: &HeaderMap) -> Vec<Challenge> {
    let values = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| parse(value.get(..MAX_BYTES).unwrap_or(value))).collect()
}

fn parse(text: &str) -> Vec<Challenge> {
    let mut found: Vec<(String, BTreeMap<String, String>)> = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let length = rest.find(|character: char| !is_token(character)).unwrap_or(rest.len());
        if length == 0 {
            break;
        }
        let (word, after) = rest.split_at(length);
        if let Some(value) = after.trim_start_matches([' ', '\t']).strip_prefix('=') {
            // `name=value`, of the challenge that was last named.
            let Some((value, after)) = value_of(value.trim_start_matches([' ', '\t'])) else { break };
            if let Some((_, parameters)) = found.last_mut() {
                parameters.entry(word.to_ascii_lowercase()).or_insert(value);
            }
            rest = after;
        } else {
            found.push((word.to_ascii_lowercase(), BTreeMap::new()));
            rest = after;
        }
    }
    found.into_iter().filter_map(|(scheme, parameters)| known(&scheme, parameters)).collect()
}

fn known(scheme: &str, mut parameters: BTreeMap<String, String>) -> Option<Challenge> {
    match scheme {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer {
            realm: parameters.remove("realm")?,
            service: parameters.remove("service"),
        }),
        _ => None,
    }
}

/// A value with or without quotes, and what follows it.
fn value_of(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return Some((text[..end].to_owned(), &text[end..]));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((place, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[place + 1..])),
            '\\' => value.push(characters.next()?.1),
            character => value.push(character),
        }
    }
    None
}

fn is_token(character: char) -> bool {
    character.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(character)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>) -> Challenge {
        Challenge::Bearer { realm: realm.to_owned(), service: service.map(str::to_owned) }
    }

    #[test]
    fn challenges_are_read() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a:pull,push""#;
        assert_eq!(parse(hub), [bearer("https://auth.docker.io/token", Some("registry.docker.io"))]);
        assert_eq!(parse(r#"Basic realm="a, Bearer b=\"c\"""#), [Challenge::Basic]);
        assert_eq!(parse("basic"), [Challenge::Basic]);
        assert_eq!(
            parse(r#"Negotiate, BASIC realm="x", bearer  Realm = "https://r/t" , error=insufficient_scope"#),
            [Challenge::Basic, bearer("https://r/t", None)]
        );
        // The first of two says it.
        assert_eq!(parse(r#"Bearer realm="a",realm="b""#), [bearer("a", None)]);
    }

    #[test]
    fn nonsense_is_no_challenge() {
        for text in
            ["", "Bearer", r#"Bearer realm="x"#, "=,=", "\"", "Bearer service=x", "Digest realm=x", "é"]
        {
            assert_eq!(parse(text), [], "{text:?}");
        }
    }
}
