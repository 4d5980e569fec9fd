//! What is attached to images in registries.

use std::io::{Read as _, Seek as _};

use super::{RegistryImages, failed};
use crate::cancel::Cancel;
use crate::images::{Attachments, ImagesError};
use crate::oci::digest::Digest;
use crate::oci::image::Document;
use crate::oci::layout::MAX_ATTACHMENT_BYTES;
use crate::oci::reference::Reference;
use crate::oci::referrer::{Attachment, Referrer, content_of};
use crate::registry::RemoteBlob;

impl Attachments for RegistryImages {
    fn attach(
        &self,
        subject: &Document,
        name: &str,
        attachments: &[Attachment],
        cancel: &Cancel,
    ) -> Result<(), ImagesError> {
        let reference: Reference = name.parse()?;
        for attachment in attachments {
            let attached = self.registry.attach(attachment, subject, reference.name(), cancel);
            attached
                .map_err(|error| ImagesError::NotWritable { name: name.to_owned(), source: error.into() })?;
        }
        Ok(())
    }

    fn attached(&self, subject: &Digest, name: &str) -> Result<Vec<Referrer>, ImagesError> {
        let reference: Reference = name.parse()?;
        let found = self.registry.referrers(subject, reference.name(), &Cancel::default());
        let found = found.map_err(|error| failed(name, error))?;
        Ok(found.iter().filter_map(Referrer::of).collect())
    }

    fn attachment(&self, referrer: &Referrer, name: &str) -> Result<Vec<u8>, ImagesError> {
        let reference: Reference = name.parse()?;
        let damaged =
            |reason: &str| ImagesError::Damaged { name: name.to_owned(), source: reason.to_owned().into() };
        let manifest = reference.with_digest(referrer.digest.clone());
        let manifest = self.registry.document(&manifest, &Cancel::default());
        let manifest = manifest.map_err(|error| failed(name, error))?;
        let manifest = manifest.ok_or_else(|| damaged("what is attached is not there"))?;
        let (digest, size) = content_of(&manifest.bytes)
            .filter(|(_, size)| *size <= MAX_ATTACHMENT_BYTES)
            .ok_or_else(|| damaged("what is attached is not one document of a sensible size"))?;
        let unreadable =
            |error: std::io::Error| ImagesError::Image { name: name.to_owned(), source: error.into() };
        let mut file = tempfile::tempfile_in(&self.scratch).map_err(unreadable)?;
        let blob = RemoteBlob { repository: reference.name().clone(), digest, size };
        self.registry.fetch_to(&blob, &file, &Cancel::default()).map_err(|error| failed(name, error))?;
        let mut content = Vec::new();
        file.rewind().and_then(|()| file.read_to_end(&mut content)).map_err(unreadable)?;
        Ok(content)
    }

    fn can_attach(&self) -> bool {
        true
    }
}
