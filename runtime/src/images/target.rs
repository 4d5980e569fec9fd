//! The target that an image is for, as `analyzed.toml` has it.

use crate::cnb::analyzed_toml::TargetRecord;
use crate::cnb::target::Target;
use crate::oci::image::ImageConfiguration;

/// Label with the id of a base image.
const BASE_ID: &str = "io.buildpacks.base.id";

/// What an image says of the system it is for.
///
/// # Spec
/// TGT-01, TGT-11.
#[must_use]
pub fn target_of(configuration: &ImageConfiguration) -> TargetRecord {
    let labels = &configuration.config.labels;
    let (os, arch) = (&configuration.os, &configuration.architecture);
    let target = Target::of_image(os, arch, configuration.variant.as_deref(), labels);
    let mut record = TargetRecord::from(&target);
    record.id = labels.get(BASE_ID).cloned().unwrap_or_default();
    record
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cnb::target::Distro;

    #[test]
    fn tgt_01_the_target_is_what_configuration_and_labels_say() {
        let configuration: ImageConfiguration = serde_json::from_value(serde_json::json!({
            "architecture": "arm64", "os": "linux", "variant": "v8",
            "config": {"Labels": {
                "io.buildpacks.base.id": "acme.base",
                "io.buildpacks.base.distro.name": "debian",
                "io.buildpacks.base.distro.version": "12"
            }},
            "rootfs": {"type": "layers", "diff_ids": []}
        }))
        .unwrap();
        let target = target_of(&configuration);
        assert_eq!(
            (target.id.as_str(), target.os.as_str(), target.arch.as_str()),
            ("acme.base", "linux", "arm64")
        );
        assert_eq!(target.arch_variant, "v8");
        assert_eq!(target.distro, Some(Distro { name: "debian".into(), version: "12".into() }));
    }
}
