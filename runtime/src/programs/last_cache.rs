//! What the last build cached: in a directory, in an image, or nowhere.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use crate::cache_dir::{CacheDir, CacheError};
use crate::cnb::cache_metadata::{CACHE_METADATA, CacheMetadata};
use crate::images::{FoundImage, Images, ImagesError};
use crate::oci::digest::DiffId;
use crate::oci::verify::{ReadAhead, VerifyingReader};

/// Bytes read at once from layers of an image.
const BUFFER_BYTES: usize = 256 << 10;

/// The cache of the last build.
pub(super) enum LastCache<'a> {
    None,
    Directory(CacheDir),
    Image { images: &'a dyn Images, found: Box<FoundImage> },
}

/// Why a cache cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum LastCacheError {
    #[error(transparent)]
    Directory(#[from] CacheError),
    #[error("cannot use the cache image `{name}`")]
    Image { name: String, source: ImagesError },
    #[error(transparent)]
    Daemon(#[from] CacheInDaemon),
}

/// A cache image was to be in a daemon (CAC-07).
#[derive(Debug, thiserror::Error)]
#[error("the cache image `{name}` cannot be in a daemon, only in a registry")]
pub struct CacheInDaemon {
    pub name: String,
}

/// # Errors
/// Where caches would be in a daemon.
pub(super) fn check_place(caches: &dyn Images, name: &str) -> Result<(), CacheInDaemon> {
    if caches.is_daemon() { Err(CacheInDaemon { name: name.to_owned() }) } else { Ok(()) }
}

impl<'a> LastCache<'a> {
    /// Opens what is named; of both the image (CAC-10). A cache image that is not
    /// there, or damaged, is an empty cache.
    ///
    /// # Errors
    /// When it cannot be used.
    pub(super) fn open(
        directory: Option<&Path>,
        image: Option<&str>,
        caches: &'a dyn Images,
    ) -> Result<Self, LastCacheError> {
        if let Some(name) = image {
            check_place(caches, name)?;
            return match caches.find(name) {
                Ok(Some(found)) => Ok(Self::Image { images: caches, found: Box::new(found) }),
                Ok(None) | Err(ImagesError::Damaged { .. }) => Ok(Self::None),
                Err(source) => Err(LastCacheError::Image { name: name.to_owned(), source }),
            };
        }
        Ok(directory.map(CacheDir::open).transpose()?.map_or(Self::None, Self::Directory))
    }

    /// Which layers there are.
    pub(super) fn metadata(&self) -> CacheMetadata {
        match self {
            Self::None => CacheMetadata::default(),
            Self::Directory(directory) => directory.metadata(),
            Self::Image { found, .. } => metadata_of(found),
        }
    }

    /// How large a layer is, as it is kept; none is 0.
    pub(super) fn layer_bytes(&self, diff_id: &DiffId) -> u64 {
        match self {
            Self::None => 0,
            Self::Directory(directory) => match directory.layer(diff_id) {
                Ok(Some(layer)) => layer.size(),
                Ok(None) | Err(_) => 0,
            },
            Self::Image { found, .. } => {
                let mut layers = found.image.layers.iter();
                layers.find(|layer| layer.diff_id == *diff_id).map_or(0, |layer| layer.size)
            }
        }
    }

    /// The tar of a layer, verified while it is read; `None` when there is none.
    pub(super) fn layer(&self, diff_id: &DiffId) -> std::io::Result<Option<Box<dyn BufRead>>> {
        match self {
            Self::None => Ok(None),
            Self::Directory(directory) => match directory.layer(diff_id).map_err(std::io::Error::other)? {
                Some(layer) => Ok(Some(Box::new(ReadAhead::start(layer.read())?))),
                None => Ok(None),
            },
            Self::Image { images, found } => {
                let reader = match images.layer(found, diff_id) {
                    Ok(reader) => reader,
                    Err(ImagesError::NoLayer { .. }) => return Ok(None),
                    Err(error) => return Err(std::io::Error::other(error)),
                };
                Ok(Some(verified(reader, diff_id)))
            }
        }
    }
}

/// What the label of a cache image says.
pub(super) fn metadata_of(found: &FoundImage) -> CacheMetadata {
    let label = found.image.configuration.config.labels.get(CACHE_METADATA);
    label.map(|text| CacheMetadata::parse(text.as_bytes())).unwrap_or_default()
}

/// The tar of a layer of an image, verified while it is read.
pub(super) fn verified(reader: Box<dyn Read>, diff_id: &DiffId) -> Box<dyn BufRead> {
    Box::new(BufReader::with_capacity(BUFFER_BYTES, VerifyingReader::new(reader, diff_id.0.clone())))
}
