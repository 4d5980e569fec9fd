//! Publishing: blobs, then the configuration, then the manifest by its digest, and names
//! last, so that a name never leads to something incomplete (R11).

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Method, StatusCode};

use super::authorization::Scope;
use super::endpoint::Endpoint;
use super::error::{RegistryError, Trouble};
use super::exchange::{Answer, Call, Payload, Tried, Tries};
use super::fetch::{RemoteBlob, hash};
use super::tally::{Gauge, Tally};
use super::upload::{Mounted, NO_BODY, Outgoing, OutgoingBytes, Target};
use super::{Registry, documents};
use crate::cancel::Cancel;
use crate::event::{EventSink, Transfer};
use crate::oci::blob::BlobStore;
use crate::oci::digest::Digest;
use crate::oci::image::{BlobPlace, Document, Image};
use crate::oci::moved::Moved;
use crate::oci::reference::{Reference, Repository};

/// Everything that a manifest refers to, and the manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct Package {
    /// In any order, each once.
    pub blobs: Vec<PackageBlob>,
    /// After all others.
    pub configuration: Option<PackageBlob>,
    pub manifest: Document,
}

/// A blob of a package.
#[derive(Debug, Clone, PartialEq)]
pub struct PackageBlob {
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    pub bytes: PackageBytes,
}

/// Where the bytes of a blob are.
#[derive(Debug, Clone, PartialEq)]
pub enum PackageBytes {
    Memory(Vec<u8>),
    File(PathBuf),
    /// In a repository, of this registry or of another one.
    Registry(Repository),
    /// Out of reach.
    Nowhere,
}

impl Package {
    /// An image with its layers.
    #[must_use]
    pub fn of_image(image: &Image) -> Self {
        let (configuration, manifest) = image.documents();
        // Some layers are there twice, above all empty ones.
        let mut seen = BTreeSet::new();
        let layers = image.layers.iter().filter(|layer| seen.insert(&layer.digest));
        let blobs = layers.map(|layer| PackageBlob {
            digest: layer.digest.clone(),
            size: layer.size,
            bytes: match &layer.blob {
                BlobPlace::File(path) => PackageBytes::File(path.clone()),
                BlobPlace::Registry(repository) => PackageBytes::Registry(repository.clone()),
                // Whoever publishes has them brought to files of their own first.
                BlobPlace::Part { .. } | BlobPlace::Engine => PackageBytes::Nowhere,
            },
        });
        Self { blobs: blobs.collect(), configuration: Some(PackageBlob::of(&configuration)), manifest }
    }
}

impl PackageBlob {
    /// A document as a blob.
    #[must_use]
    pub fn of(document: &Document) -> Self {
        Self {
            digest: document.digest.clone(),
            size: document.bytes.len() as u64,
            bytes: PackageBytes::Memory(document.bytes.clone()),
        }
    }
}

/// What became of a package.
#[derive(Debug)]
pub struct Published {
    /// Of the manifest.
    pub digest: Digest,
    pub tags: Vec<PublishedTag>,
    /// What became of its blobs, other than the configuration.
    pub moved: Moved,
    /// Whether the registry knows which manifest this one refers to (`OCI-Subject`).
    pub(super) knows_subject: bool,
}

/// One name of a package.
#[derive(Debug)]
pub struct PublishedTag {
    pub tag: String,
    /// The manifest that the name led to afterwards, if it is another one: somebody else
    /// published at the same time.
    pub result: Result<Option<Digest>, RegistryError>,
}

impl Registry {
    /// Whether something could be published in a repository. It asks, and leaves nothing.
    ///
    /// # Errors
    /// When it could not.
    pub fn check_push(&self, repository: &Repository, cancel: &Cancel) -> Result<(), RegistryError> {
        self.wait(cancel, async {
            let (endpoint, target) = (self.writable(repository).await?, repository.path());
            let target = Target { shared: &self.shared, endpoint: &endpoint, repository: target };
            let result = target.try_upload().await;
            result.map_err(|tried| failed("write", &repository.to_string(), &endpoint, tried))
        })
    }

    /// Puts a package into a repository and gives it names there. What is there is not sent
    /// again. A kept file that turns out to be damaged is forgotten in `store`.
    ///
    /// # Errors
    /// When the package is not there as a whole; no name leads to it then. Names that could
    /// not be given are among the results.
    pub fn publish(
        &self,
        package: &Package,
        repository: &Repository,
        tags: &[String],
        store: &dyn BlobStore,
        cancel: &Cancel,
        events: &mut dyn EventSink,
    ) -> Result<Published, RegistryError> {
        let endpoint = self.wait(cancel, self.writable(repository))?;
        let publisher = Publisher {
            registry: self,
            endpoint,
            repository,
            store,
            cancel,
            tally: Tally::new(Transfer::Publish),
        };
        let (moved, knows_subject) = if publisher.wait(publisher.is_there(&package.manifest))? {
            (package.blobs.iter().map(|blob| Moved::present(blob.size)).sum(), false)
        } else {
            publisher.put_all(package, events)?
        };
        let is_kept = |name: &Reference| {
            name.name() != repository || !name.tag().is_some_and(|tag| tags.iter().any(|it| it == tag))
        };
        self.shared.named().retain(|name, _| is_kept(name));
        let tags = tags
            .iter()
            .map(|tag| {
                let result = publisher.wait(publisher.tag(&package.manifest, tag));
                PublishedTag { tag: tag.clone(), result }
            })
            .collect();
        Ok(Published { digest: package.manifest.digest.clone(), tags, moved, knows_subject })
    }

    pub(super) async fn writable(&self, repository: &Repository) -> Result<Endpoint, RegistryError> {
        self.shared.check_online(repository.registry())?;
        self.shared.origin(repository.registry()).await.map_err(|source| RegistryError::Step {
            step: format!("write to `{repository}`"),
            host: repository.registry().to_owned(),
            tries: 1,
            source,
        })
    }
}

pub(super) fn failed(
    verb: &str,
    what: &str,
    endpoint: &Endpoint,
    Tried { tries, trouble }: Tried,
) -> RegistryError {
    RegistryError::Step { step: format!("{verb} `{what}`"), host: endpoint.host(), tries, source: trouble }
}

/// One package on its way into one repository.
struct Publisher<'a> {
    registry: &'a Registry,
    endpoint: Endpoint,
    repository: &'a Repository,
    store: &'a dyn BlobStore,
    cancel: &'a Cancel,
    tally: Tally,
}

impl Publisher<'_> {
    fn wait<T>(&self, work: impl Future<Output = Result<T, RegistryError>>) -> Result<T, RegistryError> {
        self.registry.wait(self.cancel, work)
    }

    fn target(&self) -> Target<'_> {
        Target { shared: &self.registry.shared, endpoint: &self.endpoint, repository: self.repository.path() }
    }

    fn scope(&self) -> Scope {
        Scope::push(self.repository.path())
    }

    fn failed(&self, verb: &str, what: &str, tried: Tried) -> RegistryError {
        failed(verb, &format!("{}{what}", self.repository), &self.endpoint, tried)
    }

    /// Everything up to the manifest, by its digest. What became of the blobs, and whether its
    /// subject is known.
    fn put_all(&self, package: &Package, events: &mut dyn EventSink) -> Result<(Moved, bool), RegistryError> {
        let blobs = package.blobs.iter().map(|blob| (blob, self.tally.expect(blob.size)));
        let blobs: Vec<_> = blobs.collect();
        let mut trusts = true;
        loop {
            let put = |(blob, gauge): &(&PackageBlob, Gauge)| self.put_blob(blob, gauge, trusts);
            let moved = self.registry.each(&blobs, put, &self.tally, self.cancel, events)?;
            if let Some(configuration) = &package.configuration {
                self.put_blob(configuration, &Gauge::default(), trusts)?;
            }
            let manifest = &package.manifest;
            match self.wait(self.put_manifest(manifest, manifest.digest.as_str())) {
                Ok(answer) => {
                    self.wait(self.check_there(manifest))?;
                    return Ok((moved.into_iter().sum(), answer.header("oci-subject").is_some()));
                }
                // It said that it has a blob, and has not: everything is sent, once.
                Err(RegistryError::Step { source: Trouble::Answer { codes, .. }, .. })
                    if trusts && codes.iter().any(|code| code.ends_with("BLOB_UNKNOWN")) =>
                {
                    trusts = false;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// A blob, unless it is there; `trusts` says whether the registry's word is enough.
    fn put_blob(&self, blob: &PackageBlob, gauge: &Gauge, trusts: bool) -> Result<Moved, RegistryError> {
        let failed = |tried| self.failed("write", &format!("@{}", blob.digest), tried);
        let (target, mut scope) = (self.target(), self.scope());
        let mut session = None;
        let is_neighbour = |from: &Repository| {
            from.registry() == self.repository.registry() && from.path() != self.repository.path()
        };
        match &blob.bytes {
            // It was found in a manifest of this very repository.
            PackageBytes::Registry(from) if trusts && from == self.repository => {
                gauge.spare();
                return Ok(Moved::present(blob.size));
            }
            PackageBytes::Registry(from) if trusts && is_neighbour(from) => {
                let mounted = target.mount(from.path(), &blob.digest);
                match self.wait(async { mounted.await.map_err(failed) })? {
                    Mounted::Done => {
                        gauge.spare();
                        return Ok(Moved::mounted(blob.size));
                    }
                    Mounted::No(opened) => {
                        // Asked only now: where mounts work, it would be one request more for each.
                        if self.wait(async { target.has(&scope, &blob.digest).await.map_err(failed) })? {
                            if let Some(session) = opened {
                                self.wait(async {
                                    target.take_back(session).await;
                                    Ok(())
                                })?;
                            }
                            gauge.spare();
                            return Ok(Moved::present(blob.size));
                        }
                        if opened.is_some() {
                            scope.from = Some(from.path().to_owned());
                        }
                        session = opened;
                    }
                }
            }
            _ if trusts && self.wait(async { target.has(&scope, &blob.digest).await.map_err(failed) })? => {
                gauge.spare();
                return Ok(Moved::present(blob.size));
            }
            _ => {}
        }
        let outgoing = self.outgoing(blob, gauge)?;
        let result = self.wait(async { target.send(&scope, &outgoing, session).await.map_err(failed) });
        if let Err(error) = result {
            return Err(self.blame(error, blob, &outgoing));
        }
        Ok(Moved::sent(blob.size))
    }

    /// The bytes of a blob, brought here if they are not.
    fn outgoing(&self, blob: &PackageBlob, gauge: &Gauge) -> Result<Outgoing, RegistryError> {
        let of_file = |source| RegistryError::File { digest: blob.digest.clone(), source };
        let kept = || self.store.blob(&blob.digest, blob.size).map(|stored| stored.path);
        let bytes = match &blob.bytes {
            PackageBytes::Memory(bytes) => OutgoingBytes::Memory(Bytes::from(bytes.clone())),
            PackageBytes::File(path) => OutgoingBytes::File(open(path).map_err(of_file)?),
            PackageBytes::Registry(repository) => {
                let file = if let Some(path) = kept() {
                    open(&path).map_err(of_file)?
                } else {
                    Arc::new(self.pass_on(blob, repository)?)
                };
                OutgoingBytes::File(file)
            }
            PackageBytes::Nowhere => {
                return Err(RegistryError::NowhereToRead { digest: blob.digest.clone() });
            }
        };
        if let OutgoingBytes::File(file) = &bytes
            && file.metadata().map_err(of_file)?.len() != blob.size
        {
            self.forget(blob);
            return Err(RegistryError::DamagedHere { digest: blob.digest.clone() });
        }
        Ok(Outgoing { digest: blob.digest.clone(), size: blob.size, bytes, gauge: gauge.clone() })
    }

    /// Brings a blob of another registry here, into a file without a name.
    fn pass_on(&self, blob: &PackageBlob, from: &Repository) -> Result<File, RegistryError> {
        let file = tempfile::tempfile_in(&self.registry.scratch)
            .map_err(|source| RegistryError::File { digest: blob.digest.clone(), source })?;
        let blob = RemoteBlob { repository: from.clone(), digest: blob.digest.clone(), size: blob.size };
        self.registry.fetch_counted(&blob, &file, &self.tally.expect(blob.size), self.cancel)?;
        Ok(file)
    }

    /// Whose fault it is that a blob was not taken: the file may have changed here.
    fn blame(&self, error: RegistryError, blob: &PackageBlob, outgoing: &Outgoing) -> RegistryError {
        let is_refused =
            matches!(&error, RegistryError::Step { source: Trouble::Answer { status: 400, .. }, .. });
        if is_refused
            && let OutgoingBytes::File(file) = &outgoing.bytes
            && let Ok(again) = file.try_clone()
            && std::io::Seek::rewind(&mut &again).is_ok()
            && hash(&again).is_ok_and(|found| found != blob.digest)
        {
            self.forget(blob);
            return RegistryError::DamagedHere { digest: blob.digest.clone() };
        }
        error
    }

    fn forget(&self, blob: &PackageBlob) {
        if let PackageBytes::File(path) = &blob.bytes {
            self.store.discard(path);
        }
    }

    /// What a version leads to, if that is told.
    async fn version(&self, manifest: &Document, version: &str) -> Result<Option<Option<Digest>>, Tried> {
        let scope = self.scope();
        let url = self.endpoint.url(self.repository.path(), &format!("manifests/{version}"));
        let call =
            Call::new(&self.endpoint, &scope, Method::HEAD, url).with(ACCEPT, manifest.media_type.as_ref());
        let answer = self.registry.shared.ask(&call, NO_BODY).await?;
        match answer.status {
            StatusCode::OK => {
                Ok(Some(answer.header("docker-content-digest").and_then(|text| text.parse().ok())))
            }
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(answer.refusal(&self.registry.shared, &call).into()),
        }
    }

    /// Whether the manifest is there, and so everything it refers to.
    async fn is_there(&self, manifest: &Document) -> Result<bool, RegistryError> {
        let found = self.version(manifest, manifest.digest.as_str()).await;
        let found =
            found.map_err(|tried| self.failed("look for", &format!("@{}", manifest.digest), tried))?;
        Ok(found.is_some_and(|digest| digest.is_none_or(|digest| digest == manifest.digest)))
    }

    /// Waits until the manifest can be read (R11); some registries take a moment.
    async fn check_there(&self, manifest: &Document) -> Result<(), RegistryError> {
        let mut tries = Tries::new();
        while !self.is_there(manifest).await? {
            let gone = Trouble::Busy { status: 404, again_after: None };
            if let Err(tried) = tries.next(&self.registry.shared, gone).await {
                return Err(self.failed("find", &format!("@{}", manifest.digest), tried));
            }
        }
        Ok(())
    }

    async fn put_manifest(&self, manifest: &Document, version: &str) -> Result<Answer, RegistryError> {
        let sign = if version.contains(':') { '@' } else { ':' };
        let failed = |tried| self.failed("write", &format!("{sign}{version}"), tried);
        let scope = self.scope();
        let url = self.endpoint.url(self.repository.path(), &format!("manifests/{version}"));
        let call = Call::new(&self.endpoint, &scope, Method::PUT, url)
            .with(CONTENT_TYPE, manifest.media_type.as_ref())
            .carrying(Payload::Bytes(manifest.bytes.clone().into()));
        let answer = self.registry.shared.ask(&call, documents::MAX_MANIFEST_BYTES).await.map_err(failed)?;
        if !matches!(answer.status, StatusCode::CREATED | StatusCode::OK | StatusCode::ACCEPTED) {
            return Err(failed(answer.refusal(&self.registry.shared, &call).into()));
        }
        match answer.header("docker-content-digest").map(str::parse::<Digest>) {
            Some(Ok(found)) if found != manifest.digest => {
                Err(failed(Trouble::Digest { expected: manifest.digest.clone(), found }.into()))
            }
            _ => Ok(answer),
        }
    }

    /// Makes a tag lead to the manifest. The digest it leads to afterwards, if that is another.
    async fn tag(&self, manifest: &Document, tag: &str) -> Result<Option<Digest>, RegistryError> {
        let look = async || {
            let found = self.version(manifest, tag).await;
            let found = found.map_err(|tried| self.failed("look for", &format!(":{tag}"), tried))?;
            Ok::<_, RegistryError>(found.flatten())
        };
        if look().await?.as_ref() == Some(&manifest.digest) {
            return Ok(None);
        }
        self.put_manifest(manifest, tag).await?;
        Ok(look().await?.filter(|found| *found != manifest.digest))
    }
}

fn open(path: &Path) -> std::io::Result<Arc<File>> {
    Ok(Arc::new(fs_err::File::open(path)?.into_parts().0))
}
