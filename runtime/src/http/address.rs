//! Addresses of servers and of machines: origins, what messages show of them, and
//! which machines are not of the public internet.
//!
//! Pure: it parses and compares, and resolves no name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// Scheme, host and port are the same.
pub(crate) fn same_origin(one: &Url, other: &Url) -> bool {
    (one.scheme(), one.host_str(), one.port_or_known_default())
        == (other.scheme(), other.host_str(), other.port_or_known_default())
}

/// An address for messages: without user, password, query and fragment.
pub(crate) fn shown(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
}

/// Host and port for messages.
pub(crate) fn shown_host(url: &Url) -> String {
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}{port}", url.host_str().unwrap_or_default())
}

/// The address in `url` itself, when its host is no name.
pub(crate) fn literal_address(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Domain(_) => None,
        Host::Ipv4(address) => Some(address.into()),
        Host::Ipv6(address) => Some(address.into()),
    }
}

/// Undoes escapes once; `None` for a `%` that begins none, and for what is not UTF-8.
pub(crate) fn unescape(text: &str) -> Option<String> {
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

/// Whether `address` is not a machine of the public internet: this machine, its
/// network, a private one, a group, or a way to write one of those.
pub(crate) fn is_internal(address: IpAddr) -> bool {
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
