//! Fetching from servers that stall, lie and lead astray.
//!
//! Loopback plays the internet: 127.0.0.1 counts as public, every other
//! internal address as what it is, and names are resolved by the test.

mod kept;
mod reach;
mod transfer;

use std::io::Read as _;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use url::Url;

use super::*;
use crate::event::Event;
use crate::executor::Arrivals;
use crate::http::test_server::{Answer, Request, Server, Step, answer, head, ok, redirect};
use crate::network::{Credentials, Secret};
use crate::store::Store;
use crate::store::corruptions::CORRUPTIONS;

const HELLO: &[u8] = b"hello";
/// `printf hello | sha256sum`
const SHA256: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
/// `printf hello | sha1sum`
const SHA1: &str = "sha1:aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d";
/// Must never be seen anywhere.
const CANARY: &str = "canary-7f3a";

/// One build's sources over a store of its own.
struct Rig {
    store: Store,
    sources: Sources,
    directory: tempfile::TempDir,
}

/// Everything that decides, with defaults that only loopback needs.
struct Setup {
    settings: NetworkSettings,
    limits: Limits,
    world: World,
}

fn world() -> World {
    World {
        resolve: Arc::new(|name| {
            let address = match name.as_str() {
                "public.test" | "mirror.test" | "other.test" => Ok(vec![[127, 0, 0, 1].into()]),
                "internal.test" => Ok(vec![[127, 0, 0, 2].into()]),
                // One good answer does not make up for a bad one.
                "both.test" => Ok(vec![[127, 0, 0, 1].into(), [127, 0, 0, 2].into()]),
                _ => Err(io::Error::other("no such name")),
            };
            Box::pin(std::future::ready(address))
        }),
        is_internal: |address| address != Ipv4Addr::LOCALHOST && crate::http::address::is_internal(address),
        first_wait: Duration::from_millis(1),
        window: Duration::from_secs(1),
    }
}

fn source(base: Url) -> SourceSettings {
    SourceSettings {
        place: SourcePlace::Base(base),
        mirrors: Vec::new(),
        credentials: None,
        ca: Vec::new(),
        trust: SourceTrust::Configured,
        set_by: "test".to_owned(),
    }
}

fn setup(source: SourceSettings) -> Setup {
    let settings =
        NetworkSettings { sources: [("npm".to_owned(), source)].into(), ..NetworkSettings::default() };
    let limits = Limits {
        http_connect_seconds: 1,
        http_first_byte_seconds: 1,
        http_idle_seconds: 1,
        http_body_bytes: 1 << 20,
        ..Limits::default()
    };
    Setup { settings, limits, world: world() }
}

impl Setup {
    fn rig(self) -> Rig {
        let directory = tempfile::tempdir().unwrap();
        self.rig_in(directory)
    }

    fn rig_in(self, directory: tempfile::TempDir) -> Rig {
        let (store, _) = Store::open(directory.path()).unwrap();
        let sources = Sources::with_world(self.settings, &self.limits, Some(store.downloads()), self.world);
        Rig { store, sources, directory }
    }
}

fn rig(server: &Server) -> Rig {
    setup(source(server.url("http", "public.test", "/"))).rig()
}

fn buildpack() -> BuildpackRef {
    BuildpackRef { id: "acme/node".parse().unwrap(), version: "1.2.0".parse().unwrap() }
}

fn granted() -> Grants {
    Grants([Grant::Source("npm".to_owned())].into())
}

fn artifact(path: &str, integrity: Option<&str>) -> ArtifactRequest {
    ArtifactRequest {
        source: "npm".to_owned(),
        path: path.to_owned(),
        integrity: integrity.map(str::to_owned),
    }
}

impl Rig {
    fn fetch_all(&self, artifacts: Vec<ArtifactRequest>) -> Vec<Result<Vec<u8>, Refusal>> {
        let mut session = self.sources.session(&buildpack(), &granted());
        let (sender, receiver) = channel();
        let sender = Mutex::new(sender);
        let count = artifacts.len();
        let arrivals: Arrivals =
            Arc::new(move |index, file| sender.lock().unwrap().send((index, file)).unwrap());
        session.fetch(artifacts, &arrivals);
        let mut found: Vec<Option<Result<Vec<u8>, Refusal>>> = vec![None; count];
        for _ in 0..count {
            let (index, file) = receiver.recv().unwrap();
            let bytes = file.map(|mut file: File| {
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes).unwrap();
                assert!(io::Write::write(&mut file, b"x").is_err(), "read-only");
                bytes
            });
            assert!(found[index].replace(bytes).is_none(), "each arrives once");
        }
        found.into_iter().map(Option::unwrap).collect()
    }

    fn fetch(&self, path: &str, integrity: Option<&str>) -> Result<Vec<u8>, Refusal> {
        self.fetch_all(vec![artifact(path, integrity)]).remove(0)
    }

    fn id(&self, integrity: Option<&str>) -> String {
        self.fetch("x/y.tgz", integrity).unwrap_err().id
    }

    fn litter(&self) -> usize {
        // The store has one directory there for itself.
        std::fs::read_dir(self.store.root().join("work")).unwrap().count() - 1
    }

    fn kept(&self) -> usize {
        std::fs::read_dir(self.store.root().join("downloads")).unwrap().count()
    }
}
