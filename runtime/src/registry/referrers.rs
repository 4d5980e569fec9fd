//! What refers to an image: bills of materials, provenance, signatures.
//!
//! # Spec
//! distribution-spec 1.1, "Listing Referrers" and "Pushing Manifests with Subject"; where a
//! registry has not heard of them, "Referrers Tag Schema".

use std::collections::BTreeSet;

use oci_spec::image::{Descriptor, ImageIndex, ImageIndexBuilder, MediaType};
use reqwest::header::{ACCEPT, CONTENT_TYPE, LINK};
use reqwest::{Method, StatusCode};
use url::Url;

use super::authorization::Scope;
use super::documents::{self, Manifest};
use super::endpoint::Endpoint;
use super::error::{RegistryError, Trouble};
use super::exchange::{Answer, Call, Tried};
use super::publish::{Package, PackageBlob, failed};
use super::{Registry, Shared};
use crate::cancel::Cancel;
use crate::oci::digest::Digest;
use crate::oci::image::Document;
use crate::oci::reference::{Reference, Repository};
use crate::oci::referrer::{Attachment, AttachmentBlobs, fallback_tag, kind_of};

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Pages of one list, and entries of all of them.
const MAX_PAGES: usize = 50;
const MAX_ENTRIES: usize = 1000;
/// Entries of one list whose manifests are read for what they are.
const MAX_UNTYPED: usize = 50;
/// Somebody else may write the same list at the same time.
const MAX_ROUNDS: usize = 5;

impl Registry {
    /// Attaches a document to a manifest of a repository; the digest of what was written.
    /// Attached twice it is there once.
    ///
    /// # Errors
    /// When it is not there, or nothing leads to it.
    pub fn attach(
        &self,
        attachment: &Attachment,
        subject: &Document,
        repository: &Repository,
        cancel: &Cancel,
    ) -> Result<Digest, RegistryError> {
        let AttachmentBlobs { manifest, configuration, content, listed } =
            attachment.blobs(&subject.descriptor());
        let mut entry = manifest.descriptor();
        entry.set_artifact_type(Some(MediaType::from(listed.artifact_type.as_str())));
        entry.set_annotations(Some(listed.annotations.into_iter().collect()));
        let package = Package {
            blobs: vec![PackageBlob::of(&content)],
            configuration: Some(PackageBlob::of(&configuration)),
            manifest,
        };
        let published = self.publish(&package, repository, &[], &(), cancel, &mut |_| ())?;
        if !published.knows_subject {
            self.list(&entry, &subject.digest, repository, cancel)?;
        }
        Ok(published.digest)
    }

    /// What refers to a manifest, in the order of the registry.
    ///
    /// # Errors
    /// When it cannot be found out.
    pub fn referrers(
        &self,
        subject: &Digest,
        repository: &Repository,
        cancel: &Cancel,
    ) -> Result<Vec<Descriptor>, RegistryError> {
        let mut found = match self.wait(cancel, self.shared.referrers(subject, repository))? {
            Some(found) => found,
            None => self.tagged(subject, repository, cancel)?.unwrap_or_default(),
        };
        for entry in found.iter_mut().filter(|entry| is_untyped(entry)).take(MAX_UNTYPED) {
            let Ok(reference) = format!("{repository}@{}", entry.digest()).parse::<Reference>() else {
                continue;
            };
            // It stays in the list without a type: somebody may remove what it leads to.
            let Ok(Some(document)) = self.document(&reference, cancel) else { continue };
            entry.set_artifact_type(kind_of(&document.bytes).map(|kind| kind.as_str().into()));
        }
        Ok(found)
    }

    /// Adds an entry to the list that is a tag, unless the registry makes lists itself.
    fn list(
        &self,
        entry: &Descriptor,
        subject: &Digest,
        repository: &Repository,
        cancel: &Cancel,
    ) -> Result<(), RegistryError> {
        if self.wait(cancel, self.shared.referrers(subject, repository))?.is_some() {
            return Ok(());
        }
        let tag = fallback_tag(subject);
        for _ in 0..MAX_ROUNDS {
            let mut entries = self.tagged(subject, repository, cancel)?.unwrap_or_default();
            if entries.iter().any(|listed| listed.digest() == entry.digest()) {
                return Ok(());
            }
            entries.push(entry.clone());
            let index = ImageIndexBuilder::default()
                .schema_version(2_u32)
                .media_type(MediaType::ImageIndex)
                .manifests(entries)
                .build()
                .expect("every required field is set");
            let value = serde_json::to_value(&index).expect("indexes have string keys only");
            let bytes = value.to_string().into_bytes();
            let manifest = Document { media_type: MediaType::ImageIndex, digest: Digest::of(&bytes), bytes };
            let package = Package { blobs: Vec::new(), configuration: None, manifest };
            let published =
                self.publish(&package, repository, std::slice::from_ref(&tag), &(), cancel, &mut |_| ())?;
            for tag in published.tags {
                // Whoever was faster may have a list without this entry.
                tag.result?;
            }
        }
        Err(RegistryError::Step {
            step: format!("list what refers to `{repository}@{subject}`"),
            host: repository.registry().to_owned(),
            tries: u32::try_from(MAX_ROUNDS).unwrap_or(u32::MAX),
            source: Trouble::Protocol("the list is written by others all the time"),
        })
    }

    /// The list that is a tag.
    fn tagged(
        &self,
        subject: &Digest,
        repository: &Repository,
        cancel: &Cancel,
    ) -> Result<Option<Vec<Descriptor>>, RegistryError> {
        let name = format!("{repository}:{}", fallback_tag(subject));
        let reference: Reference = name.parse().expect("a repository with a tag is a reference");
        let Some(document) = self.document(&reference, cancel)? else { return Ok(None) };
        let failed = |source| RegistryError::Step {
            step: format!("read the list `{name}`"),
            host: repository.registry().to_owned(),
            tries: 1,
            source,
        };
        match documents::read(&document).map_err(failed)? {
            Manifest::Index(index) => Ok(Some(index.manifests().clone())),
            Manifest::Image(..) => {
                Err(failed(Trouble::Document("it is an image where a list should be".to_owned())))
            }
        }
    }
}

impl Shared {
    /// The registry's own list; `None` when it makes none.
    async fn referrers(
        &self,
        subject: &Digest,
        repository: &Repository,
    ) -> Result<Option<Vec<Descriptor>>, RegistryError> {
        self.check_online(repository.registry())?;
        let what = format!("{repository}@{subject}");
        let step = |endpoint: &Endpoint, tried| failed("list what refers to", &what, endpoint, tried);
        let endpoint = self.origin(repository.registry()).await.map_err(|source| RegistryError::Step {
            step: format!("list what refers to `{what}`"),
            host: repository.registry().to_owned(),
            tries: 1,
            source,
        })?;
        self.pages(&endpoint, subject, repository).await.map_err(|tried| step(&endpoint, tried))
    }

    async fn pages(
        &self,
        endpoint: &Endpoint,
        subject: &Digest,
        repository: &Repository,
    ) -> Result<Option<Vec<Descriptor>>, Tried> {
        let scope = Scope::pull(repository.path());
        let mut url = endpoint.url(repository.path(), &format!("referrers/{subject}"));
        let mut found = Vec::new();
        let mut seen = BTreeSet::new();
        for _ in 0..MAX_PAGES {
            seen.insert(url.to_string());
            let call = Call::new(endpoint, &scope, Method::GET, url.clone()).with(ACCEPT, OCI_INDEX);
            let answer = self.ask(&call, documents::MAX_MANIFEST_BYTES).await?;
            match answer.status {
                StatusCode::OK => {}
                // What a registry says that has not heard of them differs.
                StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST | StatusCode::METHOD_NOT_ALLOWED
                    if found.is_empty() =>
                {
                    return Ok(None);
                }
                _ => return Err(answer.refusal(self, &call).into()),
            }
            found.extend(page(&answer)?.manifests().iter().cloned());
            if found.len() > MAX_ENTRIES {
                return Err(Trouble::Document(format!("it lists more than {MAX_ENTRIES} entries")).into());
            }
            let Some(next) = next_page(&url, &answer)? else { return Ok(Some(found)) };
            // A list that leads elsewhere, or in a circle, is none (R5).
            if !endpoint.owns(&next) || seen.contains(next.as_str()) {
                return Err(Trouble::Protocol("the next page is nowhere, or was there before").into());
            }
            url = next;
        }
        Err(Trouble::Protocol("the list has too many pages").into())
    }
}

/// Whether an entry says nothing of what it is. Some registries list the type of the configuration
/// for everything, which is that of an empty one.
fn is_untyped(entry: &Descriptor) -> bool {
    entry.artifact_type().as_ref().is_none_or(|kind| *kind == MediaType::EmptyJSON)
}

fn page(answer: &Answer) -> Result<ImageIndex, Trouble> {
    let media_type = documents::media_type(answer.header(CONTENT_TYPE.as_str()))?;
    let bytes = answer.body.to_vec();
    match documents::read(&Document { media_type, digest: Digest::of(&bytes), bytes })? {
        Manifest::Index(index) => {
            for entry in index.manifests() {
                documents::digest_of(entry)?;
            }
            Ok(*index)
        }
        Manifest::Image(..) => Err(Trouble::Document("it is an image where a list should be".to_owned())),
    }
}

/// `<…>; rel="next"`
fn next_page(url: &Url, answer: &Answer) -> Result<Option<Url>, Trouble> {
    let Some(link) = answer.header(LINK.as_str()) else { return Ok(None) };
    let Some((target, rest)) = link.trim().strip_prefix('<').and_then(|rest| rest.split_once('>')) else {
        return Ok(None);
    };
    if !rest.replace('"', "").contains("rel=next") {
        return Ok(None);
    }
    url.join(target).map(Some).map_err(|_| Trouble::Nowhere)
}
