//! What Go is set to: `GOPROXY`, a list of bases.

use wapack_runtime::network::parse_base;

use super::environment::Environment;
use super::files::{self, Links};
use super::found::{Found, Remarks};

/// The variable, or the file of `go env -w`.
pub(super) fn find(environment: &Environment, remarks: &mut Remarks) -> Option<Found> {
    if let Some(list) = environment.text("GOPROXY") {
        return of_list(list, "GOPROXY", remarks);
    }
    let path = match environment.text("GOENV") {
        Some("off") => return None,
        Some(_) => environment.path("GOENV")?,
        None => environment.config_home()?.join("go/env"),
    };
    let text = match files::read(&path, Links::Follow) {
        Ok(text) => text?,
        Err(error) => {
            remarks.warn(format!("{} is not used: {error}", path.display()));
            return None;
        }
    };
    let (line, list) = (1..)
        .zip(text.lines())
        .filter_map(|(number, line)| Some((number, line.trim().strip_prefix("GOPROXY=")?)))
        .last()?;
    of_list(list, &format!("{}:{line}", path.display()), remarks)
}

/// The first base, with the others as mirrors. After `direct`, Go would ask the
/// servers of the modules themselves; a source has one place.
pub(super) fn of_list(list: &str, set_by: &str, remarks: &mut Remarks) -> Option<Found> {
    let mut bases = list
        .split([',', '|'])
        .map(str::trim)
        .take_while(|base| !matches!(*base, "direct" | "off"))
        .filter(|base| !base.is_empty());
    let mut found = Found::of_tool(bases.next()?, set_by, remarks)?;
    // The credentials of one base are not for another; one that has its own is left out.
    let plain = bases.filter_map(|base| parse_base(base).ok()).filter(|(_, own)| own.is_none());
    if found.settings.credentials.is_none() {
        found.settings.mirrors = plain.map(|(base, _)| base).collect();
    }
    Some(found)
}
