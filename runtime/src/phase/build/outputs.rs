//! What one buildpack returned, taken over: the one implementation of the semantics, for
//! components and classic buildpacks alike.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::in_place;
use super::layer_files::{BadLayer, merge, write_environment};
use super::{BuildError, BuildPhaseRequest, CHANGES, Progress, stored};
use crate::catalog::Buildpack;
use crate::cnb::env::{LayerEnvironment, LayerRoots};
use crate::cnb::id::{BuildpackRef, ProcessType};
use crate::cnb::layer::LayerTypes;
use crate::executor::{
    AppLink, BuildInputs, BuildOutputs, GuestFailure, LayerContents, LayerOutput, Mount, StoreOutput,
};
use crate::network::Artifact;
use crate::phase::values::{Built, BuiltBuildpack, BuiltContents, BuiltLayer, KeptContents, KeptLayer};
use crate::store::CachedLayer;
use crate::tree::Tree;
use crate::workspace::Workspace;

/// BLD-07: after each success, layers first, then environment, then the rest.
///
/// `settled` is where records become files. Returns the process type that is no
/// longer the default.
#[expect(clippy::too_many_arguments, reason = "each is one of the values the phase takes or carries on")]
pub(super) fn take_outputs(
    request: &BuildPhaseRequest<'_>,
    buildpack: &Buildpack,
    inputs: &BuildInputs,
    mut outputs: BuildOutputs,
    fetched: &BTreeSet<Artifact>,
    cached: &[CachedLayer],
    settled: Option<&Path>,
    workspace: &mut Workspace,
    progress: &mut Progress,
) -> Result<Option<ProcessType>, BuildError> {
    let reference = &buildpack.reference;
    let failed = |source| BuildError::Io { buildpack: reference.clone(), source };
    check_unmet(reference, inputs, &outputs.unmet)?;
    progress.outcome.built.artifacts.add(Some(fetched));
    let mut environments = Vec::new();
    for layer in std::mem::take(&mut outputs.layers) {
        take_sboms(reference, &layer, &mut progress.outcome.built);
        if layer.types == LayerTypes::default() || layer.contents == LayerContents::Nowhere {
            continue;
        }
        if let Some(directory) = settled.filter(|_| layer.contents == LayerContents::Kept) {
            // Whether the last image has it is the exporter's to see.
            in_place::settle_layer(directory, &layer).map_err(failed)?;
            continue;
        }
        let (mut contents, mut kept) = layer_contents(request, reference, inputs, &layer, cached)?;
        if let Some(directory) = settled {
            let place = directory.join(layer.name.as_str());
            in_place::settle_contents(&place, &mut contents).map_err(failed)?;
            in_place::settle_layer(directory, &layer).map_err(failed)?;
            kept = KeptContents::Fresh(place);
        }
        if layer.types.build
            && let Some(directory) = host_directory(&contents, &layer, cached)
        {
            let roots = roots_of(&directory, layer.contents == LayerContents::InPlace);
            environments.push((layer.name.clone(), roots, layer.environment.clone()));
            progress.visible.push(Mount {
                guest_path: workspace.places.layer(&reference.id, &layer.name),
                lower: Some(directory),
                upper: None,
                writable: false,
                hidden: Vec::new(),
            });
        }
        let artifacts = artifacts_of(&layer, &kept, fetched, cached);
        progress.outcome.built.artifacts.add(artifacts.as_ref());
        progress.outcome.kept.push(KeptLayer {
            cache_key: layer.cache_key.clone(),
            sboms: layer.sboms.clone(),
            artifacts,
            contents: kept,
        });
        progress.outcome.built.layers.push(BuiltLayer {
            buildpack: reference.clone(),
            name: layer.name,
            types: layer.types,
            metadata: layer.metadata,
            environment: layer.environment,
            contents,
        });
    }
    // ENV-15: the reference goes by the names of the files, and `-` is before `.`.
    environments.sort_by_key(|(name, _, _)| format!("{name}.toml"));
    let environments: Vec<LayerEnvironment<'_>> = environments
        .iter()
        .map(|(name, roots, changes)| LayerEnvironment {
            directory: workspace.places.layer(&reference.id, name),
            roots: *roots,
            changes,
        })
        .collect();
    progress.environment.add(&environments);
    let unmet: BTreeSet<&String> = outputs.unmet.iter().collect();
    progress
        .met
        .extend(inputs.plan.iter().map(|entry| &entry.name).filter(|name| !unmet.contains(name)).cloned());
    let store = match std::mem::take(&mut outputs.store) {
        StoreOutput::Unchanged => inputs.store.clone(),
        StoreOutput::Replaced(store) => Some(store),
        StoreOutput::Cleared => None,
    };
    if let Some(directory) = settled {
        in_place::settle(directory, &outputs, store.as_deref()).map_err(failed)?;
        for AppLink { path, layer, target } in std::mem::take(&mut outputs.app_links) {
            let layer = Path::new(&workspace.places.layer(&reference.id, &layer)).join(target);
            in_place::link(Path::new(&workspace.places.app), &path, &layer).map_err(failed)?;
        }
    }
    workspace.app.hidden.extend(outputs.app_hidden.into_iter().map(PathBuf::from));

    let built = &mut progress.outcome.built;
    let lost = built.processes.add(&reference.id, outputs.processes);
    built.slices.extend(outputs.slices);
    built.labels.extend(outputs.labels);
    let of_buildpack = |sbom| (reference.id.clone(), None, sbom);
    built.launch_sboms.extend(outputs.launch_sboms.into_iter().map(of_buildpack));
    built.build_sboms.extend(outputs.build_sboms.into_iter().map(of_buildpack));
    let by = |entry| (reference.clone(), entry);
    built.launch_bom.extend(outputs.launch_bom.into_iter().map(by));
    built.build_bom.extend(outputs.build_bom.into_iter().map(by));
    built.app_links.extend(outputs.app_links.into_iter().map(|link| (reference.id.clone(), link)));
    built.buildpacks.push(BuiltBuildpack {
        reference: reference.clone(),
        api: buildpack.descriptor.api,
        homepage: Some(buildpack.descriptor.homepage.clone()).filter(|homepage| !homepage.is_empty()),
        store,
    });
    Ok(lost)
}

/// What was fetched for a layer: in this call, or when what is left of it was made.
fn artifacts_of(
    layer: &LayerOutput,
    kept: &KeptContents,
    fetched: &BTreeSet<Artifact>,
    cached: &[CachedLayer],
) -> Option<BTreeSet<Artifact>> {
    let is_new = matches!(layer.contents, LayerContents::Written | LayerContents::InPlace);
    if is_new {
        return Some(fetched.clone());
    }
    let before = cached.iter().find(|known| known.name == layer.name)?.artifacts.clone()?;
    match kept {
        KeptContents::Unchanged | KeptContents::Nothing => Some(before),
        // A change may have left anything of what was there.
        KeptContents::Fresh(_) => Some(before.union(fetched).cloned().collect()),
    }
}

/// UNM-05: only what was asked for can be unmet.
fn check_unmet(buildpack: &BuildpackRef, inputs: &BuildInputs, unmet: &[String]) -> Result<(), GuestFailure> {
    let is_given = |name: &&String| !name.is_empty() && inputs.plan.iter().any(|entry| entry.name == **name);
    match unmet.iter().find(|name| !is_given(name)) {
        None => Ok(()),
        Some(name) => Err(GuestFailure::BadOutput {
            buildpack: buildpack.clone(),
            message: format!("`{}` cannot be unmet: its plan has no such entry", name.escape_debug()),
        }),
    }
}

/// SBOM-04 to SBOM-06: of a layer for the image, or else of one for the build; of a
/// cached one besides.
fn take_sboms(buildpack: &BuildpackRef, layer: &LayerOutput, built: &mut Built) {
    for sbom in &layer.sboms {
        let (id, name) = (buildpack.id.clone(), layer.name.clone());
        if layer.types.cache {
            built.cache_sboms.push((id.clone(), name.clone(), sbom.clone()));
        }
        let of = if layer.types.launch { &mut built.launch_sboms } else { &mut built.build_sboms };
        of.push((id, Some(name), sbom.clone()));
    }
}

/// Finds out what is in a layer, and brings its environment files up to date.
fn layer_contents(
    request: &BuildPhaseRequest<'_>,
    buildpack: &BuildpackRef,
    inputs: &BuildInputs,
    layer: &LayerOutput,
    cached: &[CachedLayer],
) -> Result<(BuiltContents, KeptContents), BuildError> {
    let known = cached.iter().find(|known| known.name == layer.name);
    let stored = |layer: &CachedLayer| stored(layer, request.encoding);
    let directory = inputs.layers_work_directory.join(layer.name.as_str());
    let changes = inputs.layers_work_directory.join(format!("{}{CHANGES}", layer.name));
    let same_environment = known.is_some_and(|known| {
        in_place::comparable(&known.environment) == in_place::comparable(&layer.environment)
    });
    let bad = |error: BadLayer| match error {
        BadLayer::Io(source) => BuildError::Io { buildpack: buildpack.clone(), source },
        BadLayer::Cancelled(cancelled) => BuildError::Cancelled(cancelled),
        BadLayer::Refused(message) => BuildError::Guest(GuestFailure::BadOutput {
            buildpack: buildpack.clone(),
            message: format!("layer `{}` {message}", layer.name),
        }),
    };
    let tree = known.and_then(|known| known.tree.as_ref()).map(|tree| tree.path.clone());
    let untouched = match &layer.contents {
        LayerContents::Restored => true,
        // Asked for, but nothing was written in the end.
        LayerContents::Updated { hidden } => hidden.is_empty() && is_empty(&changes),
        LayerContents::Written | LayerContents::InPlace | LayerContents::Kept | LayerContents::Nowhere => {
            false
        }
    };
    match &layer.contents {
        LayerContents::Kept | LayerContents::Nowhere => {
            let contents = known.and_then(stored).ok_or_else(|| {
                bad(BadLayer::Refused("is to be kept, but the last image does not have it".to_owned()))
            })?;
            if !same_environment {
                return Err(bad(BadLayer::Refused(
                    "is kept without its contents, so its environment cannot change".to_owned(),
                )));
            }
            Ok((contents, KeptContents::Nothing))
        }
        LayerContents::InPlace => Ok((fresh(&directory), KeptContents::Fresh(directory))),
        LayerContents::Written => {
            write_environment(&directory, &layer.environment).map_err(bad)?;
            Ok((fresh(&directory), KeptContents::Fresh(directory)))
        }
        LayerContents::Restored | LayerContents::Updated { .. } if untouched && same_environment => {
            let contents = known
                .and_then(stored)
                .or_else(|| tree.map(|tree| fresh(&tree)))
                .ok_or_else(|| bad(BadLayer::Refused("was restored, but is gone".to_owned())))?;
            Ok((contents, KeptContents::Unchanged))
        }
        LayerContents::Restored | LayerContents::Updated { .. } => {
            let hidden = match &layer.contents {
                LayerContents::Updated { hidden } => hidden.iter().map(PathBuf::from).collect(),
                _ => BTreeSet::new(),
            };
            let upper = changes.exists().then_some(changes);
            merge(&Tree { lower: tree, upper, hidden }, &directory, request.cancel).map_err(bad)?;
            write_environment(&directory, &layer.environment).map_err(bad)?;
            Ok((fresh(&directory), KeptContents::Fresh(directory)))
        }
    }
}

fn fresh(directory: &Path) -> BuiltContents {
    BuiltContents::Fresh(Tree::of(directory))
}

fn is_empty(directory: &Path) -> bool {
    match fs::read_dir(directory) {
        Ok(mut entries) => entries.next().is_none(),
        Err(_) => true,
    }
}

/// Where later buildpacks find a build layer on the host.
fn host_directory(contents: &BuiltContents, layer: &LayerOutput, cached: &[CachedLayer]) -> Option<PathBuf> {
    match contents {
        BuiltContents::Fresh(tree) => tree.lower.clone().or_else(|| tree.upper.clone()),
        BuiltContents::Stored { .. } => {
            let known = cached.iter().find(|known| known.name == layer.name)?;
            Some(known.tree.as_ref()?.path.clone())
        }
    }
}

/// `is_host` when links in it mean what they say here.
fn roots_of(directory: &Path, is_host: bool) -> LayerRoots {
    let status = |path: PathBuf| if is_host { fs::metadata(path) } else { fs::symlink_metadata(path) };
    let has = |name: &str| status(directory.join(name)).is_ok_and(|metadata| metadata.is_dir());
    LayerRoots { bin: has("bin"), lib: has("lib"), include: has("include"), pkgconfig: has("pkgconfig") }
}
