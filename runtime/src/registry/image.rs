//! Finding an image: its manifest and its configuration, and nothing of its layers.

use oci_spec::image::Descriptor;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Method, StatusCode};

use super::authorization::Scope;
use super::documents::{self, Manifest};
use super::endpoint::Endpoint;
use super::error::{RegistryError, Trouble};
use super::exchange::{Call, Tried};
use super::{Registry, Shared};
use crate::cancel::Cancel;
use crate::oci::digest::Digest;
use crate::oci::image::{BlobPlace, Document, Image};
use crate::oci::layout::Platform;
use crate::oci::reference::{Reference, Version};

/// An image of a registry, verified down to its configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct RemoteImage {
    /// By the digest of its manifest.
    pub reference: Reference,
    /// Its layers' blobs are in the repository.
    pub image: Image,
}

/// What is found under a name.
enum Found {
    Image(Box<RemoteImage>),
    Nothing,
    /// Images for these platforms.
    Others(Vec<String>),
}

/// One server, and what is asked of it.
struct Reader<'a> {
    shared: &'a Shared,
    endpoint: &'a Endpoint,
    reference: &'a Reference,
    scope: Scope,
}

impl Registry {
    /// The image called `reference`, without the bytes of its layers. Where there is one for
    /// several platforms it is the one for `platform`; an image that is alone is what it is.
    ///
    /// # Errors
    /// When it cannot be found out, or what is there is not valid.
    pub fn image(
        &self,
        reference: &Reference,
        platform: Platform<'_>,
        cancel: &Cancel,
    ) -> Result<Option<RemoteImage>, RegistryError> {
        self.wait(cancel, self.shared.image(reference, platform))
    }

    /// The manifest or index that `reference` led to when it was first asked for, here or by [`image`](Self::image).
    ///
    /// # Errors
    /// As of [`document`](Self::document).
    pub fn first_document(
        &self,
        reference: &Reference,
        cancel: &Cancel,
    ) -> Result<Option<Document>, RegistryError> {
        let known = self.shared.named().get(reference).cloned();
        if known.is_some() {
            return Ok(known);
        }
        let document = self.document(reference, cancel)?;
        self.shared.named().extend(document.clone().map(|document| (reference.clone(), document)));
        Ok(document)
    }

    /// The manifest or index that is called `reference` now, as it is stored.
    ///
    /// # Errors
    /// When it cannot be found out, or what is there is not valid.
    pub fn document(
        &self,
        reference: &Reference,
        cancel: &Cancel,
    ) -> Result<Option<Document>, RegistryError> {
        self.wait(cancel, self.shared.document(reference))
    }
}

impl Shared {
    async fn image(
        &self,
        reference: &Reference,
        platform: Platform<'_>,
    ) -> Result<Option<RemoteImage>, RegistryError> {
        self.check_online(reference.registry())?;
        // Only for the first: where that leads nowhere, the next is asked what it has.
        let mut known = self.named().get(reference).cloned();
        let mut last = None;
        for endpoint in self.readable(reference.registry()).await {
            let (host, result) = match &endpoint {
                Ok(endpoint) => {
                    let reader = Reader::new(self, endpoint, reference);
                    (endpoint.host(), reader.image(known.take(), platform).await)
                }
                Err(_) => (reference.registry().to_owned(), endpoint.map(|_| Found::Nothing)),
            };
            match result {
                Ok(Found::Image(image)) => return Ok(Some(*image)),
                result => last = Some((host, result)),
            }
        }
        // The registry itself is asked last, and its word counts.
        match last {
            Some((host, Err(Tried { tries, trouble }))) => Err(RegistryError::Step {
                step: format!("read the image `{reference}`"),
                host,
                tries,
                source: trouble,
            }),
            Some((_, Ok(Found::Others(there)))) => Err(RegistryError::NoPlatform {
                name: reference.to_string(),
                wanted: platform.to_string(),
                there,
            }),
            _ => Ok(None),
        }
    }

    async fn document(&self, reference: &Reference) -> Result<Option<Document>, RegistryError> {
        self.check_online(reference.registry())?;
        let mut last = Ok(None);
        for endpoint in self.readable(reference.registry()).await {
            let step = |host, Tried { tries, trouble }| RegistryError::Step {
                step: format!("read the manifest of `{reference}`"),
                host,
                tries,
                source: trouble,
            };
            last = match endpoint {
                Ok(endpoint) => {
                    let reader = Reader::new(self, &endpoint, reference);
                    reader.named().await.map_err(|tried| step(endpoint.host(), tried))
                }
                Err(tried) => Err(step(reference.registry().to_owned(), tried)),
            };
            if matches!(last, Ok(Some(_))) {
                break;
            }
        }
        last
    }
}

impl<'a> Reader<'a> {
    fn new(shared: &'a Shared, endpoint: &'a Endpoint, reference: &'a Reference) -> Self {
        Self { shared, endpoint, reference, scope: Scope::pull(reference.repository()) }
    }

    async fn named(&self) -> Result<Option<Document>, Tried> {
        match self.reference.version() {
            Version::Tag(tag) => self.manifest(tag, None).await,
            Version::Digest(digest) => self.manifest(digest.as_str(), Some(digest)).await,
        }
    }

    /// The image that `known` leads to, or else what the name leads to now.
    async fn image(&self, known: Option<Document>, platform: Platform<'_>) -> Result<Found, Tried> {
        let named = match known {
            Some(known) => Some(known),
            None => self.named().await?,
        };
        let Some(named) = named else { return Ok(Found::Nothing) };
        let mut document = named.clone();
        let mut chosen: Option<Descriptor> = None;
        for _ in 0..documents::MAX_INDEX_DEPTH {
            match documents::read(&document)? {
                Manifest::Image(family, manifest) => {
                    let expected = documents::digest_of(manifest.config())?;
                    let bytes = self.configuration(manifest.config(), &expected).await?;
                    let place = BlobPlace::Registry(self.reference.name().clone());
                    let (configuration, layers) = documents::image(&manifest, &bytes, &place)?;
                    if let Some(chosen) = &chosen {
                        documents::check_platform(chosen, &configuration)?;
                    }
                    self.shared.named().insert(self.reference.clone(), named);
                    return Ok(Found::Image(Box::new(RemoteImage {
                        reference: self.reference.with_digest(document.digest),
                        image: Image { family, configuration, layers },
                    })));
                }
                Manifest::Index(index) => {
                    let Some(descriptor) = documents::choose(&index, platform) else {
                        return Ok(Found::Others(documents::platforms(&index)));
                    };
                    document = self.entry(descriptor).await?;
                    chosen = Some(descriptor.clone());
                }
            }
        }
        Err(Trouble::Document("indexes are nested too deeply".to_owned()).into())
    }

    /// What an entry of an index means.
    async fn entry(&self, descriptor: &Descriptor) -> Result<Document, Tried> {
        let expected = documents::digest_of(descriptor)?;
        let document = match documents::embedded(descriptor, &expected) {
            Some(bytes) => {
                let media_type = documents::media_type(Some(descriptor.media_type().as_ref()))?;
                Document { media_type, digest: expected, bytes }
            }
            None => self.manifest(expected.as_str(), Some(&expected)).await?.ok_or(Trouble::NotThere)?,
        };
        let (expected, found) = (descriptor.size(), document.bytes.len() as u64);
        if expected != found {
            return Err(Trouble::Size { expected, found }.into());
        }
        if document.media_type != *descriptor.media_type() {
            return Err(
                Trouble::Document("an image is not of the type that its index says".to_owned()).into()
            );
        }
        Ok(document)
    }

    /// A manifest or index, verified (R3); `None` when there is none.
    async fn manifest(&self, version: &str, expected: Option<&Digest>) -> Result<Option<Document>, Tried> {
        let url = self.endpoint.url(self.reference.repository(), &format!("manifests/{version}"));
        let call = Call::new(self.endpoint, &self.scope, Method::GET, url).with(ACCEPT, documents::ACCEPTED);
        let answer = self.shared.ask(&call, documents::MAX_MANIFEST_BYTES).await?;
        match answer.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            _ => return Err(answer.refusal(self.shared, &call).into()),
        }
        let digest = Digest::of(&answer.body);
        let wrong = |expected: &Digest| Trouble::Digest { expected: expected.clone(), found: digest.clone() };
        if let Some(expected) = expected.filter(|expected| **expected != digest) {
            return Err(wrong(expected).into());
        }
        // What the server says of the digest is not needed; but one of both is wrong then.
        if let Some(said) = answer.header("docker-content-digest") {
            match said.parse::<Digest>() {
                Ok(said) if said == digest => {}
                Ok(said) => return Err(wrong(&said).into()),
                Err(error) => return Err(Trouble::Document(format!("it is said to be {error}")).into()),
            }
        }
        let media_type = documents::media_type(answer.header(CONTENT_TYPE.as_str()))?;
        Ok(Some(Document { media_type, digest, bytes: answer.body.into() }))
    }

    async fn configuration(&self, descriptor: &Descriptor, expected: &Digest) -> Result<Vec<u8>, Tried> {
        if descriptor.size() > documents::MAX_CONFIGURATION_BYTES {
            return Err(Trouble::TooLarge(documents::MAX_CONFIGURATION_BYTES).into());
        }
        if let Some(bytes) = documents::embedded(descriptor, expected) {
            return Ok(bytes);
        }
        let url = self.endpoint.url(self.reference.repository(), &format!("blobs/{expected}"));
        let call = Call::new(self.endpoint, &self.scope, Method::GET, url);
        let answer = self.shared.ask(&call, descriptor.size()).await?;
        match answer.status {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Err(Trouble::NotThere.into()),
            _ => return Err(answer.refusal(self.shared, &call).into()),
        }
        let (size, found) = (answer.body.len() as u64, Digest::of(&answer.body));
        if size != descriptor.size() {
            return Err(Trouble::Size { expected: descriptor.size(), found: size }.into());
        }
        if found != *expected {
            return Err(Trouble::Digest { expected: expected.clone(), found }.into());
        }
        Ok(answer.body.into())
    }
}
