//! Against Debian's `docker-registry`: the programs' images, with and without signing in.

use std::sync::Arc;

use super::*;
use crate::event::{Event, Transfer};
use crate::limits::Limits;
use crate::network::{
    FindRegistryCredentials, NetworkSettings, RegistryCredentials, RegistrySettings, Secret,
};
use crate::oci::moved::Amount;
use crate::registry::tests::kit::{go, image, noise, signed_in};
use crate::registry::tests::served::{Served, run};
use crate::store::Store;

/// The programs' images, and a directory for files.
struct Bench {
    images: RegistryImages,
    directory: tempfile::TempDir,
}

fn bench(settings: &NetworkSettings) -> Bench {
    let directory = tempfile::tempdir().unwrap();
    let registry = Registry::new(settings, &Limits::default(), directory.path().to_owned());
    let scratch = directory.path().to_owned();
    Bench { images: RegistryImages::new(registry, "amd64".to_owned(), None, scratch), directory }
}

impl Bench {
    fn save(&self, image: &Image, names: &[&str]) -> SavedImage {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        self.images.save(image, &names, &(), &go(), &mut |_| ()).unwrap()
    }
}

/// Requests that carry bytes of blobs, or begin to.
fn transfers(requests: &[String]) -> Vec<&String> {
    let moves = |line: &&String| {
        let is_mount = line.starts_with("POST") && line.contains("mount=") && line.ends_with(" 201");
        let is_sent = ["POST ", "PATCH "].iter().any(|method| line.starts_with(method))
            || (line.starts_with("PUT ") && line.contains("/blobs/"));
        let is_fetched = line.starts_with("GET ") && line.contains("/blobs/");
        (is_sent && !is_mount) || is_fetched
    };
    requests.iter().filter(moves).collect()
}

#[test]
fn an_unchanged_image_is_not_sent_again() {
    let served = Served::start();
    let bench = bench(&NetworkSettings::default());
    let made = image(bench.directory.path(), &[b"one", b"two"]);
    let names = [&*format!("{}/app:1", served.name()), &format!("{}/app:2", served.name())];
    let saved = bench.save(&made, &names);
    assert_eq!(saved.names, names);
    assert_eq!(saved.digest.as_ref(), Some(&made.documents().1.digest));
    assert_eq!(saved.manifest_bytes, Some(made.documents().1.bytes.len() as u64));
    let all = Amount { layers: 2, bytes: made.layers[0].size + made.layers[1].size };
    assert_eq!(saved.moved, Moved { sent: all, ..Moved::default() });
    let before = served.requests().len();
    let again = SavedImage { moved: Moved { present: all, ..Moved::default() }, ..saved };
    assert_eq!(bench.save(&made, &names), again);
    let requests = served.requests().split_off(before);
    assert_eq!(requests.len(), 3, "{requests:#?}");
    assert!(requests.iter().all(|line| line.starts_with("HEAD /v2/app/manifests/")), "{requests:#?}");
}

/// EXP-12, RBS-04: blobs of another repository of the registry are taken over by name, those
/// of the same one are left where they are, and no byte of a layer moves.
#[test]
fn rbs_04_within_a_registry_no_layer_moves() {
    let served = Served::start();
    let bench = bench(&NetworkSettings::default());
    let place = |name: &str| format!("{}/{name}", served.name());
    let (old_base, new_base) = (noise(1 << 20, 1), noise(1 << 20, 2));
    let run_image = image(bench.directory.path(), &[&new_base]);
    bench.save(&run_image, &[&place("run:2")]);
    bench.save(&image(bench.directory.path(), &[&old_base, b"app"]), &[&place("team/app:1")]);

    // What another run finds is what is there then.
    let bench = self::bench(&NetworkSettings::default());
    // What the rebaser does with them.
    let app = bench.images.find(&place("team/app:1")).unwrap().unwrap();
    let base = bench.images.find(&place("run:2")).unwrap().unwrap();
    assert_eq!(base.reference, format!("{}@{}", place("run"), run_image.documents().1.digest));
    let layers = vec![base.image.layers[0].clone(), app.image.layers[1].clone()];
    let mut configuration = app.image.configuration.clone();
    configuration.rootfs.diff_ids = layers.iter().map(|layer| layer.diff_id.clone()).collect();
    let rebased = Image { family: app.image.family, configuration, layers };
    let before = served.requests().len();
    let saved = bench.save(&rebased, &[&place("team/app:1"), &place("team/app:rebased")]);
    assert_eq!(saved.digest, Some(rebased.documents().1.digest));
    let [base_size, app_size] = [&rebased.layers[0], &rebased.layers[1]].map(|layer| layer.size);
    let (mounted, present) = (Amount::one(base_size), Amount::one(app_size));
    assert_eq!(saved.moved, Moved { mounted, present, ..Moved::default() });
    let requests = served.requests().split_off(before);
    let configuration = rebased.documents().0.digest;
    // The only blob that is sent is the new configuration.
    let moved = transfers(&requests);
    assert!(
        matches!(moved[..], [opened, sent] if opened.starts_with("POST /v2/team/app/blobs/uploads/ ")
            && sent.contains(&format!("digest=sha256%3A{}", configuration.hex()))),
        "{requests:#?}"
    );
    assert_eq!(requests.iter().filter(|line| line.contains("from=run")).count(), 1, "{requests:#?}");
    assert_eq!(requests.len(), 13, "{requests:#?}");

    // All of it is there.
    let copy = format!("oci:{}:x", bench.directory.path().join("copy").display());
    let source = format!("docker://{}", place("team/app:rebased"));
    run("skopeo", &["--insecure-policy", "copy", "-q", "--src-tls-verify=false", &source, &copy]);
}

#[test]
fn layers_of_another_registry_pass_through() {
    let (one, other) = (Served::start(), Served::start());
    let bench = bench(&NetworkSettings::default());
    let content = noise(1 << 20, 3);
    let base = image(bench.directory.path(), &[&content]);
    bench.save(&base, &[&format!("{}/run:1", one.name())]);
    let found = bench.images.find(&format!("{}/run:1", one.name())).unwrap().unwrap();
    let names = [&*format!("{}/app:1", other.name()), &format!("{}/copies/app:1", one.name())];
    let size = base.layers[0].size;
    // The other registry is sent it; this one has it next door.
    let (sent, mounted) = (Amount::one(size), Amount::one(size));
    assert_eq!(bench.save(&found.image, &names).moved, Moved { sent, mounted, ..Moved::default() });
    for name in names {
        let found = bench.images.find(name).unwrap().unwrap();
        let mut tar = Vec::new();
        bench.images.layer(&found, &base.layers[0].diff_id).unwrap().read_to_end(&mut tar).unwrap();
        assert_eq!(tar, std::fs::read(base.layers[0].file().unwrap()).unwrap());
    }
    // Only what has no name was on disk for it.
    let left: Vec<_> = std::fs::read_dir(bench.directory.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn layers_are_brought_here_when_asked_for() {
    let served = Served::start();
    let bench = bench(&NetworkSettings::default());
    let made = image(bench.directory.path(), &[b"one", b"two"]);
    let name = format!("{}/app:1", served.name());
    bench.save(&made, &[&name]);
    let mut found = bench.images.find(&name).unwrap().unwrap();
    assert!(found.image.layers.iter().all(|layer| !layer.is_here()));
    let (store, _) = Store::open(&bench.directory.path().join("store")).unwrap();
    found.image.layers[0].blob = made.layers[0].blob.clone();
    bench.images.fetch(&mut found.image.layers, &store, &go(), &mut |_| ()).unwrap();
    assert_eq!(found.image.layers[0], made.layers[0]);
    let path = found.image.layers[1].file().unwrap();
    assert!(path.starts_with(bench.directory.path().join("store")));
    assert_eq!(std::fs::read(path).unwrap(), std::fs::read(made.layers[1].file().unwrap()).unwrap());
    // And not again.
    let before = transfers(&served.requests()).len();
    let mut again = bench.images.find(&name).unwrap().unwrap();
    bench.images.fetch(&mut again.image.layers, &store, &go(), &mut |_| ()).unwrap();
    assert_eq!(transfers(&served.requests()).len(), before + 1, "the layer that was a file");
}

/// What is told of transfers while `work` goes on: which way, bytes done and of all.
fn told(work: impl FnOnce(&mut dyn EventSink)) -> Vec<(Transfer, u64, u64)> {
    let mut told = Vec::new();
    work(&mut |event| match event {
        Event::Transfer { transfer, done_bytes, total_bytes } => {
            told.push((transfer, done_bytes, total_bytes));
        }
        other => panic!("{other:?}"),
    });
    told
}

#[test]
fn transfers_are_told_and_what_is_there_is_none() {
    let (one, other) = (Served::start(), Served::start());
    let bench = bench(&NetworkSettings::default());
    let made = image(bench.directory.path(), &[&noise(3 << 20, 4), &noise(1 << 20, 5)]);
    let sizes = [made.layers[0].size, made.layers[1].size];
    let all = sizes[0] + sizes[1];
    let name = format!("{}/app:1", one.name());
    let names = std::slice::from_ref(&name);
    let save = |image: &Image, names: &[String]| {
        told(|events| drop(bench.images.save(image, names, &(), &go(), events).unwrap()))
    };

    let published = save(&made, names);
    assert_eq!(published.last(), Some(&(Transfer::Publish, all, all)));
    assert!(published.is_sorted_by_key(|(_, done, _)| *done), "{published:?}");
    assert_eq!(save(&made, names), []);
    // One layer is there already.
    let grown = image(bench.directory.path(), &[&noise(3 << 20, 4), &noise(2 << 20, 6)]);
    assert_eq!(grown.layers[0], made.layers[0]);
    let size = grown.layers[1].size;
    assert_eq!(save(&grown, names).last(), Some(&(Transfer::Publish, size, size)));

    // What goes from one registry to another goes over the network twice.
    let mut found = self::bench(&NetworkSettings::default()).images.find(&name).unwrap().unwrap().image;
    let passed = save(&found, &[format!("{}/app:1", other.name())]);
    let twice = 2 * (sizes[0] + size);
    assert_eq!(passed.last(), Some(&(Transfer::Publish, twice, twice)));

    let (store, _) = Store::open(&bench.directory.path().join("store")).unwrap();
    let first = found.layers[..1].to_vec();
    let fetch =
        |layers: &mut [Layer]| told(|events| bench.images.fetch(layers, &store, &go(), events).unwrap());
    assert_eq!(fetch(&mut first.clone()).last(), Some(&(Transfer::Fetch, sizes[0], sizes[0])));
    assert_eq!(fetch(&mut first.clone()), []);
    assert_eq!(fetch(&mut found.layers).last(), Some(&(Transfer::Fetch, size, size)));
}

/// With a user `joe`, whose password is `s3cret:x`.
fn with_password() -> Served {
    Served::with("", |directory| {
        let file = directory.join("htpasswd");
        std::fs::write(&file, run("htpasswd", &["-nbB", "joe", "s3cret:x"])).unwrap();
        format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", file.display())
    })
}

fn joe(password: &str) -> RegistryCredentials {
    RegistryCredentials::Basic { user: "joe".to_owned(), password: Secret::new(password) }
}

/// ANA-02: whether it can be written is known before, and asking leaves nothing.
#[test]
fn ana_02_access_is_checked_without_a_trace() {
    let served = with_password();
    let name = format!("{}/team/app:1", served.name());
    let allowed = bench(&signed_in(&served.name(), joe("s3cret:x")));
    allowed.images.check_write(&name).unwrap();
    // It keeps a hash of nothing for each upload, but this is over.
    let requests = served.requests();
    let ended = requests
        .iter()
        .any(|line| line.starts_with("DELETE /v2/team/app/blobs/uploads/") && line.ends_with(" 204"));
    assert!(ended, "{requests:#?}");
    for upload in std::fs::read_dir(served.kept("team/app", "_uploads")).unwrap() {
        let upload = upload.unwrap().path();
        assert!(!upload.join("startedat").exists() && !upload.join("data").exists());
    }
    assert_eq!(allowed.images.find(&name).unwrap(), None);
    for settings in [NetworkSettings::default(), signed_in(&served.name(), joe("wrong"))] {
        let refused = bench(&settings);
        let error = refused.images.check_write(&name).unwrap_err();
        assert!(matches!(error, ImagesError::NotWritable { .. }), "{error:?}");
        assert!(matches!(refused.images.find(&name), Err(ImagesError::Image { .. })));
        let made = image(refused.directory.path(), &[b"x"]);
        let error =
            refused.images.save(&made, std::slice::from_ref(&name), &(), &go(), &mut |_| ()).unwrap_err();
        assert!(matches!(error, ImagesError::Unsaved { .. }), "{error:?}");
    }
    let made = image(allowed.directory.path(), &[b"x"]);
    allowed.save(&made, &[&name]);
    assert!(allowed.images.find(&name).unwrap().is_some());
}

/// RPT-06: all names are tried, and those that fail are named.
#[test]
fn rpt_06_every_name_is_tried() {
    let (open, closed) = (Served::start(), with_password());
    let bench = bench(&NetworkSettings::default());
    let made = image(bench.directory.path(), &[b"x"]);
    let names = [
        format!("{}/app:1", closed.name()),
        format!("{}/app:1", open.name()),
        format!("{}/app@{}", open.name(), made.documents().1.digest),
        format!("{}/other:1", open.name()),
    ];
    let error = bench.images.save(&made, &names, &(), &go(), &mut |_| ()).unwrap_err();
    let ImagesError::Unsaved { saved, unsaved } = error else { panic!("{error:?}") };
    assert_eq!(saved.names, [names[1].clone(), names[3].clone()]);
    assert_eq!(saved.digest, Some(made.documents().1.digest));
    assert_eq!(unsaved.iter().map(|one| &one.name).collect::<Vec<_>>(), [&names[2], &names[0]]);
}

/// R14: a certificate of an authority that is not known is final, also where plain text is
/// allowed; one that is named is good.
#[test]
fn r14_certificates_are_checked() {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    let tls = "  tls: {certificate: $DIRECTORY/cert.pem, key: $DIRECTORY/key.pem}\n";
    let served = Served::with(tls, |directory| {
        std::fs::write(directory.join("cert.pem"), certificate.pem()).unwrap();
        std::fs::write(directory.join("key.pem"), key.serialize_pem()).unwrap();
        String::new()
    });
    let name = format!("{}/app:1", served.name());
    let with = |registry: RegistrySettings| NetworkSettings {
        registries: [(served.name(), registry)].into(),
        ..NetworkSettings::default()
    };
    let insecure = RegistrySettings { insecure: true, ..RegistrySettings::default() };
    for settings in [NetworkSettings::default(), with(insecure)] {
        let error = bench(&settings).images.find(&name).unwrap_err();
        let source = std::error::Error::source(&error).unwrap().downcast_ref::<RegistryError>();
        let is_about_certificate =
            matches!(source, Some(RegistryError::Step { source: Trouble::Certificate(_), .. }));
        assert!(is_about_certificate, "{error:?}");
    }
    assert_eq!(served.requests(), Vec::<String>::new());
    let trusted = bench(&NetworkSettings::default());
    let ca = trusted.directory.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let trusted = bench(&with(RegistrySettings { ca: vec![ca], ..RegistrySettings::default() }));
    assert_eq!(trusted.images.find(&name).unwrap(), None);
    trusted.save(&image(trusted.directory.path(), &[b"x"]), &[&name]);
    assert!(trusted.images.find(&name).unwrap().is_some());
}

/// Whoever knows credentials and cannot say is the reason, in its own words.
#[test]
fn credentials_that_cannot_be_found_are_told() {
    #[derive(Debug)]
    struct Broken;
    impl FindRegistryCredentials for Broken {
        fn find(&self, _: &str, _: &str) -> Result<Option<RegistryCredentials>, String> {
            Err("`docker-credential-x` is not installed".to_owned())
        }
    }
    let served = with_password();
    let settings =
        NetworkSettings { registry_credentials: Some(Arc::new(Broken)), ..NetworkSettings::default() };
    let error = bench(&settings).images.find(&format!("{}/app", served.name())).unwrap_err();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    assert!(cause.to_string().contains("`docker-credential-x` is not installed"), "{cause}");
}
