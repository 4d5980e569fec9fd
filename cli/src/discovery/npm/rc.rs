//! npm's configuration as its user left it: variables, `~/.npmrc`, the machine's `npmrc`.
//!
//! Follows npm in what goes before what. The app's own `.npmrc` is not among it.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use url::Url;
use wapack_runtime::grant::is_source_name;
use wapack_runtime::network::{Credentials, Secret, parse_proxy};

use super::super::environment::Environment;
use super::super::files::{self, Links};
use super::super::found::{Found, Remarks, authority};
use super::{ini, registry_key};

/// Settings with what they say, later ones win.
type Layer = Vec<Entry>;

struct Entry {
    key: String,
    value: String,
    is_list: bool,
    set_by: String,
    /// The first variable in it that has no value.
    unset: Option<String>,
}

/// The layers, the first one wins.
pub(in super::super) struct Npm(Vec<Layer>);

/// Proxies that npm is told to use.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Proxies {
    pub(in super::super) http: Option<Url>,
    pub(in super::super) https: Option<Url>,
    pub(in super::super) exceptions: Option<String>,
}

impl Npm {
    pub(in super::super) fn read(environment: &Environment, remarks: &mut Remarks) -> Self {
        let mut npm = Self(vec![of_variables(environment)]);
        let user_file =
            npm.path("userconfig", environment).or_else(|| Some(environment.home()?.join(".npmrc")));
        npm.0.push(user_file.map_or_else(Vec::new, |path| of_file(&path, environment, remarks)));
        let global_file = npm.path("globalconfig", environment).or_else(|| {
            let prefix = npm.path("prefix", environment).or_else(|| prefix(environment))?;
            Some(prefix.join("etc/npmrc"))
        });
        npm.0.push(global_file.map_or_else(Vec::new, |path| of_file(&path, environment, remarks)));
        npm
    }

    /// A single value; of one that is a list npm could not use it.
    fn get(&self, key: &str) -> Option<&Entry> {
        let layer = self.0.iter().find(|layer| layer.iter().any(|entry| entry.key == key))?;
        let mut entries = layer.iter().filter(|entry| entry.key == key);
        if entries.clone().any(|entry| entry.is_list) { None } else { entries.next_back() }
    }

    /// All values of a key that may be a list.
    fn all(&self, key: &str) -> Vec<&Entry> {
        let of_key = |layer: &'_ Layer| layer.iter().any(|entry| entry.key == key);
        let Some(layer) = self.0.iter().find(|layer| of_key(layer)) else { return Vec::new() };
        let entries: Vec<&Entry> = layer.iter().filter(|entry| entry.key == key).collect();
        if entries.iter().any(|entry| entry.is_list) {
            entries
        } else {
            entries.into_iter().next_back().into_iter().collect()
        }
    }

    fn path(&self, key: &str, environment: &Environment) -> Option<PathBuf> {
        absolute(&self.get(key).filter(|entry| entry.unset.is_none())?.value, environment)
    }

    /// Sources with a registry of their own: `npm:@acme`.
    pub(in super::super) fn scopes(&self) -> impl Iterator<Item = String> {
        self.0
            .iter()
            .flatten()
            .filter_map(|entry| entry.key.strip_suffix(":registry"))
            .filter(|scope| scope.starts_with('@'))
            .map(|scope| format!("npm:{scope}"))
            .filter(|name| is_source_name(name))
    }

    pub(in super::super) fn find(&self, name: &str, remarks: &mut Remarks) -> Option<Found> {
        let entry = self.get(&registry_key(name)?)?;
        if let Some(variable) = &entry.unset {
            remarks.warn(format!(
                "{}: the variable `{variable}` has no value; the line is not used",
                entry.set_by
            ));
            return None;
        }
        let mut found = Found::of_tool(&entry.value, &entry.set_by, remarks)?;
        self.sign_in(&mut found, remarks);
        Some(found)
    }

    /// Adds what npm would send to this address.
    pub(in super::super) fn sign_in(&self, found: &mut Found, remarks: &mut Remarks) {
        if let Some((credentials, set_by)) = found.base().and_then(|base| self.credentials(base, remarks)) {
            found.sign_in(Some(credentials), &set_by);
        }
    }

    /// npm looks for the whole address, then for each part of it that is shorter.
    fn credentials(&self, base: &Url, remarks: &mut Remarks) -> Option<(Credentials, String)> {
        let port = base.port().map(|port| format!(":{port}")).unwrap_or_default();
        let mut key = format!("//{}{port}{}", base.host_str()?, base.path());
        while key.len() > 2 {
            let value =
                |what: &str| self.get(&format!("{key}:{what}")).filter(|entry| !entry.value.is_empty());
            let read = if let Some(token) = value("_authToken") {
                Some((token, Some(Credentials::Bearer(Secret::new(&token.value)))))
            } else if let Some(both) = value("_auth") {
                Some((both, decoded(&both.value).and_then(|text| Some(basic(text.split_once(':')?)))))
            } else if let (Some(user), Some(password)) = (value("username"), value("_password")) {
                Some((password, decoded(&password.value).map(|text| basic((&user.value, &text)))))
            } else {
                None
            };
            if let Some((entry, credentials)) = read {
                let why = match (&entry.unset, credentials) {
                    (None, Some(credentials)) => return Some((credentials, entry.set_by.clone())),
                    (Some(variable), _) => format!("the variable `{variable}` has no value"),
                    (None, None) => "it is not understood".to_owned(),
                };
                remarks.warn(format!("{}: what signs in is not used: {why}", entry.set_by));
                return None;
            }
            // Either what follows the last slash, or the slash itself.
            let end = key.trim_end_matches(|letter| letter != '/').len();
            key.truncate(if end == key.len() { end - 1 } else { end });
        }
        None
    }

    /// Authorities that npm trusts, by file or as they are.
    pub(in super::super) fn authorities(
        &self,
        environment: &Environment,
        remarks: &mut Remarks,
    ) -> (Vec<PathBuf>, Vec<String>) {
        if let Some(entry) = self.get("strict-ssl").filter(|entry| entry.value == "false") {
            remarks.warn(format!(
                "{}: `strict-ssl=false` is not followed: certificates are always checked; name the authority with `cafile`",
                entry.set_by
            ));
        }
        let mut files = Vec::new();
        if let Some(entry) = self.get("cafile").filter(|entry| !matches!(entry.value.as_str(), "" | "null")) {
            let path = absolute(&entry.value, environment).unwrap_or_else(|| entry.value.clone().into());
            files.extend(authority(&path, &entry.set_by, remarks));
        }
        let set =
            self.all("ca").into_iter().filter(|entry| entry.value.contains("-----BEGIN CERTIFICATE-----"));
        (files, set.map(|entry| entry.value.clone()).collect())
    }

    pub(in super::super) fn proxies(&self, remarks: &mut Remarks) -> Proxies {
        let mut proxy = |key: &str| {
            let entry = self
                .get(key)
                .filter(|entry| !matches!(entry.value.as_str(), "" | "false" | "null"))
                .filter(|entry| entry.unset.is_none())?;
            match parse_proxy(&entry.value) {
                Ok(url) => Some(url),
                Err(error) => {
                    remarks.warn(format!("{}: this proxy is not used: {error}", entry.set_by));
                    None
                }
            }
        };
        let (http, https) = (proxy("proxy"), proxy("https-proxy"));
        let exceptions: Vec<&str> = self.all("noproxy").iter().map(|entry| entry.value.as_str()).collect();
        Proxies {
            http: http.clone().or_else(|| https.clone()),
            https: https.or(http),
            exceptions: (!exceptions.is_empty()).then(|| exceptions.join(",")),
        }
    }
}

fn of_variables(environment: &Environment) -> Layer {
    let entry = |(name, value): (&std::ffi::OsStr, &std::ffi::OsStr)| {
        let (name, value) = (name.to_str()?, value.to_str().filter(|value| !value.is_empty())?);
        let prefix = "npm_config_";
        let key = name
            .get(..prefix.len())
            .filter(|start| start.eq_ignore_ascii_case(prefix))
            .map(|_| &name[prefix.len()..])?;
        let key = match key.strip_prefix('_') {
            _ if key.starts_with("//") => key.to_owned(),
            Some(rest) => format!("_{}", rest.replace('_', "-").to_lowercase()),
            None => key.replace('_', "-").to_lowercase(),
        };
        let (value, unset) = expanded(value, environment);
        Some(Entry { key, value, is_list: false, set_by: name.to_owned(), unset })
    };
    environment.variables().filter_map(entry).collect()
}

fn of_file(path: &Path, environment: &Environment, remarks: &mut Remarks) -> Layer {
    let text = match files::read(path, Links::Follow) {
        Ok(text) => text.unwrap_or_default(),
        Err(error) => {
            remarks.warn(format!("{} is not used: {error}", path.display()));
            return Layer::new();
        }
    };
    ini::parse(&text)
        .into_iter()
        .map(|item| {
            let (value, unset) = expanded(item.value.trim(), environment);
            Entry {
                key: expanded(&item.key, environment).0,
                value,
                is_list: item.is_list,
                set_by: format!("{}:{}", path.display(), item.line),
                unset,
            }
        })
        .collect()
}

/// Where the machine's `npmrc` is, unless npm is told.
fn prefix(environment: &Environment) -> Option<PathBuf> {
    environment.path("PREFIX").or_else(|| {
        let node = environment.program("node")?.canonicalize().ok()?;
        Some(node.parent()?.parent()?.to_owned())
    })
}

/// `~/` is the home; npm would look for relative paths in the app.
fn absolute(text: &str, environment: &Environment) -> Option<PathBuf> {
    let path = match text.strip_prefix("~/") {
        Some(rest) => environment.home()?.join(rest),
        None => PathBuf::from(text),
    };
    path.is_absolute().then_some(path)
}

fn decoded(text: &str) -> Option<String> {
    String::from_utf8(STANDARD.decode(text).ok()?).ok()
}

fn basic((user, password): (&str, &str)) -> Credentials {
    Credentials::Basic { user: user.to_owned(), password: Secret::new(password) }
}

/// Puts values of variables in: `${NAME}`, or `${NAME?}` for nothing when there
/// is none. Backslashes before it guard it. Also gives the first one without a value.
fn expanded(text: &str, environment: &Environment) -> (String, Option<String>) {
    let mut result = String::new();
    let mut unset = None;
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let (before, from) = rest.split_at(start);
        let name = from[2..].split_once('}').map(|(name, _)| name).unwrap_or_default();
        let (bare, is_optional) = match name.strip_suffix('?') {
            Some(bare) => (bare, true),
            None => (name, false),
        };
        if bare.is_empty() || bare.contains(['$', '{', '?']) {
            result.push_str(before);
            result.push_str("${");
            rest = &from[2..];
            continue;
        }
        let plain = before.trim_end_matches('\\');
        let guards = before.len() - plain.len();
        let whole = &from[..name.len() + 3];
        result.push_str(plain);
        result.extend(std::iter::repeat_n('\\', guards / 2));
        match environment.text(bare) {
            _ if guards % 2 == 1 => result.push_str(whole),
            Some(value) => result.push_str(value),
            None if is_optional => {}
            None => {
                result.push_str(whole);
                unset.get_or_insert_with(|| bare.to_owned());
            }
        }
        rest = &from[whole.len()..];
    }
    result.push_str(rest);
    (result, unset)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Settings of scopes: npm takes them as they are. Each key is there once, or meant twice.
    const FILES: [&str; 2] = [
        "@plain:registry=https://a.example\n\
         @spaces:registry =   https://a.example  \n\
         \t@tab:registry\t=\thttps://a.example\t\n\
         @comment:registry=https://a.example ; not this\n\
         @hash:registry=https://a.example/#not-this\n\
         @guarded:registry=https://a.example/\\#this\\;too\\\\\\x\\\n\
         @double:registry=\"https://a.example/#this\"\n\
         @single:registry='https://a.example/;this'\n\
         @json:registry=\"a\\nb\"\n\
         @nested:registry='\"x\"'\n\
         @open:registry=\"a\n\
         @quote:registry=\"\n\
         @apostrophe:registry='\n\
         @number:registry='12'\n\
         \"@key:registry\"=https://a.example\n\
         @equals:registry=a=b=c\n\
         @empty:registry=\n\
         @bare:registry\n\
         @true:registry=true\n\
         ; @semicolon:registry=x\n\
         # @number-sign:registry=x\n\
         = x\n\
         @twice:registry=1\n\
         @twice:registry=2\n\
         @carriage:registry=1\r@return:registry=2\r\n\
         @variable:registry=${SET}/x\n\
         @two:registry=${SET}${SET}\n\
         @unset:registry=${NOT_SET}\n\
         @optional:registry=a${NOT_SET?}b${SET?}c\n\
         @guard:registry=\\${SET}\n\
         @guards:registry=\"\\\\\\\\${SET}\"\n\
         @three:registry=\"\\\\\\\\\\\\${SET}\"\n\
         @odd:registry=${}${S${SET}}$SET {SET}\n\
         @${SET}:registry=in-the-key\n\
         [section] ; with a comment is none\n\
         @after:registry=x\n\
         [section]\n\
         @below:registry=x\n",
        "\u{feff}@mark:registry=1\n@quoted:registry='${SET}'\n",
    ];

    fn environment(home: &Path, path: &str) -> Environment {
        let home = home.display().to_string();
        let variables = [
            ("HOME", home.as_str()),
            ("PATH", path),
            ("SET", "value"),
            ("npm_config_@variable_name:registry", "dashed"),
            ("NPM_CONFIG_@LOUD:registry", "quiet"),
            ("npm_config_@nothing:registry", ""),
            ("npm_config_@in:registry", "${SET}"),
        ];
        Environment::of(Path::new(&home), &variables)
    }

    #[test]
    fn settings_are_read_as_npm_reads_them() {
        let path = std::env::var("PATH").unwrap();
        let temp = tempfile::tempdir().unwrap();
        for text in FILES {
            std::fs::write(temp.path().join(".npmrc"), text).unwrap();
            let environment = environment(temp.path(), &path);
            let npm = Npm::read(&environment, &mut Remarks::default());
            let mut keys: Vec<String> = text
                .split([';', '#', '\n', '\r', '='])
                .map(|word| word.trim().trim_matches('"').replace("${SET}", "value"))
                .filter(|word| word.starts_with('@'))
                .collect();
            keys.extend(
                ["@variable-name:registry", "@loud:registry", "@nothing:registry", "@in:registry"]
                    .map(str::to_owned),
            );
            keys.sort();
            keys.dedup();
            let ran = Command::new("npm")
                .args(["config", "get", "--location=global"])
                .args(&keys)
                .current_dir(temp.path())
                .env_clear()
                .envs(environment.variables())
                .output();
            let Ok(ran) = ran else {
                println!("SKIPPED: npm is not installed");
                return;
            };
            assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
            let said = String::from_utf8(ran.stdout).unwrap();
            let value = |key: &String| npm.get(key).map_or("undefined", |entry| &entry.value);
            let ours: Vec<String> = keys.iter().map(|key| format!("{key}={}", value(key))).collect();
            assert_eq!(ours.join("\n") + "\n", said);
        }
    }

    /// By hand, for machines without npm.
    #[test]
    fn variables_are_put_in_where_nothing_guards_them() {
        let environment = environment(Path::new("/home"), "");
        for (text, expected, unset) in [
            ("a${SET}b", "avalueb", None),
            ("${NOT_SET}${OTHER}", "${NOT_SET}${OTHER}", Some("NOT_SET")),
            ("${NOT_SET?}", "", None),
            ("\\${SET}", "${SET}", None),
            ("\\\\${SET}", "\\value", None),
            ("${S${SET}}${", "${Svalue}${", None),
        ] {
            assert_eq!(
                expanded(text, &environment),
                (expected.to_owned(), unset.map(str::to_owned)),
                "{text}"
            );
        }
    }
}
