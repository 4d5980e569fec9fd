//! Integrity values: what the bytes of a download must hash to.
//!
//! A word of the library: knows how such values are spelled and how bytes are
//! hashed; not where bytes come from or are kept.

use std::fmt;
use std::io::{self, Read};

use base64::alphabet::STANDARD;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, Engine};
use sha2::Digest as _;

/// Read at once: large enough to make the calls not count, small enough for the cache.
const CHUNK: usize = 256 * 1024;

/// Longer texts are no integrity value; the longest one in use has a hundred characters.
const MAX_TEXT: usize = 4096;

/// Padding may be there or not, as npm takes it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A hash function, the weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// Broken for signatures; only what old locks have nothing better than.
    Sha1,
    Sha256,
    Sha384,
    Sha512,
}

impl Algorithm {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "sha1" => Self::Sha1,
            "sha256" => Self::Sha256,
            "sha384" => Self::Sha384,
            "sha512" => Self::Sha512,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

/// The hash of some bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Hash {
    algorithm: Algorithm,
    bytes: Vec<u8>,
}

impl Hash {
    /// `sha512-<hex>`: fit to name a file.
    pub(crate) fn file_name(&self) -> String {
        self.to_string().replace(':', "-")
    }
}

impl fmt::Display for Hash {
    /// `sha512:<hex>`
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:", self.algorithm.name())?;
        self.bytes.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

/// What bytes must hash to: any of these values, all of one algorithm.
///
/// # Shape
/// One or more of `sha512:<hex>` and `sha512-<base64>`, separated by spaces; also with
/// `sha384`, `sha256` and `sha1`. Options behind a `?` mean nothing.
///
/// # Spec
/// Subresource Integrity, "Get the strongest metadata from set": of several
/// algorithms the strongest counts, of several values of that one any. Unknown
/// algorithms are passed over. Unlike there, a value that is none is an error,
/// and so is a text without a known algorithm.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Integrity {
    /// Never empty.
    values: Vec<Hash>,
}

/// Text that is no integrity value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` is not an integrity value")]
pub struct InvalidIntegrity {
    /// The text, with control characters escaped.
    pub value: String,
}

impl std::str::FromStr for Integrity {
    type Err = InvalidIntegrity;

    fn from_str(text: &str) -> Result<Self, InvalidIntegrity> {
        let invalid =
            || InvalidIntegrity { value: text.chars().take(200).flat_map(char::escape_default).collect() };
        if text.len() > MAX_TEXT {
            return Err(invalid());
        }
        let mut values: Vec<Hash> = Vec::new();
        for word in text.split_ascii_whitespace() {
            let (name, value) = word.split_once([':', '-']).ok_or_else(invalid)?;
            let Some(algorithm) = Algorithm::parse(name) else { continue };
            let bytes = if word[name.len()..].starts_with(':') {
                from_hex(value)
            } else {
                let value = value.split_once('?').map_or(value, |(value, _)| value);
                BASE64.decode(value).ok()
            };
            let bytes = bytes.filter(|bytes| bytes.len() == algorithm.bytes()).ok_or_else(invalid)?;
            let strongest = values.first().map(|first| first.algorithm);
            if strongest.is_some_and(|strongest| algorithm < strongest) {
                continue;
            }
            if strongest.is_some_and(|strongest| algorithm > strongest) {
                values.clear();
            }
            values.push(Hash { algorithm, bytes });
        }
        if values.is_empty() { Err(invalid()) } else { Ok(Self { values }) }
    }
}

impl fmt::Display for Integrity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, value) in self.values.iter().enumerate() {
            write!(formatter, "{}{value}", if index == 0 { "" } else { " or " })?;
        }
        Ok(())
    }
}

impl Integrity {
    /// The function that counts.
    pub fn algorithm(&self) -> Algorithm {
        self.values[0].algorithm
    }

    /// The values, one of which the bytes must have.
    pub(crate) fn values(&self) -> &[Hash] {
        &self.values
    }

    /// Whether bytes with this hash are the right ones.
    pub fn accepts(&self, found: &Hash) -> bool {
        self.values.contains(found)
    }

    /// A hasher of the right kind.
    pub fn hasher(&self) -> Hasher {
        match self.algorithm() {
            Algorithm::Sha1 => Hasher::Sha1(sha1::Sha1::new()),
            Algorithm::Sha256 => Hasher::Sha256(sha2::Sha256::new()),
            Algorithm::Sha384 => Hasher::Sha384(sha2::Sha384::new()),
            Algorithm::Sha512 => Hasher::Sha512(Box::new(sha2::Sha512::new())),
        }
    }

    /// The hash of everything left in `reader`; stops with an error of kind
    /// `Interrupted` when `stop` says so.
    ///
    /// # Errors
    /// What reading fails with.
    pub(crate) fn hash(&self, mut reader: impl Read, stop: &dyn Fn() -> bool) -> io::Result<Hash> {
        let mut hasher = self.hasher();
        let mut buffer = vec![0; CHUNK];
        loop {
            if stop() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(hasher.finish()),
                Ok(count) => hasher.update(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Hashes piece by piece.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "each is the state of the function it is named after")]
pub enum Hasher {
    Sha1(sha1::Sha1),
    Sha256(sha2::Sha256),
    Sha384(sha2::Sha384),
    Sha512(Box<sha2::Sha512>),
}

impl Hasher {
    /// Takes the next piece.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha1(hasher) => hasher.update(bytes),
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha384(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// The hash of all pieces.
    #[must_use]
    pub fn finish(self) -> Hash {
        let (algorithm, bytes) = match self {
            Self::Sha1(hasher) => (Algorithm::Sha1, hasher.finalize().to_vec()),
            Self::Sha256(hasher) => (Algorithm::Sha256, hasher.finalize().to_vec()),
            Self::Sha384(hasher) => (Algorithm::Sha384, hasher.finalize().to_vec()),
            Self::Sha512(hasher) => (Algorithm::Sha512, hasher.finalize().to_vec()),
        };
        Hash { algorithm, bytes }
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len()).step_by(2).map(|start| u8::from_str_radix(&text[start..start + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf hello | sha1sum` and so on; `printf hello | openssl dgst -sha512 -binary | base64 -w0`.
    const SHA1: &str = "sha1:aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d";
    const SHA1_BASE64: &str = "sha1-qvTGHdzF6KLavt4PO0gs2a6pQ00=";
    const SHA256: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    const SHA256_BASE64: &str = "sha256-LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=";
    const SHA384: &str = "sha384-WeF0h3dEjGnea4ANejO7+5/xtGPkQ1TDVTvNucZm+pASWjx5+QOXvfX2oT3oKGhP";
    const SHA512: &str =
        "sha512-m3HSJL1i83hdltRq0+o9czGb+8KJDKra4t/3JRlnPKcjI8PZm6XBHXx6zG4UuMXaDEZjR1wuXDre9G9zvN7AQw==";

    fn accepts(text: &str, bytes: &[u8]) -> bool {
        let integrity: Integrity = text.parse().unwrap();
        let found = integrity.hash(bytes, &|| false).unwrap();
        integrity.accepts(&found)
    }

    #[test]
    fn every_spelling_of_a_hash_is_checked() {
        let options = format!("{SHA512}?ct=application/x-tgz");
        let without_padding = SHA512.trim_end_matches('=');
        for text in [
            SHA1,
            SHA1_BASE64,
            SHA256,
            SHA256_BASE64,
            SHA384,
            SHA512,
            &options,
            without_padding,
            &SHA256.replace("cf", "CF"),
        ] {
            assert!(accepts(text, b"hello"), "{text}");
            assert!(!accepts(text, b"hellp"), "{text}");
            assert!(!accepts(text, b""), "{text}");
        }
    }

    /// S5: of several values a weak one never lets through what a strong one refuses.
    #[test]
    fn s5_the_strongest_algorithm_counts() {
        let wrong = SHA512.replace('m', "n");
        assert!(!accepts(&format!("{SHA1} {wrong}"), b"hello"));
        assert!(!accepts(&format!("{wrong} {SHA256}"), b"hello"));
        assert!(accepts(&format!("{SHA1} {SHA512} {SHA256_BASE64}"), b"hello"));
        assert!(accepts(&format!("  {wrong}\n {SHA512}"), b"hello"), "any value of the strongest will do");
        assert!(accepts(&format!("md5-abc {SHA1}"), b"hello"), "what is not known is passed over");
        assert_eq!(format!("{SHA1} {SHA256}").parse::<Integrity>().unwrap().algorithm(), Algorithm::Sha256);
    }

    #[test]
    fn what_is_no_integrity_value_is_refused() {
        let short = &SHA256[..SHA256.len() - 2];
        let long = "sha256:00 ".repeat(1000);
        for text in [
            "",
            " ",
            "sha256",
            "sha256:",
            "sha256-",
            "md5:00",
            "md5-AAAA",
            "sha256:zz",
            short,
            "sha256:+0",
            "sha512-!!",
            "hello",
            &format!("sha512:{}", &SHA256[7..]),
            &format!("{SHA512} sha256:00"),
            &long,
            &SHA256.replace(':', "-"),
        ] {
            assert!(text.parse::<Integrity>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn hashes_name_files_and_read_well() {
        let integrity: Integrity = SHA256.parse().unwrap();
        assert_eq!(integrity.to_string(), SHA256);
        assert_eq!(integrity.values()[0].file_name(), SHA256.replace(':', "-"));
    }
}
