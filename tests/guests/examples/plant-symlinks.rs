//! G12: leaves links to `CANARY`, a path outside, wherever a host might look
//! for a buildpack's output.

use wapack_sdk::{Built, Operation, Sbom, Scope, fs};
use wapack_test_guests::{report, scratch_layer, symlink, text};

/// Relative to the layers directory; the layer is called `scratch`.
const PLACES: &[&str] = &[
    "launch.toml",
    "build.toml",
    "store.toml",
    "scratch.toml",
    "launch.sbom.cdx.json",
    "build.sbom.cdx.json",
    "scratch.sbom.cdx.json",
    "sbom",
    "other",
    "scratch/env",
    "scratch/env.build",
    "scratch/env.launch",
    "scratch/exec.d",
    "scratch/profile.d",
    "scratch/bin",
    "scratch/file",
    "scratch/nested/PATH.append",
];

wapack_test_guests::in_build!(|context| {
    let layer = scratch_layer(context)?;
    fs::create_dir(layer.path().join("nested"))?;
    let canary = text(context, "CANARY", "/etc/hostname");
    // An absolute link may be refused where a relative one is not, and leads to the same.
    let relative = format!("../../../../../../../../../../..{canary}");
    for place in PLACES {
        let link = context.layers.join(place);
        let made = symlink(canary, &link).or_else(|_| symlink(&relative, &link));
        report(place, &made.map_err(|error| error.kind()));
    }
    // The host writes its own files where the links are.
    let layer = layer.env(Scope::All, "CANARY", Operation::Override, "ours").sbom(Sbom::cyclonedx("{}"));
    Built::new().layer(layer).store(&std::collections::BTreeMap::from([("runs", 1)]))
});
