//! Names of images: `demo/website`, `registry.example:5000/team/app:1.0`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use wapack_runtime::oci::reference::Reference;

use crate::failure::InputError;
use crate::place::Place;

/// Longest name with its tag.
const MAX_BYTES: usize = 255;

/// A checked name with a tag. It is also how a layout calls the image, so it
/// keeps to what both registries and layouts can hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageName {
    repository: String,
    tag: String,
}

impl ImageName {
    /// The layout that a build writes the image to when nothing else is said.
    pub(crate) fn default_layout(&self) -> PathBuf {
        format!("{}.oci", self.repository.replace(['/', ':', '@'], "-")).into()
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.repository, self.tag)
    }
}

impl FromStr for ImageName {
    type Err = InputError;

    fn from_str(text: &str) -> Result<Self, InputError> {
        let refused = |rule| InputError::ImageName { name: text.escape_debug().to_string(), rule };
        if text.is_empty() {
            return Err(refused("it is empty"));
        }
        if Place::parse(text.as_ref()).is_some_and(|place| place.path().is_some()) {
            return Err(InputError::ImagePlace { name: text.escape_debug().to_string() });
        }
        if text.len() > MAX_BYTES {
            return Err(refused("it is longer than 255 bytes"));
        }
        if text.contains('@') {
            return Err(refused("it names a digest, which only the build can tell"));
        }
        text.parse::<Reference>().map_err(|error| refused(error.rule))?;
        // A layout can hold less.
        let last_slash = text.rfind('/').map_or(0, |slash| slash + 1);
        let (repository, tag) = match text[last_slash..].split_once(':') {
            Some((last, tag)) => (&text[..last_slash + last.len()], tag),
            None => (text, "latest"),
        };
        if tag.len() > 128 || !words(tag, |c| c.is_ascii_alphanumeric()) {
            return Err(refused("the tag may have letters, digits, and single `.`, `_` or `-` between them"));
        }
        let mut parts: Vec<&str> = repository.split('/').collect();
        let is_host = |part: &str| part.contains(['.', ':']) || part == "localhost";
        if parts.len() > 1 && is_host(parts[0]) {
            let (host, port) = parts[0].split_once(':').unwrap_or((parts[0], "0"));
            if !words(host, |c| c.is_ascii_alphanumeric()) || !port.bytes().all(|byte| byte.is_ascii_digit())
            {
                return Err(refused("the registry is no host name"));
            }
            parts.remove(0);
        }
        if !parts.iter().all(|part| words(part, |c| c.is_ascii_alphanumeric())) {
            return Err(refused("it may have single `.`, `_` or `-` between letters and digits, or `--`"));
        }
        Ok(Self { repository: repository.to_owned(), tag: tag.to_owned() })
    }
}

/// Runs of letters with one `.`, `_` or `-` (or `--`) between them.
fn words(text: &str, letter: fn(char) -> bool) -> bool {
    !text.is_empty()
        && text
            .replace("--", "-")
            .split(['.', '_', '-'])
            .all(|word| !word.is_empty() && word.chars().all(letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_get_a_tag_and_keep_their_registry() {
        for (text, full, file) in [
            ("app", "app:latest", "app"),
            ("demo/website", "demo/website:latest", "demo-website"),
            ("demo/website:1.0", "demo/website:1.0", "demo-website"),
            ("localhost:5000/a", "localhost:5000/a:latest", "localhost-5000-a"),
            ("Registry.example/a/b_c--d:V2", "Registry.example/a/b_c--d:V2", "Registry.example-a-b_c--d"),
        ] {
            let name: ImageName = text.parse().unwrap();
            assert_eq!(
                (name.to_string().as_str(), name.default_layout()),
                (full, PathBuf::from(format!("{file}.oci")))
            );
        }
    }

    #[test]
    fn names_that_a_registry_or_layout_cannot_hold_are_refused() {
        for text in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "A",
            "a/B",
            "a b",
            "a:",
            "a:b:c",
            "a..b",
            ".a",
            "a_",
            "../a",
            "a\nb",
            "ä",
            "a@sha256:00",
            "a:-b",
            "http://a/b",
            "oci:a",
            "oci-archive:/a",
            "docker-archive:a.tar:b",
            "host:99999/a",
            "host:+1/a",
            "-a",
            "a__b",
            "a.b:x/c",
        ] {
            assert!(text.parse::<ImageName>().is_err(), "{text:?}");
        }
    }
}
