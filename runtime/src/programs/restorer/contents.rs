//! Contents of layers: from the cache to disk, several layers at a time.

use std::collections::VecDeque;
use std::num::NonZero;
use std::sync::{Mutex, PoisonError};

use crate::cnb::id::BuildpackId;
use crate::oci::digest::{DiffId, Digest};
use crate::oci::unpack::{UnpackError, unpack};
use crate::programs::last_cache::{LastCache, layer_of};
use crate::programs::layers_dir::LayersDir;

/// A layer whose contents are wanted.
#[derive(Debug)]
pub(super) struct Wanted {
    pub buildpack: BuildpackId,
    pub layer: String,
    /// As the cache's metadata has it.
    pub sha: String,
}

/// Why a layer was not restored.
#[derive(Debug, thiserror::Error)]
pub(super) enum Miss {
    #[error("the cache does not have it")]
    Absent,
    #[error("it cannot be read")]
    Unreadable(#[source] std::io::Error),
    #[error("what the cache has is damaged")]
    Damaged(#[source] UnpackError),
    /// Nobody's fault but the machine's: the build ends.
    #[error("it cannot be written")]
    Machine(#[source] UnpackError),
}

impl From<UnpackError> for Miss {
    fn from(error: UnpackError) -> Self {
        if error.is_of_machine() { Self::Machine(error) } else { Self::Damaged(error) }
    }
}

/// Unpacks what is wanted; the outline of each tar, in order.
///
/// Reading and hashing have a thread for each layer that is at work, so that even a
/// single large layer keeps two cores busy.
pub(super) fn restore(
    cache: &LastCache<'_>,
    layers: &LayersDir,
    wanted: &[Wanted],
) -> Vec<Result<Digest, Miss>> {
    let Some(directory) = cache.directory() else {
        return wanted
            .iter()
            .map(|wanted| unpack_one(cache, layers, &wanted.sha, &place_of(wanted)))
            .collect();
    };
    let size = |wanted: &Wanted| {
        let diff_id = wanted.sha.parse().ok();
        diff_id.and_then(|diff_id| directory.layer(&diff_id).ok()?).map_or(0, |layer| layer.size())
    };
    // The largest first, so that none is left over at the end.
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by_key(|number| std::cmp::Reverse(size(&wanted[*number])));
    let queue = Mutex::new(VecDeque::from(order));
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let work = || {
        let mut done = Vec::new();
        while let Some(number) = next() {
            let Wanted { sha, .. } = &wanted[number];
            let result = match sha.parse::<DiffId>() {
                Err(_) => Err(Miss::Absent),
                Ok(diff_id) => match layer_of(directory, &diff_id) {
                    Ok(Some(tar)) => {
                        unpack(tar, layers.place(&place_of(&wanted[number]))).map_err(Miss::from)
                    }
                    Ok(None) => Err(Miss::Absent),
                    Err(error) => Err(Miss::Unreadable(error)),
                },
            };
            done.push((number, result));
        }
        done
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get).min(wanted.len());
    let mut results = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut results = work();
        for other in others {
            results.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        results
    });
    results.sort_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Unpacks the layer with this digest, only below `place`.
pub(super) fn unpack_one(
    cache: &LastCache<'_>,
    layers: &LayersDir,
    sha: &str,
    place: &str,
) -> Result<Digest, Miss> {
    let Ok(diff_id) = sha.parse() else { return Err(Miss::Absent) };
    let tar = cache.layer(&diff_id).map_err(Miss::Unreadable)?.ok_or(Miss::Absent)?;
    Ok(unpack(tar, layers.place(place))?)
}

fn place_of(wanted: &Wanted) -> String {
    format!("{}/{}", wanted.buildpack.directory_name(), wanted.layer)
}
