//! Where a request may go: paths below a base, origins, and addresses of machines.
//!
//! Pure: it parses, joins and compares, and resolves no name.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

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

/// Scheme, host and port are the same.
pub(super) fn same_origin(one: &Url, other: &Url) -> bool {
    (one.scheme(), one.host_str(), one.port_or_known_default())
        == (other.scheme(), other.host_str(), other.port_or_known_default())
}

/// An address for messages: without user, password, query and fragment.
pub(super) fn shown(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

/// Host and port for messages.
pub(super) fn shown_host(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}{port}", url.host_str().unwrap_or_default())
}

/// The address in `url` itself, when its host is no name.
pub(super) fn literal_address(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Domain(_) => None,
        Host::Ipv4(address) => Some(address.into()),
        Host::Ipv6(address) => Some(address.into()),
    }
}

/// Undoes escapes once; `None` for a `%` that begins none, and for what is not UTF-8.
pub(super) fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let value = digit(rest.next()?)? * 16 + digit(rest.next()?)?;
                u8::try_from(value).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
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

/// Whether `address` is not a machine of the public internet: this machine, its
/// network, a private one, a group, or a way to write one of those.
pub(super) fn is_internal(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_internal_v4(address),
        IpAddr::V6(address) => is_internal_v6(address),
    }
}

fn is_internal_v4(address: Ipv4Addr) -> bool {
    match address.octets() {
        [0 | 10 | 127, ..] | [169, 254, ..] | [192, 168, ..] | [192, 0, 0, _] => true,
        [100, second, ..] => (64..128).contains(&second),
        [172, second, ..] => (16..32).contains(&second),
        [198, second, ..] => (18..20).contains(&second),
        [first, ..] => first >= 224,
    }
}

fn is_internal_v6(address: Ipv6Addr) -> bool {
    let inner = |high: u16, low: u16| {
        let [[a, b], [c, d]] = [high.to_be_bytes(), low.to_be_bytes()];
        is_internal_v4(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        // ::/127: unspecified and loopback.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => true,
        // Mapped, translated by a gateway (64:ff9b::/96), and 6to4.
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => inner(high, low),
        // Teredo: its server, and the client, whose bits are inverted.
        [0x2001, 0, server_high, server_low, _, _, client_high, client_low] => {
            inner(server_high, server_low) || inner(!client_high, !client_low)
        }
        [first, ..] => first & 0xfe00 == 0xfc00 || first & 0xffc0 == 0xfe80 || first >= 0xff00,
    }
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

    #[test]
    fn messages_show_no_secrets() {
        let url: Url = "https://user:canary@h:8443/p/x?token=canary#canary".parse().unwrap();
        assert_eq!(shown(&url), "https://h:8443/p/x");
        assert_eq!(shown_host(&url), "h:8443");
    }

    /// G18: first and last address of every range, and its neighbours outside.
    #[test]
    fn g18_internal_addresses() {
        for inside in [
            "0.0.0.0",
            "0.255.255.255",
            "10.0.0.0",
            "10.255.255.255",
            "100.64.0.0",
            "100.127.255.255",
            "127.0.0.0",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.0.0",
            "169.254.169.254",
            "169.254.255.255",
            "172.16.0.0",
            "172.31.255.255",
            "192.0.0.0",
            "192.0.0.255",
            "192.168.0.0",
            "192.168.255.255",
            "198.18.0.0",
            "198.19.255.255",
            "224.0.0.0",
            "239.255.255.255",
            "240.0.0.0",
            "255.255.255.255",
            "::",
            "::1",
            "fc00::",
            "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            "fe80::",
            "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            "ff00::",
            "ff02::1",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            "::ffff:10.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::127.0.0.1",
            "64:ff9b::10.1.2.3",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "2002:a9fe:a9fe::",
            // Teredo by its server 10.0.0.1, and by its client 127.0.0.1 (inverted 80ff:fffe).
            "2001:0:a00:1::",
            "2001:0:808:808::80ff:fffe",
        ] {
            assert!(is_internal(inside.parse().unwrap()), "{inside}");
        }
        for outside in [
            "1.0.0.0",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "191.255.255.255",
            "192.0.1.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "8.8.8.8",
            "2606:4700::1111",
            "fbff::1",
            "fec0::1",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
            "2001:0:808:808::f7f7:f7f7",
            "2001:1::1",
            "2001:db8::1",
        ] {
            assert!(!is_internal(outside.parse().unwrap()), "{outside}");
        }
    }

    /// G18: other ways to write an address are addresses before anything is asked.
    #[test]
    fn g18_spellings_of_addresses_are_addresses() {
        for (text, address) in [
            ("http://127.1/", "127.0.0.1"),
            ("http://2130706433/", "127.0.0.1"),
            ("http://0x7f000001/", "127.0.0.1"),
            ("http://0177.0.0.1/", "127.0.0.1"),
            ("http://127.0.0.1./", "127.0.0.1"),
            ("http://[::ffff:7f00:1]/", "::ffff:127.0.0.1"),
            ("http://\u{ff11}\u{ff12}\u{ff17}.0.0.1/", "127.0.0.1"),
        ] {
            assert_eq!(literal_address(&text.parse().unwrap()), Some(address.parse().unwrap()), "{text}");
        }
        assert_eq!(literal_address(&"http://localhost/".parse().unwrap()), None);
    }
}
