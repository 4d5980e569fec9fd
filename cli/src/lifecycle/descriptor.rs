//! What the lifecycle says about itself, for builders.

use wapack_runtime::cnb::api::{ApiVersion, PlatformApi};

/// The version that platforms see. They choose what to ask for by the numbers of the
/// reference lifecycle, so it starts with that of the one whose behaviour this has; and
/// they make the tag of an image of it, which cannot have a `+`.
pub(super) const VERSION: &str = concat!("0.21.17-wapack.", env!("CARGO_PKG_VERSION"));

/// `lifecycle.toml`.
///
/// # Spec
/// CLI-13; `[api]` is what it was before there were lists.
pub(super) fn toml() -> String {
    let buildpack = versions(ApiVersion::SUPPORTED_BUILDPACK_APIS);
    let platform = versions(PlatformApi::SUPPORTED);
    let (oldest_buildpack, oldest_platform) = (&buildpack[0], &platform[0]);
    format!(
        "[apis]\n[apis.buildpack]\n  deprecated = []\n  supported = {buildpack:?}\n\
         [apis.platform]\n  deprecated = []\n  supported = {platform:?}\n\n\
         [api]\n  platform = {oldest_platform:?}\n  buildpack = {oldest_buildpack:?}\n\n\
         [lifecycle]\n  version = {VERSION:?}"
    )
}

/// Every version of a range; they only differ in their minor number.
fn versions(range: std::ops::RangeInclusive<ApiVersion>) -> Vec<String> {
    (range.start().minor..=range.end().minor).map(|minor| ApiVersion::zero(minor).to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cli_13_the_descriptor_names_version_and_apis() {
        let expected = format!(
            r#"[apis]
[apis.buildpack]
  deprecated = []
  supported = ["0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "0.9", "0.10", "0.11", "0.12"]
[apis.platform]
  deprecated = []
  supported = ["0.7", "0.8", "0.9", "0.10", "0.11", "0.12", "0.13", "0.14", "0.15"]

[api]
  platform = "0.7"
  buildpack = "0.2"

[lifecycle]
  version = "0.21.17-wapack.{}""#,
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(toml(), expected);
    }
}
