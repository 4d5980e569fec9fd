//! Tars for tests, made by a library that shares no code with what reads them.

use std::io::{Cursor, Read};

use oci_spec::image::MediaType;

use crate::oci::digest::{DiffId, Digest};
use crate::oci::image::{BlobPlace, Image, Layer, MediaFamily};

/// What an entry of a tar is.
pub(super) enum Entry<'a> {
    File(&'a [u8]),
    Directory,
    Symlink(&'a str),
    HardLink(&'a str),
    Device,
}

/// A tar of entries under names that may be anything.
pub(super) fn tar(entries: &[(&[u8], Entry<'_>)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, entry) in entries {
        let mut header = tar::Header::new_gnu();
        // Written by hand: the library refuses names such as `..`.
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_mode(0o4755);
        header.set_size(0);
        let contents: &[u8] = match entry {
            Entry::File(contents) => {
                header.set_entry_type(tar::EntryType::Regular);
                header.set_size(contents.len() as u64);
                contents
            }
            Entry::Directory => {
                header.set_entry_type(tar::EntryType::Directory);
                &[]
            }
            Entry::Symlink(target) | Entry::HardLink(target) => {
                let is_hard = matches!(entry, Entry::HardLink(_));
                header.set_entry_type(if is_hard { tar::EntryType::Link } else { tar::EntryType::Symlink });
                header.set_link_name(target).unwrap();
                &[]
            }
            Entry::Device => {
                header.set_entry_type(tar::EntryType::Char);
                &[]
            }
        };
        header.set_cksum();
        builder.append(&header, contents).unwrap();
    }
    builder.into_inner().unwrap()
}

pub(super) fn diff_id(tar: &[u8]) -> DiffId {
    DiffId(Digest::of(tar))
}

/// An image of these layers.
pub(super) fn image(tars: &[Vec<u8>]) -> Image {
    let configuration = serde_json::json!({
        "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": [] },
    });
    let layer = |tar: &Vec<u8>| Layer {
        media_type: MediaType::ImageLayer,
        digest: Digest::of(tar),
        size: tar.len() as u64,
        diff_id: diff_id(tar),
        blob: BlobPlace::Engine,
    };
    Image {
        family: MediaFamily::Oci,
        configuration: serde_json::from_value(configuration).unwrap(),
        layers: tars.iter().map(layer).collect(),
    }
}

/// Opens layers that are in memory.
pub(super) fn opener(
    tars: &[Vec<u8>],
) -> impl Fn(&DiffId) -> Result<Box<dyn Read>, Box<dyn std::error::Error + Send + Sync>> {
    let tars = tars.to_vec();
    move |wanted| {
        let found = tars.iter().find(|tar| diff_id(tar) == *wanted).ok_or("no such layer")?;
        Ok(Box::new(Cursor::new(found.clone())))
    }
}
