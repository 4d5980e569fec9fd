//! Paths below a source: which texts are some, and the addresses they make.
//!
//! Pure: it parses and joins, and asks nobody.

use std::fmt::Write as _;

use url::Url;

use crate::http::address::{same_origin, unescape};

/// Longer paths name no file of any source.
const MAX_PATH: usize = 4096;

/// A path below a source, as a guest spelled it and we understood it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SourcePath {
    /// Names between slashes; an escaped slash stays inside a name.
    names: Vec<String>,
}

impl SourcePath {
    /// Takes a path apart; `None` when it is none, or could mean another to
    /// whoever reads it next.
    ///
    /// # Shape
    /// Names with one slash between them. An escape (`%2f`) is undone once; what
    /// comes out is held to the same rules, and still has no `%` in it. No name
    /// is empty, `.` or `..`, also not between escaped slashes. No control
    /// characters, no `\`, `?` or `#`.
    pub(super) fn parse(path: &str) -> Option<Self> {
        if path.len() > MAX_PATH || path.contains(['?', '#', '\\']) {
            return None;
        }
        let names = path.split('/').map(unescape).collect::<Option<Vec<_>>>()?;
        let fine = names.iter().all(|name| {
            let parts_are_names = name.split('/').all(|part| !matches!(part, "" | "." | ".."));
            parts_are_names && !name.contains(['\\', '?', '#', '%']) && !name.chars().any(char::is_control)
        });
        fine.then_some(Self { names })
    }

    /// Relative to a directory: what was an escaped slash is one.
    pub(super) fn in_directory(&self) -> String {
        self.names.join("/")
    }

    /// The address below `base`, built from its parts: whatever the path says,
    /// scheme, host and port are those of the base.
    pub(super) fn below(&self, base: &Url) -> Option<Url> {
        let mut url = base.clone();
        // Credentials go into a header, and what belongs to the base's own page goes nowhere.
        url.set_username("").ok()?;
        url.set_password(None).ok()?;
        url.set_query(None);
        url.set_fragment(None);
        let names: Vec<String> = self.names.iter().map(|name| escape(name)).collect();
        let path = format!("{}{}", directory_path(base), names.join("/"));
        url.set_path(&path);
        // The parser has nothing to tidy up in such a path; if it did, we would have misread it.
        (url.path() == path).then_some(url)
    }
}

/// The path of `base` with a slash at its end.
fn directory_path(base: &Url) -> String {
    let path = base.path();
    if path.ends_with('/') { path.to_owned() } else { format!("{path}/") }
}

/// Whether `url` is at the origin of `base` and below its path, for any reader of the path.
pub(super) fn is_below(url: &Url, base: &Url) -> bool {
    same_origin(url, base)
        && url
            .path()
            .strip_prefix(directory_path(base).as_str())
            .is_some_and(|rest| SourcePath::parse(rest).is_some())
}

/// What stands for itself in a path segment, for every server: no `;`, which some
/// take for the begin of parameters.
fn stands_for_itself(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~@+=,:!$'()*&".contains(&byte)
}

fn escape(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        if stands_for_itself(byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Url {
        "https://registry.example:8443/api/npm".parse().unwrap()
    }

    fn below(path: &str) -> Option<String> {
        SourcePath::parse(path)?.below(&base()).map(|url| url.to_string())
    }

    /// G17: what is let through arrives at the base, spelled by us.
    #[test]
    fn g17_paths_are_appended_to_the_base() {
        for (path, expected) in [
            ("x/-/x-1.0.0.tgz", "x/-/x-1.0.0.tgz"),
            ("@acme/x/-/x-1.0.0.tgz", "@acme/x/-/x-1.0.0.tgz"),
            ("@acme%2fx/-/x-1.0.0.tgz", "@acme%2fx/-/x-1.0.0.tgz"),
            ("@acme%2Fx", "@acme%2fx"),
            ("%40acme/x", "@acme/x"),
            (
                "pool/main/g/gcc-12/libstdc++6_12.2.0-14+deb12u1_amd64.deb",
                "pool/main/g/gcc-12/libstdc++6_12.2.0-14+deb12u1_amd64.deb",
            ),
            ("a b", "a%20b"),
            ("a%20b", "a%20b"),
            ("ü", "%c3%bc"),
            ("%C3%BC", "%c3%bc"),
            ("a;b=c", "a%3bb=c"),
            ("a\"<>^`{|}b", "a%22%3c%3e%5e%60%7b%7c%7db"),
            ("...", "..."),
            (".hidden", ".hidden"),
            ("a%2etgz", "a.tgz"),
            // Looks like another place, and is a name below the base.
            ("@evil.example/x", "@evil.example/x"),
            (":80/x", ":80/x"),
            ("user:password@evil.example", "user:password@evil.example"),
            ("https:evil.example", "https:evil.example"),
            ("REGISTRY.EXAMPLE/x", "REGISTRY.EXAMPLE/x"),
            ("registry.example./x", "registry.example./x"),
            ("\u{ff0e}\u{ff0e}/x", "%ef%bc%8e%ef%bc%8e/x"),
        ] {
            assert_eq!(
                below(path).unwrap(),
                format!("https://registry.example:8443/api/npm/{expected}"),
                "{path}"
            );
        }
    }

    #[test]
    fn g17_spellings_of_other_places_are_refused() {
        let long = "a/".repeat(3000) + "a";
        for path in [
            "",
            "/",
            "//",
            "/x",
            "//evil.example/x",
            "///x",
            "x/",
            "x//y",
            "a/./b",
            ".",
            "./x",
            "..",
            "../x",
            "x/..",
            "x/../y",
            "https://evil.example/x",
            "http://169.254.169.254/latest",
            "ftp://x",
            "\\\\evil.example\\x",
            "x\\y",
            "\\..\\x",
            "%2e%2e/x",
            "%2E%2e/x",
            ".%2e/x",
            "%2e./x",
            "x/%2e%2e",
            "%2e",
            "%2e/x",
            "x/%2e/y",
            "..%2fx",
            "x%2f..%2fy",
            "x%2f%2e%2e%2fy",
            "%2fx",
            "x%2f",
            "x%2f%2fy",
            "%2f%2fevil.example",
            "%5c%5cevil.example",
            "x%5cy",
            "%252e%252e/x",
            "x%252fy",
            "%25",
            "%",
            "x%",
            "x%2",
            "x%zz",
            "x%+1",
            "%u002e",
            "x?y",
            "x?",
            "x#y",
            "x%3fy",
            "x%23y",
            "x\ny",
            "x\0",
            "x%00",
            "x%0d%0aHost:%20evil",
            "x\r\nHost: evil",
            "x\u{7f}",
            "x\u{85}y",
            "%c0%ae%c0%ae/x",
            "%ff",
            "x\ty",
            &long,
        ] {
            assert_eq!(below(path), None, "{path:?}");
        }
    }

    #[test]
    fn the_base_gives_everything_but_the_path() {
        let with = |base: &str| {
            SourcePath::parse("x/y.tgz").unwrap().below(&base.parse().unwrap()).unwrap().to_string()
        };
        assert_eq!(with("http://h/"), "http://h/x/y.tgz");
        assert_eq!(with("http://h"), "http://h/x/y.tgz");
        assert_eq!(with("http://h/a/"), "http://h/a/x/y.tgz");
        assert_eq!(with("http://user:secret@h/a?token=t#f"), "http://h/a/x/y.tgz");
        assert_eq!(with("http://[::1]:4873/a"), "http://[::1]:4873/a/x/y.tgz");
        assert_eq!(SourcePath::parse("@acme%2fx/y").unwrap().in_directory(), "@acme/x/y");
    }

    #[test]
    fn below_means_origin_and_path() {
        let base: Url = "https://h:8443/api/npm".parse().unwrap();
        let check = |url: &str| is_below(&url.parse().unwrap(), &base);
        assert!(check("https://h:8443/api/npm/x/y.tgz"));
        assert!(check("https://H:8443/api/./npm/x"));
        for url in [
            "http://h:8443/api/npm/x",
            "https://h/api/npm/x",
            "https://h.:8443/api/npm/x",
            "https://g:8443/api/npm/x",
            "https://h:8443/api/npm",
            "https://h:8443/api/npm/",
            "https://h:8443/api/npmx/y",
            "https://h:8443/api/",
            "https://h:8443/api/npm/../x",
            "https://h:8443/api/npm/%2e%2e/x",
            "https://h:8443/api/npm/%2e%2e%2fx",
            "https://h:8443/api/npm/..%2fx",
            "https://h:8443/api/npm/x%252f..%252f..",
            "https://h:8443/api/NPM/x",
        ] {
            assert!(!check(url), "{url}");
        }
        let default: Url = "https://h:443/".parse().unwrap();
        assert!(is_below(&"https://h/x".parse().unwrap(), &default));
    }
}
