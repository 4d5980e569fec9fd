//! OCI images: digests, layers as tar and gzip, configuration and manifest, and
//! the image layout on disk.
//!
//! Everything here is about bytes and the OCI image specification. It must not
//! know what a buildpack is, who runs one, or where layers are kept between
//! builds; whoever makes an image hands over entries, labels and files.

pub mod blob;
pub mod compression;
pub mod digest;
pub mod elf;
pub mod encoder;
pub mod files;
pub mod image;
pub mod layer;
pub mod layout;
pub mod moved;
pub mod platform;
pub mod reference;
pub mod referrer;
pub mod tar_index;
pub mod tar_reader;
pub mod unpack;
pub mod verify;
