//! Processes that a shell starts, and the profile scripts that come before them.
//!
//! Both are older than direct processes (they left the spec with buildpack API
//! 0.9) and still in published images. One bash reads all profile scripts, then
//! makes way for a second one that runs the command.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::layers::{self, BuildpackLayers, Files};
use crate::process::{Process, Start};

/// The only shell that profile scripts may count on.
pub(crate) const BASH: &str = "/bin/bash";

/// Turns the positional parameters into words and runs them as one command.
///
/// Each is expanded as if it stood in double quotes: variables count, blanks
/// inside a value do not split, quotes in a value stay. The command substitution
/// keeps anything a word does from touching the others. A file is executed, so
/// that it takes this shell's place; a builtin or function is called.
const RUN_WORDS: &str = r#"
_expand() { local IFS=' '; printf %s "$*"; }
_words=()
for _word in "$@"; do _words+=("$(eval "_expand \"$_word\"")"); done
if [ "$(type -t -- "${_words[0]}")" = file ]; then exec -- "${_words[@]}"; fi
"${_words[@]}"
"#;

/// The script of the first bash, and its parameters: the command, and what it is given. Its
/// `$0` is the launcher's own name. Profile scripts see, and may change, all of them.
pub(crate) fn script<'a>(
    process: &'a Process,
    layers: &[BuildpackLayers],
    app_directory: &Path,
) -> Result<(OsString, Vec<&'a OsStr>), Failure> {
    let profiles = profiles(layers, process.process_type.as_deref(), app_directory)?;
    let script = script_of(&profiles, &process.working_directory, &process.start);
    Ok((script, parameters_of(&process.start)))
}

/// Every profile script, in the order they are read.
fn profiles(
    layers: &[BuildpackLayers],
    process_type: Option<&str>,
    app_directory: &Path,
) -> Result<Vec<PathBuf>, Failure> {
    let mut profiles = Vec::new();
    for layer in layers.iter().flat_map(|buildpack| &buildpack.layers) {
        let directory = layer.join("profile.d");
        let Files { files, has_own } = layers::files(&directory, process_type)?;
        profiles.extend(files);
        if let Some(process_type) = process_type.filter(|_| has_own) {
            profiles.extend(layers::files(&directory.join(process_type), None)?.files);
        }
    }
    let of_app = app_directory.join(".profile");
    if of_app.is_file() {
        profiles.push(of_app);
    }
    Ok(profiles)
}

fn script_of(profiles: &[PathBuf], working_directory: &Path, start: &Start) -> OsString {
    let mut script = Vec::new();
    for profile in profiles {
        script.extend_from_slice(b"source ");
        quote(&mut script, profile.as_os_str());
        script.push(b'\n');
    }
    script.extend_from_slice(b"cd -- ");
    quote(&mut script, working_directory.as_os_str());
    script.extend_from_slice(b" || exit 82\nexec /bin/bash -c ");
    match start {
        Start::ShellWords(_) => {
            quote(&mut script, OsStr::new(RUN_WORDS));
            script.extend_from_slice(b" bash \"$@\"");
        }
        Start::ShellScript { .. } => script.extend_from_slice(b"\"$1\" bash \"${@:2}\""),
        Start::Direct { .. } => unreachable!("a direct process never reaches the shell"),
    }
    OsString::from_vec(script)
}

fn parameters_of(start: &Start) -> Vec<&OsStr> {
    match start {
        Start::ShellWords(words) => words.iter().map(OsString::as_os_str).collect(),
        Start::ShellScript { script, arguments } => {
            std::iter::once(script).chain(arguments).map(OsString::as_os_str).collect()
        }
        Start::Direct { .. } => unreachable!("a direct process never reaches the shell"),
    }
}

/// Adds `text` so that bash reads it back as it is.
fn quote(script: &mut Vec<u8>, text: &OsStr) {
    script.push(b'\'');
    for byte in text.as_bytes() {
        match byte {
            b'\'' => script.extend_from_slice(br"'\''"),
            byte => script.push(*byte),
        }
    }
    script.push(b'\'');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_come_first_and_names_are_quoted() {
        let start = Start::ShellScript { script: "echo 'a' b".into(), arguments: vec!["x y".into()] };
        assert_eq!(
            script_of(&["/layers/b/it's/profile.d/a.sh".into()], Path::new("/workspace"), &start),
            OsString::from(
                r#"source '/layers/b/it'\''s/profile.d/a.sh'
cd -- '/workspace' || exit 82
exec /bin/bash -c "$1" bash "${@:2}""#
            )
        );
        assert_eq!(parameters_of(&start), ["echo 'a' b", "x y"]);
    }
}
