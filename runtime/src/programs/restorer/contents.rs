//! Contents of layers: from the cache to disk, several layers at a time.

use crate::cnb::id::BuildpackId;
use crate::oci::digest::Digest;
use crate::oci::unpack::{UnpackError, unpack};
use crate::programs::each::each_by_size;
use crate::programs::last_cache::LastCache;
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

/// Unpacks what is wanted, several at a time; the outline of each tar, in order.
///
/// Reading and hashing have a thread for each layer that is at work, so that even a
/// single large layer keeps two cores busy.
pub(super) fn restore(
    cache: &LastCache<'_>,
    layers: &LayersDir,
    wanted: &[Wanted],
) -> Vec<Result<Digest, Miss>> {
    let size = |wanted: &Wanted| wanted.sha.parse().map_or(0, |diff_id| cache.layer_bytes(&diff_id));
    each_by_size(wanted, size, |wanted| unpack_one(cache, layers, &wanted.sha, &place_of(wanted)))
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
