//! What is built into this program: the default builder and the launcher.
//!
//! Bytes only; which buildpacks they are is not known here.

/// The default builder directory, as `tar.gz`.
pub(crate) const BUILDER_ARCHIVE: &[u8] =
    include_bytes!(concat!(env!("WAPACK_EMBED_DIR"), "/builder.tar.gz"));

/// Digest of [`BUILDER_ARCHIVE`], so that an unpacked copy can be found again without reading the archive.
pub(crate) const BUILDER_DIGEST: &str = env!("WAPACK_BUILDER_DIGEST");

/// The launcher for images of `linux/amd64`.
pub(crate) const LAUNCHER_AMD64: &[u8] =
    include_bytes!(concat!(env!("WAPACK_EMBED_DIR"), "/launcher/linux-amd64"));

/// The launcher for images of `linux/arm64`.
pub(crate) const LAUNCHER_ARM64: &[u8] =
    include_bytes!(concat!(env!("WAPACK_EMBED_DIR"), "/launcher/linux-arm64"));
