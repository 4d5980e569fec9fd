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
];

wapack_test_guests::in_build!(|context| {
    let layer = scratch_layer(context)?;
    let canary = text(context, "CANARY", "/etc/hostname");
    for place in PLACES {
        let made = symlink(canary, context.layers.join(place));
        report(place, &made.map_err(|error| error.kind()));
    }
    fs::create_dir(layer.path().join("nested"))?;
    symlink(canary, layer.path().join("nested/PATH.append"))?;
    // The host writes its own files where the links are.
    let layer = layer.env(Scope::All, "CANARY", Operation::Override, "ours").sbom(Sbom::cyclonedx("{}"));
    Built::new().layer(layer).store(&std::collections::BTreeMap::from([("runs", 1)]))
});
