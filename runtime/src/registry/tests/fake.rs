//! A registry in memory that lies where a test wants it to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::http::test_server::{Answer, Request, Server, Step, answer, head, ok};
use crate::oci::digest::Digest;
use crate::oci::image::{Document, Image};

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// What the registry has.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is one way in which registries differ")]
pub(crate) struct Kept {
    /// By repository and digest.
    pub(crate) blobs: BTreeMap<(String, String), Vec<u8>>,
    /// By repository and tag or digest: type and bytes.
    pub(crate) manifests: BTreeMap<(String, String), (String, Vec<u8>)>,
    uploads: BTreeMap<String, Vec<u8>>,
    /// Whether it takes manifests whose blobs are missing.
    pub(crate) is_careless: bool,
    /// Whether it has to be sent what another of its repositories has.
    pub(crate) mounts_nothing: bool,
    /// Whether it knows what referrers are.
    pub(crate) has_referrers: bool,
    /// Whether it lists them by the types of their configurations.
    pub(crate) lists_configurations: bool,
}

impl Kept {
    pub(crate) fn put_blob(&mut self, repository: &str, bytes: &[u8]) {
        let digest = Digest::of(bytes).to_string();
        self.blobs.insert((repository.to_owned(), digest), bytes.to_vec());
    }

    pub(crate) fn put_manifest(&mut self, repository: &str, version: &str, media_type: &str, bytes: &[u8]) {
        let manifest = (media_type.to_owned(), bytes.to_vec());
        let digest = Digest::of(bytes).to_string();
        self.manifests.insert((repository.to_owned(), digest), manifest.clone());
        self.manifests.insert((repository.to_owned(), version.to_owned()), manifest);
    }

    /// All of an image whose layers are files.
    pub(crate) fn put_image(&mut self, repository: &str, tag: &str, image: &Image) -> Document {
        let (configuration, manifest) = image.documents();
        self.put_blob(repository, &configuration.bytes);
        for layer in &image.layers {
            self.put_blob(repository, &std::fs::read(layer.file().unwrap()).unwrap());
        }
        self.put_manifest(repository, tag, manifest.media_type.as_ref(), &manifest.bytes);
        manifest
    }

    /// Whether a version leads to a manifest all of whose blobs are there.
    pub(crate) fn is_whole(&self, repository: &str, version: &str) -> bool {
        let Some((_, bytes)) = self.manifests.get(&(repository.to_owned(), version.to_owned())) else {
            return false;
        };
        let manifest: serde_json::Value = serde_json::from_slice(bytes).unwrap();
        let layers = manifest["layers"].as_array().unwrap().iter();
        let has = |descriptor: &serde_json::Value| {
            let digest = descriptor["digest"].as_str().unwrap().to_owned();
            self.blobs.contains_key(&(repository.to_owned(), digest))
        };
        layers.chain([&manifest["config"]]).all(has)
    }

    fn honest(&mut self, request: &Request) -> Answer {
        let mut words = request.line.split(' ');
        let (method, target) = (words.next().unwrap(), words.next().unwrap());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query: BTreeMap<String, String> =
            url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let Some(path) = path.strip_prefix("/v2/").filter(|path| !path.is_empty()) else {
            return ok("", b"");
        };
        if let Some(rule) = broken_rule(method, path, &query, request) {
            // No client may live with it, so that the test that made this request fails.
            return answer("418 Strict", "", format!("{method} {path}: {rule}").as_bytes());
        }
        let missing = || answer("404 Not Found", "", br#"{"errors":[{"code":"UNKNOWN"}]}"#);
        if let Some((repository, version)) = path.split_once("/manifests/") {
            let key = (repository.to_owned(), version.to_owned());
            if method == "PUT" {
                return self.take_manifest(repository, version, request);
            }
            let Some((media_type, bytes)) = self.manifests.get(&key) else { return missing() };
            let digest = Digest::of(bytes);
            return found(
                method,
                &format!("content-type: {media_type}\r\ndocker-content-digest: {digest}\r\n"),
                bytes,
            );
        }
        if let Some((repository, upload)) = path.split_once("/blobs/uploads/") {
            return self.upload(method, repository, upload, &query, request);
        }
        if let Some((repository, digest)) = path.split_once("/blobs/") {
            let key = (repository.to_owned(), digest.to_owned());
            let Some(bytes) = self.blobs.get(&key) else { return missing() };
            let range =
                request.header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
            if let Some(from) = range.map(|from| from.parse::<usize>().unwrap()) {
                let headers = format!("content-range: bytes {from}-{}/{}\r\n", bytes.len() - 1, bytes.len());
                return answer("206 Partial Content", &headers, &bytes[from..]);
            }
            return found(method, "", bytes);
        }
        if let Some((repository, digest)) = path.split_once("/referrers/").filter(|_| self.has_referrers) {
            return self.referrers(repository, digest);
        }
        missing()
    }

    fn referrers(&self, repository: &str, digest: &str) -> Answer {
        let refers = |(key, (media_type, bytes)): (&(String, String), &(String, Vec<u8>))| {
            let manifest: serde_json::Value = serde_json::from_slice(bytes).unwrap();
            let is_one = key.0 == repository && key.1.starts_with("sha256:");
            (is_one && manifest["subject"]["digest"] == digest).then(|| {
                let of_configuration = &manifest["config"]["mediaType"];
                let kind =
                    if self.lists_configurations { of_configuration } else { &manifest["artifactType"] };
                serde_json::json!({"mediaType": media_type, "digest": key.1, "size": bytes.len(),
                    "artifactType": kind})
            })
        };
        let manifests: Vec<_> = self.manifests.iter().filter_map(refers).collect();
        let index = serde_json::json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests});
        ok(&format!("content-type: {OCI_INDEX}\r\n"), index.to_string().as_bytes())
    }

    fn take_manifest(&mut self, repository: &str, version: &str, request: &Request) -> Answer {
        let digest = Digest::of(&request.body).to_string();
        if version.contains(':') && version != digest {
            return answer("400 Bad Request", "", br#"{"errors":[{"code":"DIGEST_INVALID"}]}"#);
        }
        let manifest = (request.header("content-type").unwrap().to_owned(), request.body.clone());
        self.manifests.insert((repository.to_owned(), "new".to_owned()), manifest.clone());
        let has_all = self.is_careless || manifest.0.contains("index") || self.is_whole(repository, "new");
        self.manifests.remove(&(repository.to_owned(), "new".to_owned()));
        if !has_all {
            let body = br#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"canary"}]}"#;
            return answer("404 Not Found", "", body);
        }
        self.manifests.insert((repository.to_owned(), digest.clone()), manifest.clone());
        self.manifests.insert((repository.to_owned(), version.to_owned()), manifest);
        let subject = if self.has_referrers { "oci-subject: yes\r\n" } else { "" };
        answer("201 Created", &format!("docker-content-digest: {digest}\r\n{subject}"), b"")
    }

    fn upload(
        &mut self,
        method: &str,
        repository: &str,
        upload: &str,
        query: &BTreeMap<String, String>,
        request: &Request,
    ) -> Answer {
        if method == "POST" {
            if let (Some(digest), Some(from)) = (query.get("mount"), query.get("from"))
                && !self.mounts_nothing
                && let Some(bytes) = self.blobs.get(&(from.clone(), digest.clone())).cloned()
            {
                self.blobs.insert((repository.to_owned(), digest.clone()), bytes);
                return answer("201 Created", "", b"");
            }
            let name = format!("u{}", self.uploads.len());
            self.uploads.insert(name.clone(), Vec::new());
            return answer("202 Accepted", &place(repository, &name), b"");
        }
        let Some(bytes) = self.uploads.get_mut(upload) else { return answer("404 Not Found", "", b"") };
        match method {
            "PATCH" => {
                let from = request.header("content-range").unwrap().split_once('-').unwrap().0;
                if from.parse() != Ok(bytes.len()) {
                    return answer("416 Range Not Satisfiable", "", b"");
                }
                bytes.extend_from_slice(&request.body);
            }
            "PUT" => {
                bytes.extend_from_slice(&request.body);
                let digest = query.get("digest").unwrap().clone();
                let bytes = self.uploads.remove(upload).unwrap();
                if Digest::of(&bytes).to_string() != digest {
                    return answer("400 Bad Request", "", br#"{"errors":[{"code":"DIGEST_INVALID"}]}"#);
                }
                self.blobs.insert((repository.to_owned(), digest), bytes);
                return answer("201 Created", "", b"");
            }
            "DELETE" => {
                self.uploads.remove(upload);
                return answer("204 No Content", "", b"");
            }
            _ => {}
        }
        let last = self.uploads[upload].len().saturating_sub(1);
        let status = if method == "GET" { "204 No Content" } else { "202 Accepted" };
        answer(status, &format!("{}range: 0-{last}\r\n", place(repository, upload)), b"")
    }
}

/// What a registry that is strict about distribution-spec 1.1 misses or refuses in a request.
fn broken_rule(
    method: &str,
    path: &str,
    query: &BTreeMap<String, String>,
    request: &Request,
) -> Option<&'static str> {
    let header = |name| request.header(name);
    let length = request.body.len().to_string();
    let manifest = || serde_json::from_slice::<serde_json::Value>(&request.body).unwrap_or_default();
    let range = || {
        let (from, to) = header("content-range")?.split_once('-')?;
        Some(to.parse::<usize>().ok()? + 1 - from.parse::<usize>().ok()?)
    };
    let rules: &[(bool, &str)] = match (method, path.contains("/manifests/")) {
        ("PUT", true) => &[
            (header("content-length") == Some(&length), "the length of a manifest"),
            (header("content-type") == manifest()["mediaType"].as_str(), "the type that the manifest says"),
        ],
        ("GET", true) => &[(
            header("accept").is_some_and(|types| types.contains(OCI_MANIFEST) && types.contains(OCI_INDEX)),
            "the types that are understood",
        )],
        ("POST", _) => &[(header("content-length") == Some("0"), "an upload begins with no bytes")],
        ("PATCH", _) => &[
            (header("content-length") == Some(&length), "the length of a piece"),
            (header("content-type") == Some("application/octet-stream"), "the type of a piece"),
            (range() == Some(request.body.len()), "a range as long as its piece"),
        ],
        ("PUT", _) => &[
            (header("content-length") == Some(&length), "the length of a blob"),
            (header("content-type") == Some("application/octet-stream"), "the type of a blob"),
            (query.contains_key("digest"), "the digest of a blob"),
        ],
        _ => &[(request.body.is_empty(), "no body")],
    };
    rules.iter().find(|(is_kept, _)| !is_kept).map(|(_, rule)| *rule)
}

fn place(repository: &str, upload: &str) -> String {
    format!("location: /v2/{repository}/blobs/uploads/{upload}?state=canary-state\r\n")
}

/// To a `HEAD`, the head alone.
fn found(method: &str, headers: &str, bytes: &[u8]) -> Answer {
    if method == "HEAD" {
        let headers = format!("content-length: {}\r\n{headers}", bytes.len());
        return vec![Step::Send(head("200 OK", &headers))];
    }
    ok(headers, bytes)
}

/// A running one; it ends with the value.
pub(crate) struct Fake {
    pub(crate) server: Server,
    kept: Arc<Mutex<Kept>>,
}

impl Fake {
    pub(crate) fn honest() -> Self {
        Self::start(|_, _| None)
    }

    /// What `lie` says nothing to is answered honestly.
    pub(crate) fn start(lie: impl Fn(&Request, usize) -> Option<Answer> + Send + Sync + 'static) -> Self {
        let kept = Arc::<Mutex<Kept>>::default();
        let state = Arc::clone(&kept);
        let server = Server::start(move |request, number| {
            lie(request, number).unwrap_or_else(|| state.lock().unwrap().honest(request))
        });
        Self { server, kept }
    }

    pub(crate) fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap()
    }

    /// `127.0.0.1:<port>`
    pub(crate) fn name(&self) -> String {
        format!("127.0.0.1:{}", self.server.port())
    }

    /// First lines of all requests, without those that found out how to speak to it.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.server.requests().into_iter().map(|request| request.line).collect()
    }
}
