//! JSON without double meanings: a key that is there twice is refused, because two readers
//! could take one each (R4).

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// Reads a document.
pub(super) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    Walk.deserialize(&mut deserializer)?;
    deserializer.end()?;
    serde_json::from_slice(bytes)
}

/// Looks at every key of a value and keeps none of it.
#[derive(Clone, Copy)]
struct Walk;

impl<'de> DeserializeSeed<'de> for Walk {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let mut keys = BTreeSet::new();
        while let Some(key) = entries.next_key::<String>()? {
            entries.next_value_seed(Self)?;
            // Readers that do not mind case, such as Go's, take these for one.
            if !keys.insert(key.to_ascii_lowercase()) {
                let shown: String = key.chars().take(60).flat_map(char::escape_default).collect();
                return Err(A::Error::custom(format!("the key `{shown}` is there twice")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// R4
    #[test]
    fn r4_keys_that_are_there_twice_are_refused() {
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":[{"b":{"c":1,"d":2,"c":3}}]}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"layers":[],"Layers":[]}"#,
        ] {
            assert!(read::<Value>(text.as_bytes()).unwrap_err().to_string().contains("twice"), "{text}");
            serde_json::from_str::<Value>(text).unwrap();
        }
        let fine = r#"{"a":{"a":[1,-1,1.5,true,null,"a"]},"b":{"a":1}}"#;
        assert_eq!(read::<Value>(fine.as_bytes()).unwrap(), serde_json::from_str::<Value>(fine).unwrap());
        read::<Value>(br#"{"a":1} {"a":1}"#).unwrap_err();
    }

    #[test]
    fn depth_is_bounded() {
        read::<Value>("[".repeat(100_000).as_bytes()).unwrap_err();
    }
}
