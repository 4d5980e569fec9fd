//! Files that look like keys or credentials, so that nobody publishes one by accident.
//!
//! It knows names, and looks into the first bytes of a few files; it only ever warns.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// How much of a file is looked at.
const HEAD_BYTES: u64 = 64 << 10;

/// Names that are private keys or lists of passwords, whatever is in them.
const NAMES: [&str; 8] = [
    ".git-credentials",
    ".pgpass",
    "application_default_credentials.json",
    "id_dsa",
    "id_ecdsa",
    "id_ed25519",
    "id_rsa",
    "kubeconfig",
];

/// The same, by the directory they stand in.
const PATHS: [&str; 2] = [".aws/credentials", ".kube/config"];

/// Stores of keys.
const EXTENSIONS: [&str; 5] = ["jks", "kdbx", "keystore", "p12", "pfx"];

/// Endings of a `.env` file that is there to be copied and filled in.
const EXAMPLES: [&str; 6] = ["defaults", "dist", "example", "sample", "schema", "template"];

/// Whether the file at `path`, called `name` in `parent`, looks like one.
pub(super) fn looks_like_one(path: &Path, parent: BorrowedFd<'_>, bytes: u64) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return false };
    // What packages bring along is public, fixtures with keys included.
    if bytes == 0 || path.iter().any(|part| part == "node_modules") {
        return false;
    }
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    if NAMES.contains(&name) || EXTENSIONS.contains(&extension) || PATHS.iter().any(|end| path.ends_with(end))
    {
        return true;
    }
    if let Some(rest) = name.strip_prefix(".env") {
        return rest.is_empty() || (rest.starts_with('.') && !EXAMPLES.contains(&extension));
    }
    let holds: fn(&str) -> bool = match name {
        ".npmrc" => |text| has_value(text, &["_authToken", "_auth", "_password"]),
        ".netrc" | "_netrc" => |text| text.contains("password"),
        ".pypirc" => |text| has_value(text, &["password"]),
        ".yarnrc.yml" => |text| has_value(text, &["npmAuthToken", "npmAuthIdent"]),
        "config.json" if path.ends_with(".docker/config.json") => |text| text.contains("\"auth\""),
        _ if matches!(extension, "pem" | "key") => {
            |text| text.contains("-----BEGIN ") && text.contains("PRIVATE KEY")
        }
        _ if extension == "json" && (name.contains("credential") || name.contains("service-account")) => {
            |text| text.contains("\"private_key\"") || text.contains("\"client_secret\"")
        }
        _ => return false,
    };
    head(parent, name).is_some_and(|text| holds(&text))
}

/// Whether a line ends one of `keys` with `=` or `:` and a value that is no reference to a variable.
fn has_value(text: &str, keys: &[&str]) -> bool {
    text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])).any(|line| {
        keys.iter().any(|key| {
            let Some(at) = line.rfind(key) else { return false };
            let rest = line[at + key.len()..].trim_start();
            let Some(value) = rest.strip_prefix(['=', ':']) else { return false };
            let value = value.trim().trim_matches(['"', '\'']);
            !value.is_empty() && !value.starts_with('$')
        })
    })
}

fn head(parent: BorrowedFd<'_>, name: &str) -> Option<String> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(parent, name, flags, Mode::empty()).ok()?);
    let mut bytes = Vec::new();
    file.take(HEAD_BYTES).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;

    fn looks(path: &str, content: &str) -> bool {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, content).unwrap();
        let parent = File::open(file.parent().unwrap()).unwrap();
        looks_like_one(Path::new(path), parent.as_fd(), content.len() as u64)
    }

    #[test]
    fn keys_and_credentials_are_known_by_name_and_contents() {
        let key = "-----BEGIN RSA PRIVATE KEY-----\nMII\n";
        for (path, content) in [
            (".env", "A=1"),
            ("deploy/.env.production", "A=1"),
            (".ssh/id_rsa", "x"),
            ("id_ed25519", "x"),
            ("tls/server.pem", key),
            ("server.key", "-----BEGIN PRIVATE KEY-----"),
            (".npmrc", "//registry.example/:_authToken=npm_abc"),
            (".npmrc", "a=1\n_auth = YTpi\n"),
            (".aws/credentials", "x"),
            ("home/.docker/config.json", "{\"auths\":{\"x\":{\"auth\":\"a\"}}}"),
            (".netrc", "machine x login y password z"),
            (".pypirc", "[pypi]\npassword: x"),
            (".yarnrc.yml", "npmAuthToken: \"abc\""),
            ("my-service-account.json", "{\"private_key\": \"x\"}"),
            ("store.p12", "x"),
        ] {
            assert!(looks(path, content), "{path}");
        }
        for (path, content) in [
            (".env", ""),
            (".env.example", "A=1"),
            (".envrc", "use nix"),
            ("ca.pem", "-----BEGIN CERTIFICATE-----"),
            (".npmrc", "//registry.example/:_authToken=${NPM_TOKEN}\n"),
            (".npmrc", "registry=https://x\n# _auth=abc\n"),
            ("config/credentials", "x"),
            ("config.json", "{\"auth\": 1}"),
            ("node_modules/x/test/key.pem", key),
            ("id_rsa.pub", "ssh-rsa x"),
            ("key", key),
        ] {
            assert!(!looks(path, content), "{path}");
        }
    }
}
