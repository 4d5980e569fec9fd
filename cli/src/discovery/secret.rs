//! From where a policy says a secret is, to the secret.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use wapack_runtime::network::{Credentials, Secret};
use wapack_runtime::policy::{SecretPlace, SignIn};

use super::environment::Environment;
use super::files::{self, Links};
use super::found::Remarks;
use crate::failure::SecretError;

/// How to sign in, and who says so.
pub(super) fn credentials(
    sign_in: &SignIn,
    environment: &Environment,
    remarks: &mut Remarks,
) -> Result<(Credentials, String), SecretError> {
    Ok(match sign_in {
        SignIn::Token(place) => {
            let (secret, set_by) = secret(place, environment, remarks)?;
            (Credentials::Bearer(secret), set_by)
        }
        SignIn::Password { user, password } => {
            let (password, set_by) = secret(password, environment, remarks)?;
            (Credentials::Basic { user: user.clone(), password }, set_by)
        }
    })
}

fn secret(
    place: &SecretPlace,
    environment: &Environment,
    remarks: &mut Remarks,
) -> Result<(Secret, String), SecretError> {
    match place {
        SecretPlace::Variable(name) => {
            let text = environment.text(name).ok_or_else(|| SecretError::Unset { name: name.clone() })?;
            Ok((Secret::new(text.trim()), format!("the variable `{name}`")))
        }
        SecretPlace::File(path) => {
            let text = of_file(path)?;
            if is_open_to_all(path) {
                remarks
                    .warn(format!("everybody on this machine can read the secret in `{}`", path.display()));
            }
            Ok((Secret::new(text), format!("`{}`", path.display())))
        }
    }
}

/// The only line of a file.
fn of_file(path: &Path) -> Result<String, SecretError> {
    let unusable = |source| SecretError::File { path: path.to_owned(), source };
    let text = files::read(path, Links::Follow)
        .and_then(|text| text.ok_or_else(|| std::io::ErrorKind::NotFound.into()))
        .map_err(unusable)?;
    let line = text.trim();
    if line.is_empty() || line.contains(char::is_control) {
        return Err(unusable(std::io::Error::other("it does not have one line")));
    }
    Ok(line.to_owned())
}

fn is_open_to_all(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}
