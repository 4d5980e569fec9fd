//! Seals: what tells that restored layers are still what was unpacked.
//!
//! Between restoring and exporting, buildpacks run as the same user and may change
//! anything. But nobody can change a file, its name or its mode and give it back its
//! time of change. So each restored layer is looked at before they run and after: when
//! every entry is the same inode with the same size and times, its tar would be the one
//! that it was unpacked from, every byte of which was verified then. It is not read,
//! archived or hashed again.
//!
//! A process that still has a file open and mapped from before the first look could
//! write to it unseen. What then counts are the verified bytes, not what it wrote.
//!
//! # Spec
//! CAC-05: the digest of what is taken over was checked when it was unpacked.

use std::path::Path;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::each::each;
use super::restorer::Unpacked;
use crate::cancel::Cancel;
use crate::oci::layer::Owner;
use crate::phase::export::{DirectoryLook, KnownDiffIds};
use crate::tree::TreeLimits;
use crate::workspace::Places;

/// File systems of Linux itself that keep times of change to the tick of the clock, by
/// their magic numbers: ext, XFS, Btrfs, tmpfs, overlay. Others may have a clock of
/// their own, on another machine.
const HONEST: [i128; 5] = [0xEF53, 0x5846_5342, 0x9123_683E, 0x0102_1994, 0x794C_7630];
/// Far longer than a tick of the clock; then it does not go by the time of the files.
const PATIENCE_TICKS: u32 = 50;

/// Layers that were looked at before buildpacks ran.
#[derive(Debug, Default)]
pub(super) struct Seals<'a> {
    layers: Vec<(Unpacked, DirectoryLook)>,
    context: Option<Context<'a>>,
}

#[derive(Debug, Clone, Copy)]
struct Context<'a> {
    places: &'a Places,
    /// Of everything in a layer of the image.
    owner: Owner,
    cancel: &'a Cancel,
}

impl<'a> Seals<'a> {
    /// Looks at layers that were just restored. One whose tar would come out otherwise
    /// than it was, for another owner or from another program, gets no seal.
    pub(super) fn take(
        restored: Vec<Unpacked>,
        places: &'a Places,
        owner: Owner,
        cancel: &'a Cancel,
    ) -> Self {
        let context = Context { places, owner, cancel };
        if restored.is_empty() || !has_honest_times(Path::new(&places.layers)) {
            return Self::default();
        }
        let looks = each(&restored, |layer| {
            let look = context.look(layer)?;
            look.outline().is_ok_and(|outline| outline == layer.outline).then_some(look)
        });
        let layers: Vec<_> =
            restored.into_iter().zip(looks).filter_map(|(layer, look)| Some((layer, look?))).collect();
        let changes = layers.iter().map(|(_, look)| look.last_change().unwrap_or_default());
        if changes.clone().any(|(_, nanoseconds)| nanoseconds == 0) || !wait_until_past(changes.max()) {
            return Self::default();
        }
        Self { layers, context: Some(context) }
    }

    /// The digests of the layers that nothing has touched since.
    pub(super) fn unbroken(self) -> KnownDiffIds {
        let Some(context) = self.context else { return KnownDiffIds::new() };
        let unbroken =
            each(&self.layers, |(layer, then)| context.look(layer).is_some_and(|now| now == *then));
        let layers = self.layers.into_iter().zip(unbroken).filter(|(_, is_unbroken)| *is_unbroken);
        layers.map(|((layer, _), _)| ((layer.buildpack, layer.layer), layer.diff_id)).collect()
    }
}

impl Context<'_> {
    fn look(&self, layer: &Unpacked) -> Option<DirectoryLook> {
        let path = self.places.layer(&layer.buildpack, &layer.layer);
        DirectoryLook::at(&path, self.owner, TreeLimits::default(), self.cancel).ok().flatten()
    }
}

fn has_honest_times(directory: &Path) -> bool {
    // Its type is not the same with every C library.
    let magic = rustix::fs::statfs(directory).map(|found| i128::from(found.f_type));
    magic.is_ok_and(|magic| HONEST.contains(&magic))
}

/// Waits for the clock that files get their times from to move on, so that whatever
/// is changed from now on has a later time; `false` when it does not.
fn wait_until_past(change: Option<(i64, u64)>) -> bool {
    let Some(change) = change else { return true };
    for _ in 0..PATIENCE_TICKS {
        let now = clock_gettime(ClockId::RealtimeCoarse);
        if (now.tv_sec, u64::try_from(now.tv_nsec).unwrap_or(0)) > change {
            return true;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    false
}

#[cfg(test)]
mod tests;
