//! `wapack cache du`, `gc` and `clear`, and what a build does so that nobody has to.

use std::time::SystemTime;

use serde_json::{Value, json};
use wapack_runtime::limits::show_bytes;
use wapack_runtime::policy::Policy;
use wapack_runtime::store::{Collected, CollectionGoal, Store, StoreKind, StoreUsage};
use wapack_runtime::text::harmless;

use super::build::TENANT;
use crate::args::{CacheArguments, CacheClearArguments, CacheCommand, CacheGcArguments, CachePlaceArguments};
use crate::directories;
use crate::failure::{Failure, InputError};
use crate::image_name::ImageName;
use crate::output::Output;

pub(crate) fn run(arguments: &CacheArguments, output: &mut Output) -> Result<u8, Failure> {
    match &arguments.command {
        CacheCommand::Du(place) => du(place, output)?,
        CacheCommand::Gc(arguments) => gc(arguments, output)?,
        CacheCommand::Clear(arguments) => clear(arguments, output)?,
    }
    Ok(0)
}

/// Gets the store below what the policy allows, at the end of a build, if it may be above.
pub(super) fn keep_under_cap(store: &Store, policy: &Policy, output: &mut Output) {
    let cap = policy.store.max_bytes;
    match store.keep_under(cap) {
        Ok(None) => {}
        Ok(Some(collected)) => {
            // A look that only finds what a killed build left is nobody's news.
            if collected.pieces > 0 && collected.freed_bytes + collected.left_bytes > cap / 10 * 9 {
                output.note(&format!("the cache was near {}: {}", show_bytes(cap), shown(&collected)));
            }
        }
        Err(error) => output.warning(&format!("the cache may grow beyond {}: {error}", show_bytes(cap))),
    }
}

fn du(place: &CachePlaceArguments, output: &mut Output) -> Result<(), Failure> {
    let (store, policy) = open(place, output)?;
    let usage = store.usage();
    let cap = policy.store.max_bytes;
    if place.json || output.is_json() {
        output.document(&usage_json(&store, &usage, cap));
        return Ok(());
    }
    for (kind, of_kind) in &usage.kinds {
        let size = show_bytes(of_kind.bytes);
        output.line(&format!("{:<10}  {size:>10}  {}", kind.name(), explained(*kind)));
    }
    let total = show_bytes(usage.bytes());
    output.line(&format!("{:<10}  {total:>10}  of {} that the policy allows", "total", show_bytes(cap)));
    if !usage.images.is_empty() {
        let width = usage.images.iter().map(|image| image.image.chars().count()).max().unwrap_or_default();
        output.line(&format!("\n{:<width$}  {:>10}  {:>10}  last used", "image", "trees", "layers"));
    }
    let width = usage.images.iter().map(|image| image.image.chars().count()).max().unwrap_or_default();
    for image in &usage.images {
        let (trees, layers) = (show_bytes(image.tree_bytes), show_bytes(image.layer_bytes));
        let name = harmless(&image.image);
        output.line(&format!("{name:<width$}  {trees:>10}  {layers:>10}  {}", ago(image.last_used)));
    }
    Ok(())
}

fn gc(arguments: &CacheGcArguments, output: &mut Output) -> Result<(), Failure> {
    let (store, policy) = open(&arguments.place, output)?;
    let keep_bytes = arguments.keep_bytes.map_or(policy.store.max_bytes, |bytes| bytes.0);
    let mut goal = CollectionGoal::keep(keep_bytes);
    goal.max_age = arguments.max_age.map(|age| age.0);
    let collected = store.collect(&goal)?;
    tell(&arguments.place, &collected, output);
    Ok(())
}

fn clear(arguments: &CacheClearArguments, output: &mut Output) -> Result<(), Failure> {
    let name = arguments.image.as_deref().map(str::parse::<ImageName>).transpose()?;
    let (store, _) = open(&arguments.place, output)?;
    let collected = match name {
        None => store.collect(&CollectionGoal::nothing())?,
        Some(name) => clear_image(&store, name.to_string())?,
    };
    tell(&arguments.place, &collected, output);
    Ok(())
}

/// Forgets what is kept for an image, for this system and for others.
fn clear_image(store: &Store, image: String) -> Result<Collected, Failure> {
    let kept = store.usage().images.into_iter().map(|kept| kept.image);
    let others = kept.filter(|kept| kept.strip_prefix(&image).is_some_and(|rest| rest.starts_with(' ')));
    let mut cleared: Option<Collected> = None;
    for name in others.chain([image.clone()]) {
        let Some(this) = store.clear_image(TENANT, &name)? else { continue };
        cleared = Some(match cleared {
            None => this,
            Some(before) => Collected {
                pieces: before.pieces + this.pieces,
                freed_bytes: before.freed_bytes + this.freed_bytes,
                in_use: before.in_use + this.in_use,
                ..this
            },
        });
    }
    Ok(cleared.ok_or(InputError::NothingKept { image })?)
}

fn open(place: &CachePlaceArguments, output: &mut Output) -> Result<(Store, Policy), Failure> {
    let (policy, _) = Policy::load(&directories::policy_files(place.policy.as_deref()))?;
    let directory = directories::cache(place.cache_dir.as_deref())?;
    // Nobody wants a cache for having asked about one.
    if !Store::is_at(&directory) {
        return Err(InputError::NoCache { path: directory }.into());
    }
    let (store, warnings) = Store::open(&directory)?;
    for warning in warnings {
        output.warning(&warning);
    }
    Ok((store, policy))
}

fn tell(place: &CachePlaceArguments, collected: &Collected, output: &mut Output) {
    if place.json || output.is_json() {
        let Collected { pieces, freed_bytes, left_bytes, in_use } = collected;
        output.document(
            &json!({ "pieces": pieces, "freed_bytes": freed_bytes, "left_bytes": left_bytes, "in_use": in_use }),
        );
    } else {
        output.line(&shown(collected));
    }
}

fn shown(collected: &Collected) -> String {
    let Collected { freed_bytes, left_bytes, in_use, .. } = collected;
    let in_use = match in_use {
        0 => String::new(),
        1 => "; 1 thing is in use and stays".to_owned(),
        more => format!("; {more} things are in use and stay"),
    };
    format!("{} freed, {} left{in_use}", show_bytes(*freed_bytes), show_bytes(*left_bytes))
}

fn usage_json(store: &Store, usage: &StoreUsage, cap: u64) -> Value {
    let seconds =
        |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let kinds = usage.kinds.iter().map(|(kind, of_kind)| {
        (kind.name().to_owned(), json!({ "bytes": of_kind.bytes, "pieces": of_kind.pieces }))
    });
    let images = usage.images.iter().map(|image| {
        json!({
            "image": image.image,
            "tree_bytes": image.tree_bytes,
            "layer_bytes": image.layer_bytes,
            "last_used": seconds(image.last_used),
        })
    });
    json!({
        "directory": store.root().display().to_string(),
        "bytes": usage.bytes(),
        "max_bytes": cap,
        "kinds": kinds.collect::<serde_json::Map<_, _>>(),
        "images": images.collect::<Vec<_>>(),
    })
}

fn explained(kind: StoreKind) -> &'static str {
    match kind {
        StoreKind::Images => "trees of the layers of images",
        StoreKind::Documents => "bills of materials",
        StoreKind::Layers => "compressed layers",
        StoreKind::Notes => "what was found out of files",
        StoreKind::Compiled => "compiled buildpacks",
        StoreKind::Builders => "unpacked builders",
        StoreKind::Downloads => "files of sources",
        StoreKind::Unused => "what nothing refers to",
        StoreKind::Work => "running builds, and directories that were to be kept",
    }
}

/// How long ago, roughly; a time from the future is now.
fn ago(time: SystemTime) -> String {
    let seconds = time.elapsed().map_or(0, |elapsed| elapsed.as_secs());
    let (count, unit) = match seconds {
        0..60 => return "just now".to_owned(),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
}
