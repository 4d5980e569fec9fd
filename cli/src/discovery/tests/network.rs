//! Proxies and authorities, and what is wrong in a user's files.

use super::*;

#[test]
fn what_is_wrong_in_a_users_file_is_a_warning_with_its_line() {
    for (name, text, source, expected) in [
        ("home/.npmrc", "\nregistry = nonsense\n", "npm", "home/.npmrc:2: this address is not used"),
        (
            "home/.npmrc",
            "registry=https://${NOT_SET}.example",
            "npm",
            "home/.npmrc:1: the variable `NOT_SET`",
        ),
        ("home/.npmrc", "registry=http://plain.example", "npm", "the source `npm` can be read on the way"),
        (
            "home/.npmrc",
            "strict-ssl=false\nregistry=https://a.example",
            "npm",
            "home/.npmrc:1: `strict-ssl=false`",
        ),
        (
            "home/.npmrc",
            "cafile=/nowhere.pem\nregistry=https://a.example",
            "npm",
            "home/.npmrc:1: there is no file",
        ),
        ("home/.npmrc/x", "", "npm", "home/.npmrc is not used: it is not a file"),
        ("etc/pip.conf", "[global]\nnonsense\n", "pypi", "etc/pip.conf:2 is not understood"),
        (
            "etc/pip.conf",
            "[global]\nindex-url = ftp://x\n",
            "pypi",
            "etc/pip.conf:2: this address is not used",
        ),
        ("home/.config/go/env", "GOPROXY=nonsense", "go", "home/.config/go/env:1: this address is not used"),
    ] {
        let mut machine = Machine::new();
        machine.file(name, text);
        let said = machine.said(source);
        assert!(said.len() == 1 && said[0].starts_with(expected), "{text:?}: {said:?}");
    }
    // What is written for us is an error.
    let mut machine = Machine::new();
    machine.file("home/policy.toml", "[sources.npm]\nurl = \"nonsense\"\n");
    assert_eq!(machine.look(&["npm"]).err().unwrap().id(), "policy.invalid");
    let mut machine = Machine::new();
    machine.set("WAPACK_SOURCE_NPM", "relative");
    assert_eq!(machine.look(&["npm"]).err().unwrap().id(), "input.source");
    machine.look(&["pypi"]).unwrap();
}

#[test]
fn proxies_and_authorities_come_from_one_place() {
    let proxies = |machine: &Machine| {
        let settings = machine.look(&["npm"]).unwrap().network.settings;
        let text = |url: Option<url::Url>| url.map_or_else(|| "-".to_owned(), String::from);
        let no_proxy = settings.no_proxy.unwrap_or_else(|| "-".to_owned());
        format!("{} {} {no_proxy}", text(settings.http_proxy), text(settings.https_proxy))
    };
    let mut machine = Machine::new();
    machine
        .file("home/.npmrc", "https-proxy=https://npm.example:1\nnoproxy[]=a.example\nnoproxy[]=b.example\n");
    assert_eq!(proxies(&machine), "https://npm.example:1/ https://npm.example:1/ a.example,b.example");
    machine.set("ALL_PROXY", "all.example:1").set("HTTP_PROXY", "http://upper.example:1");
    assert_eq!(proxies(&machine), "http://upper.example:1/ http://all.example:1/ -");
    // "httpoxy": with it, the variable is a visitor's header.
    machine.set("REQUEST_METHOD", "GET").set("NO_PROXY", "x.example");
    assert_eq!(proxies(&machine), "http://all.example:1/ http://all.example:1/ x.example");
    machine.set("http_proxy", "http://lower.example:1").set("https_proxy", "socks5://s.example");
    assert_eq!(proxies(&machine), "http://lower.example:1/ - x.example");
    assert!(machine.said("npm")[0].starts_with("https_proxy: this proxy is not used"));
    machine.file("home/policy.toml", "[network]\nproxy = \"http://policy.example:1\"\n");
    assert_eq!(proxies(&machine), "http://policy.example:1/ http://policy.example:1/ -");

    let mut machine = Machine::new();
    for name in ["file.pem", "node.pem", "pip.pem", "npm.pem", "dir/0a1b2c3d.0", "dir/readme", "dir/x.0"] {
        machine.file(name, "");
    }
    for (variable, name) in [
        ("SSL_CERT_FILE", "file.pem"),
        ("SSL_CERT_DIR", "dir"),
        ("NODE_EXTRA_CA_CERTS", "node.pem"),
        ("PIP_CERT", "pip.pem"),
    ] {
        let path = machine.path(name);
        machine.set(variable, &path);
    }
    let npmrc = format!(
        "registry=https://a.example\ncafile={}\nca=\"-----BEGIN CERTIFICATE-----\\nAA==\\n-----END CERTIFICATE-----\"\n",
        machine.path("npm.pem")
    );
    machine.file("home/.npmrc", &npmrc).set("PIP_INDEX_URL", "https://p.example");
    let outcome = machine.look(&["npm", "pypi"]).unwrap();
    let names = |paths: &[std::path::PathBuf]| -> Vec<String> {
        paths.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&outcome.network.settings.ca), ["file.pem", "0a1b2c3d.0"]);
    let npm = outcome.get("npm").unwrap();
    assert_eq!(names(&npm.ca), ["node.pem", "npm.pem", "npm-ca.pem"]);
    let written = std::fs::read_to_string(&npm.ca[2]).unwrap();
    assert_eq!(written, "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----");
    assert_eq!(names(&outcome.get("pypi").unwrap().ca), ["pip.pem"]);
}
