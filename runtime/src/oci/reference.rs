//! Names of images in registries: `acme/app:1`, `registry.example:5000/app@sha256:…`.
//!
//! Short names are completed once, here, so that two spellings of one name are
//! equal wherever names are compared.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::digest::Digest;

/// The registry that is meant when a name has none.
const DEFAULT_REGISTRY: &str = "index.docker.io";
/// How people write it.
const DEFAULT_REGISTRY_ALIAS: &str = "docker.io";
/// Where the images of that registry live whose name has no folder.
const DEFAULT_FOLDER: &str = "library";
const DEFAULT_TAG: &str = "latest";
const MAX_REPOSITORY_BYTES: usize = 255;
const MAX_TAG_BYTES: usize = 128;

/// A name of an image, completed.
///
/// # Shape
/// `[<registry>/]<repository>[:<tag>][@<digest>]`. What stands before the first
/// slash is a registry when it has a dot or a colon, or is `localhost`. Without a
/// registry it is `index.docker.io`, which is also what `docker.io` stands for; a
/// repository there without a slash is below `library/`. Without tag and digest
/// the tag is `latest`; beside a digest a tag says nothing.
///
/// Every part can become a directory (RPT-04), and none looks like an option (I8): parts begin
/// and end with a letter or a digit.
///
/// # Spec
/// distribution-spec, "Pulling manifests"; the authority as in RFC 3986.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    name: Repository,
    version: Version,
}

/// Where images of one name are: a registry and a repository in it, completed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository {
    registry: String,
    path: String,
}

impl Repository {
    /// The registry, with its port: `index.docker.io`, `registry.example:5000`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository in the registry: `library/debian`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for Repository {
    /// The completed name, without a version.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.registry, self.path)
    }
}

/// Which image of a repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    Tag(String),
    Digest(Digest),
}

/// A text that names no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` is not the name of an image: {rule}")]
pub struct InvalidReference {
    /// The text, with control characters escaped.
    pub value: String,
    /// The rule it breaks.
    pub rule: &'static str,
}

impl Reference {
    /// The registry, with its port: `index.docker.io`, `registry.example:5000`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.name.registry
    }

    /// The repository in the registry: `library/debian`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.name.path
    }

    /// Registry and repository.
    #[must_use]
    pub fn name(&self) -> &Repository {
        &self.name
    }

    /// The tag or the digest.
    #[must_use]
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// The tag, unless there is a digest.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        match &self.version {
            Version::Tag(tag) => Some(tag),
            Version::Digest(_) => None,
        }
    }

    /// The digest, if there is one.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        match &self.version {
            Version::Tag(_) => None,
            Version::Digest(digest) => Some(digest),
        }
    }

    /// The image with this digest in the same repository.
    #[must_use]
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { version: Version::Digest(digest), ..self.clone() }
    }

    /// The completed name as container engines write it: `docker.io`, where registries and
    /// the lifecycle have `index.docker.io`.
    #[must_use]
    pub fn in_engines(&self) -> String {
        let name = self.to_string();
        match name.strip_prefix(DEFAULT_REGISTRY) {
            Some(rest) if self.registry() == DEFAULT_REGISTRY => format!("{DEFAULT_REGISTRY_ALIAS}{rest}"),
            _ => name,
        }
    }

    /// Where a directory of image layouts has it.
    ///
    /// # Shape
    /// `<registry>/<repository>/<tag>` or `<registry>/<repository>/sha256/<hex>`.
    ///
    /// # Spec
    /// RPT-04.
    #[must_use]
    pub fn layout_path(&self) -> PathBuf {
        let directory = PathBuf::from(&self.name.registry).join(&self.name.path);
        match &self.version {
            Version::Tag(tag) => directory.join(tag),
            Version::Digest(digest) => directory.join("sha256").join(digest.hex()),
        }
    }
}

/// Whether two names of run images mean the same image: completed, and with their
/// digests cut off. A text that is no name is equal to itself only.
///
/// # Spec
/// RUN-05.
#[must_use]
pub fn same_image(left: &str, right: &str) -> bool {
    let name = |text: &str| {
        let undigested = text.split('@').next().unwrap_or(text);
        undigested.parse::<Reference>().map_or_else(|_| text.to_owned(), |name| name.to_string())
    };
    name(left) == name(right)
}

impl fmt::Display for Reference {
    /// The completed name.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Version::Tag(tag) => write!(formatter, "{}:{tag}", self.name),
            Version::Digest(digest) => write!(formatter, "{}@{digest}", self.name),
        }
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        parse(text).map_err(|rule| InvalidReference {
            value: text.chars().take(300).flat_map(char::escape_debug).collect(),
            rule,
        })
    }
}

fn parse(text: &str) -> Result<Reference, &'static str> {
    let (name, digest) = match text.split_once('@') {
        None => (text, None),
        Some((name, digest)) => {
            let digest = digest.parse::<Digest>();
            (name, Some(digest.map_err(|_| "what follows the `@` is not a SHA-256 digest")?))
        }
    };
    let last_part = name.rfind('/').map_or(0, |slash| slash + 1);
    let (path, tag) = match name[last_part..].rfind(':') {
        None => (name, None),
        Some(colon) => (&name[..last_part + colon], Some(&name[last_part + colon + 1..])),
    };
    if tag.is_some_and(|tag| !is_tag(tag)) {
        return Err(
            "a tag has 1 to 128 letters, digits, `.`, `_` and `-`, and begins with none of `.` and `-`",
        );
    }
    let (registry, repository) = match path.split_once('/') {
        Some((first, rest)) if first == "localhost" || first.contains(['.', ':']) => (first, rest),
        _ => ("", path),
    };
    if !registry.is_empty() && !is_authority(registry) {
        return Err("the registry is not a host name with or without a port");
    }
    if repository.is_empty() {
        return Err("it has no repository");
    }
    if repository.len() > MAX_REPOSITORY_BYTES {
        return Err("the repository is longer than 255 bytes");
    }
    if !repository.split('/').all(is_repository_part) {
        return Err(
            "a repository has lower-case letters and digits, with `.`, `_`, `__` or any number of `-` between them, \
             and single `/` between its parts",
        );
    }
    let registry = if matches!(registry, "" | DEFAULT_REGISTRY_ALIAS) { DEFAULT_REGISTRY } else { registry };
    let repository = if registry == DEFAULT_REGISTRY && !repository.contains('/') {
        format!("{DEFAULT_FOLDER}/{repository}")
    } else {
        repository.to_owned()
    };
    let version = match digest {
        Some(digest) => Version::Digest(digest),
        None => Version::Tag(tag.unwrap_or(DEFAULT_TAG).to_owned()),
    };
    let name = Repository { registry: registry.to_owned(), path: repository };
    Ok(Reference { name, version })
}

fn is_tag(tag: &str) -> bool {
    (1..=MAX_TAG_BYTES).contains(&tag.len())
        && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        && !tag.starts_with(['.', '-'])
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_repository_part(part: &str) -> bool {
    let is_letter = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let mut separators = part.as_bytes().split(is_letter).filter(|between| !between.is_empty());
    let has_ends = |bytes: &[u8]| bytes.first().is_some_and(is_letter) && bytes.last().is_some_and(is_letter);
    has_ends(part.as_bytes())
        && separators
            .all(|between| matches!(between, b"." | b"_" | b"__") || between.iter().all(|byte| *byte == b'-'))
}

/// A host name or an address, with or without a port.
fn is_authority(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            let is_address = address.parse::<std::net::Ipv6Addr>().is_ok();
            return is_address && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
        }
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let is_host = !host.is_empty() && host.bytes().all(allowed) && !matches!(host, "." | "..");
    is_host && port.is_none_or(is_port)
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";

    fn full(text: &str) -> String {
        text.parse::<Reference>().unwrap().to_string()
    }

    #[test]
    fn engines_write_the_default_registry_in_their_way() {
        for (name, in_engines) in [
            ("debian", "docker.io/library/debian:latest"),
            ("index.docker.io/acme/app:1", "docker.io/acme/app:1"),
            ("index.docker.io.example/app:1", "index.docker.io.example/app:1"),
            ("localhost:5000/app:2", "localhost:5000/app:2"),
        ] {
            assert_eq!(name.parse::<Reference>().unwrap().in_engines(), in_engines);
        }
    }

    #[test]
    fn run_04_short_names_are_completed() {
        for (short, long) in [
            ("debian", "index.docker.io/library/debian:latest"),
            ("debian:12", "index.docker.io/library/debian:12"),
            ("docker.io/debian", "index.docker.io/library/debian:latest"),
            ("index.docker.io/library/debian", "index.docker.io/library/debian:latest"),
            ("acme/app:1.0_a-B", "index.docker.io/acme/app:1.0_a-B"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000/app:2", "localhost:5000/app:2"),
            ("host:5000/app", "host:5000/app:latest"),
            ("acme/b.c_d__e---f", "index.docker.io/acme/b.c_d__e---f:latest"),
            ("registry.example/a/b/c", "registry.example/a/b/c:latest"),
            ("Registry.example/app", "Registry.example/app:latest"),
            ("[::1]:5000/app", "[::1]:5000/app:latest"),
            ("[::1]/app", "[::1]/app:latest"),
        ] {
            assert_eq!(full(short), long, "{short}");
        }
        assert_eq!(full(&format!("debian:12@{DIGEST}")), format!("index.docker.io/library/debian@{DIGEST}"));
    }

    #[test]
    fn parts_are_told() {
        let tagged: Reference = "host:5000/a/b:t".parse().unwrap();
        assert_eq!((tagged.registry(), tagged.repository(), tagged.tag()), ("host:5000", "a/b", Some("t")));
        assert_eq!(tagged.digest(), None);
        let digest: Digest = DIGEST.parse().unwrap();
        let pinned = tagged.with_digest(digest.clone());
        assert_eq!((pinned.tag(), pinned.digest()), (None, Some(&digest)));
        assert_eq!(pinned.to_string(), format!("host:5000/a/b@{DIGEST}"));
    }

    #[test]
    fn texts_that_name_no_image_are_refused() {
        let long = "a".repeat(256);
        let long_tag = format!("a:{}", "b".repeat(129));
        for text in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "a/../b",
            "a/.",
            "..",
            "A",
            "acme/App",
            "a b",
            "-a",
            "--help",
            "a-",
            "_a",
            "a..b",
            "a___b",
            "a._b",
            "a/-b",
            "a:",
            "a:b c",
            "a:/b",
            "a:..",
            "a:-b",
            "ä",
            "a@",
            "a@sha256:00",
            "a@b@c",
            "host:port/a",
            "host:99999/a",
            "../a",
            "./a",
            "[x]/a",
            "..:5000/a",
            "a\nb",
            "http://host/a",
            "localhost/",
            &long,
            &long_tag,
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
        let error = "a\u{1b}[31m".parse::<Reference>().unwrap_err();
        assert!(!error.to_string().contains('\u{1b}'), "{error:?}");
    }

    #[test]
    fn run_05_names_are_equal_when_they_mean_the_same() {
        for (left, right) in [
            ("debian", "docker.io/library/debian:latest"),
            ("debian:12", "index.docker.io/library/debian:12"),
            (&format!("host/a:1@{DIGEST}"), "host/a:1"),
            (&format!("debian@{DIGEST}"), "debian"),
            ("not a name", "not a name"),
        ] {
            assert!(same_image(left, right), "{left} {right}");
        }
        for (left, right) in [("debian:12", "debian"), ("host.example/debian", "debian"), ("a", "not a name")]
        {
            assert!(!same_image(left, right), "{left} {right}");
        }
    }

    #[test]
    fn rpt_04_a_name_is_a_place_in_a_directory_of_layouts() {
        let path = |text: &str| text.parse::<Reference>().unwrap().layout_path().to_str().unwrap().to_owned();
        assert_eq!(path("debian"), "index.docker.io/library/debian/latest");
        assert_eq!(path("host:5000/a/b:1"), "host:5000/a/b/1");
        assert_eq!(path(&format!("h.example/a:1@{DIGEST}")), format!("h.example/a/sha256/{}", &DIGEST[7..]));
    }
}
