//! What a registry says, and what is believed of it.

use serde_json::{Value, json};

use super::fake::{Fake, OCI_INDEX, OCI_MANIFEST};
use super::kit::{AMD64, Bench, CANARY, go, name, text};
use crate::fault::Diagnose as _;
use crate::http::test_server::{Answer, Server, Step, answer, head, ok};
use crate::network::{NetworkSettings, RegistrySettings};
use crate::oci::digest::Digest;
use crate::oci::image::{BlobPlace, Image};
use crate::registry::{RegistryError, RemoteBlob};

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

fn bench() -> Bench {
    Bench::hurried(&NetworkSettings::default())
}

/// A fake with an image `app:1`.
fn with_image(bench: &Bench, fake: &Fake) -> Image {
    let image = bench.image(&[b"content of the layer"]);
    fake.kept().put_image("app", "1", &image);
    image
}

fn fetch(bench: &Bench, fake: &Fake, digest: &Digest, size: u64) -> Result<Vec<u8>, RegistryError> {
    let repository = name(&format!("{}/app", fake.name())).name().clone();
    let blob = RemoteBlob { repository, digest: digest.clone(), size };
    let blobs = bench.registry.fetch(&[blob], &bench.store, &go(), &mut |_| ())?;
    Ok(std::fs::read(&blobs[0].path).unwrap())
}

fn with_type(media_type: &str, bytes: &[u8]) -> Answer {
    ok(&format!("content-type: {media_type}\r\n"), bytes)
}

/// R3: what comes instead of a blob; the store has nothing of it afterwards.
#[test]
fn r3_a_blob_that_is_not_what_it_should_be_is_not_kept() {
    const CONTENT: &[u8] = b"0123456789";
    let digest = Digest::of(CONTENT);
    let part = |range: &str, bytes: &[u8]| {
        answer("206 Partial Content", &format!("content-range: bytes {range}\r\n"), bytes)
    };
    let gzip = |bytes: &[u8]| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut gzip, bytes).unwrap();
        gzip.finish().unwrap()
    };
    // Without a length, a body ends with its connection.
    let unsized_body = |bytes: &[u8]| vec![Step::Send([&head("200 OK", "")[..], bytes].concat())];
    let lies: Vec<(&str, Answer, &str)> = vec![
        ("other bytes", ok("", b"0123456780"), "registry.integrity"),
        ("fewer bytes", ok("", b"012345678"), "registry.integrity"),
        ("more bytes", ok("", b"01234567890"), "registry.integrity"),
        ("fewer bytes, unsaid", unsized_body(b"012345678"), "registry.integrity"),
        ("more bytes, unsaid", unsized_body(b"01234567890"), "registry.integrity"),
        ("nothing", ok("", b""), "registry.integrity"),
        ("compressed", ok("content-encoding: gzip\r\n", &gzip(CONTENT)), "registry.integrity"),
        (
            "other bytes under a right header",
            ok(&format!("docker-content-digest: {digest}\r\n"), b"9876543210"),
            "registry.integrity",
        ),
        ("a part nobody asked for", part("0-9/10", CONTENT), "registry.bad_answer"),
        ("a later part", part("2-9/10", &CONTENT[2..]), "registry.bad_answer"),
        ("a page", answer("203 Non-Authoritative", "", CONTENT), "registry.bad_answer"),
        ("no content", answer("204 No Content", "", b""), "registry.bad_answer"),
        ("gone", answer("410 Gone", "", b""), "registry.bad_answer"),
        ("not there", answer("404 Not Found", "", b""), "registry.not_found"),
    ];
    for (what, lie, id) in lies {
        let bench = bench();
        let fake = Fake::start(move |request, _| request.line.contains("/blobs/").then(|| lie.clone()));
        let before = bench.kept();
        let error = fetch(&bench, &fake, &digest, 10).unwrap_err();
        assert_eq!(error.id(), id, "{what}: {}", text(&error));
        assert_eq!(bench.kept(), before, "{what}");
    }
    let fake = Fake::honest();
    fake.kept().put_blob("app", CONTENT);
    assert_eq!(fetch(&bench(), &fake, &digest, 10).unwrap(), CONTENT);
}

/// R3: an answer to a question for the rest that is something else.
#[test]
fn r3_the_rest_is_the_rest() {
    const CONTENT: &[u8] = b"0123456789";
    let half = || {
        let mut bytes = head("200 OK", "content-length: 10\r\n");
        bytes.extend_from_slice(&CONTENT[..5]);
        vec![Step::Send(bytes), Step::Reset]
    };
    let part = |range: &str, bytes: &[u8]| {
        answer("206 Partial Content", &format!("content-range: bytes {range}\r\n"), bytes)
    };
    // What the second request is answered with, and whether all ends well.
    for (what, second, good) in [
        ("the rest", part("5-9/10", &CONTENT[5..]), true),
        ("the whole", ok("", CONTENT), true),
        ("the whole as a part from the start", part("0-9/10", CONTENT), true),
        ("the range is refused", answer("416 Range Not Satisfiable", "", b""), true),
        ("another rest", part("5-9/10", b"xxxxx"), true),
        ("the whole as the rest", part("5-9/10", CONTENT), false),
    ] {
        let bench = bench();
        let fake = Fake::start(move |request, number| match number {
            _ if !request.line.contains("/blobs/") => None,
            0 => Some(half()),
            1 => {
                assert_eq!(request.header("range"), Some("bytes=5-"));
                Some(second.clone())
            }
            _ => None,
        });
        fake.kept().put_blob("app", CONTENT);
        let result = fetch(&bench, &fake, &Digest::of(CONTENT), 10);
        match result {
            Ok(bytes) => assert!(good && bytes == CONTENT, "{what}"),
            Err(error) => {
                assert!(!good, "{what}: {}", text(&error));
                assert_eq!(bench.kept(), Vec::<String>::new(), "{what}");
            }
        }
    }
}

/// R3: manifests and configurations that are not what they are said to be.
#[test]
fn r3_documents_are_hashed() {
    let bench = bench();
    let honest = Fake::honest();
    let image = with_image(&bench, &honest);
    let (configuration, manifest) = image.documents();
    let header = |value: &str| {
        ok(&format!("content-type: {OCI_MANIFEST}\r\ndocker-content-digest: {value}\r\n"), &manifest.bytes)
    };
    let mut other = configuration.bytes.clone();
    let last = other.len() - 2;
    other[last] = b' ';
    for (what, place, lie) in [
        ("another manifest", "@", with_type(OCI_MANIFEST, &image.documents_called("x").1.bytes)),
        ("the header lies", ":1", header(Digest::of(b"").as_str())),
        ("the header lies by digest", "@", header(Digest::of(b"").as_str())),
        ("the header is a path", ":1", header("sha256:../../etc/passwd")),
        ("the header is MD5", ":1", header("md5:d41d8cd98f00b204e9800998ecf8427e")),
        ("another configuration", "blobs", ok("", &other)),
        ("a short configuration", "blobs", ok("", &configuration.bytes[1..])),
        ("no configuration", "blobs", answer("404 Not Found", "", b"")),
    ] {
        let is_blob = place == "blobs";
        let fake = Fake::start(move |request, _| {
            let path = if is_blob { "/blobs/" } else { "/manifests/" };
            request.line.contains(path).then(|| lie.clone())
        });
        fake.kept().put_image("app", "1", &image);
        let version = if place == "@" { format!("@{}", manifest.digest) } else { ":1".to_owned() };
        let error = bench.find(&format!("{}/app{version}", fake.name())).unwrap_err();
        assert!(
            ["registry.integrity", "registry.bad_document", "registry.not_found"].contains(&error.id()),
            "{what}: {}",
            text(&error)
        );
    }
    assert_eq!(
        bench.find(&format!("{}/app:1", honest.name())).unwrap().unwrap().image.configuration,
        image.configuration
    );
}

/// A manifest as text that can be changed.
fn manifest_of(image: &Image) -> Value {
    serde_json::from_slice(&image.documents().1.bytes).unwrap()
}

/// What is found when `bytes` are the manifest of `app:1`, with these other blobs.
fn found(media_type: &str, bytes: &[u8], blobs: &[&[u8]]) -> Result<Image, RegistryError> {
    let bench = bench();
    let fake = Fake::honest();
    let image = bench.image(&[b"content of the layer"]);
    fake.kept().put_image("app", "0", &image);
    for blob in blobs {
        fake.kept().put_blob("app", blob);
    }
    fake.kept().put_manifest("app", "1", media_type, bytes);
    bench.find(&format!("{}/app:1", fake.name())).map(|found| found.unwrap().image)
}

/// R4: documents with two meanings.
#[test]
fn r4_documents_with_two_meanings_are_refused() {
    let image = bench().image(&[b"content of the layer"]);
    let good = manifest_of(&image);
    let with = |key: &str, value: Value| {
        let mut changed = good.clone();
        changed[key] = value;
        changed.to_string()
    };
    let without = |key: &str| {
        let mut changed = good.clone();
        changed.as_object_mut().unwrap().remove(key);
        changed.to_string()
    };
    let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).to_string();
    let twice = good.to_string().replacen("{\"", "{\"layers\":[],\"", 1);
    let schema_1 = r#"{"schemaVersion":1,"name":"app","tag":"1","fsLayers":[],"history":[],"signatures":[]}"#;
    for (what, media_type, text) in [
        ("an index that is said to be an image", OCI_MANIFEST, index.clone()),
        ("an image that is said to be an index", OCI_INDEX, good.to_string()),
        ("both shapes", OCI_MANIFEST, with("manifests", json!([]))),
        ("both shapes as an index", OCI_INDEX, {
            let mut both: Value = serde_json::from_str(&index).unwrap();
            both["layers"] = json!([]);
            both.to_string()
        }),
        ("another type inside", OCI_MANIFEST, with("mediaType", json!(OCI_INDEX))),
        ("Docker's type outside only", DOCKER_MANIFEST, good.to_string()),
        ("Docker's without a type inside", DOCKER_MANIFEST, without("mediaType")),
        ("a key twice", OCI_MANIFEST, twice),
        ("no layers", OCI_MANIFEST, without("layers")),
        ("no configuration", OCI_MANIFEST, without("config")),
        ("another schema", OCI_MANIFEST, with("schemaVersion", json!(1))),
        ("old layers beside the new", OCI_MANIFEST, with("fsLayers", json!([]))),
        ("no JSON", OCI_MANIFEST, "hello".to_owned()),
        ("no type outside", "text/html", good.to_string()),
        ("schema 1", "application/vnd.docker.distribution.manifest.v1+prettyjws", schema_1.to_owned()),
        ("schema 1 in disguise", OCI_MANIFEST, schema_1.to_owned()),
    ] {
        let error = found(media_type, text.as_bytes(), &[]).unwrap_err();
        assert_eq!(error.id(), "registry.bad_document", "{what}: {}", super::kit::text(&error));
    }
    // Older images do not repeat their type inside.
    for (media_type, text) in [
        (OCI_MANIFEST, good.to_string()),
        (OCI_MANIFEST, without("mediaType")),
        (&format!("{OCI_MANIFEST}; charset=utf-8"), good.to_string()),
        (DOCKER_MANIFEST, with("mediaType", json!(DOCKER_MANIFEST))),
    ] {
        found(media_type, text.as_bytes(), &[]).unwrap();
    }
}

/// R3: digests are no paths, and of one algorithm.
#[test]
fn r3_digests_in_documents_are_read_strictly() {
    let good = manifest_of(&bench().image(&[b"content of the layer"]));
    for digest in ["sha256:../../../etc/passwd", "md5:d41d8cd98f00b204e9800998ecf8427e", "sha256:", "x", ""] {
        for place in ["/config/digest", "/layers/0/digest"] {
            let mut changed = good.clone();
            *changed.pointer_mut(place).unwrap() = json!(digest);
            let error = found(OCI_MANIFEST, changed.to_string().as_bytes(), &[]).unwrap_err();
            assert_eq!(error.id(), "registry.bad_document", "{digest} {place}: {}", text(&error));
        }
    }
}

/// R8: what a manifest and its configuration say of each other; no layer is asked for.
#[test]
fn r8_manifest_and_configuration_agree() {
    let image = bench().image(&[b"content of the layer"]);
    let mut manifest = manifest_of(&image);
    let layer = manifest["layers"][0].clone();
    manifest["layers"] = json!([layer, layer]);
    let error = found(OCI_MANIFEST, manifest.to_string().as_bytes(), &[]).unwrap_err();
    assert!(text(&error).contains("2 layers, and its configuration lists 1"), "{}", text(&error));
    manifest["layers"] = Value::Array(vec![layer; 600]);
    let error = found(OCI_MANIFEST, manifest.to_string().as_bytes(), &[]).unwrap_err();
    assert!(text(&error).contains("more than 512 layers"), "{}", text(&error));
}

fn index(entries: &[(&Image, &str, &str)]) -> Vec<u8> {
    let of = |(image, os, architecture): &(&Image, &str, &str)| {
        let manifest = image.documents().1;
        json!({"mediaType": OCI_MANIFEST, "digest": manifest.digest, "size": manifest.bytes.len(),
            "platform": {"os": os, "architecture": architecture}})
    };
    let manifests: Vec<Value> = entries.iter().map(of).collect();
    json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}).to_string().into_bytes()
}

/// R8: an image is chosen from an index by its platform, which has to be true.
#[test]
fn r8_platforms_are_checked_before_anything_is_downloaded() {
    let bench = bench();
    let fake = Fake::honest();
    let amd64 = with_image(&bench, &fake);
    let mut arm64 = bench.image(&[b"for another machine"]);
    arm64.configuration.architecture = "arm64".to_owned();
    fake.kept().put_image("app", "arm", &arm64);
    let put = |tag: &str, bytes: &[u8]| fake.kept().put_manifest("app", tag, OCI_INDEX, bytes);
    let find = |tag: &str| bench.find(&format!("{}/app:{tag}", fake.name()));
    put("both", &index(&[(&arm64, "linux", "arm64"), (&amd64, "linux", "amd64")]));
    let chosen = find("both").unwrap().unwrap();
    assert_eq!(chosen.image.configuration, amd64.configuration);
    // By the digest of the image, not of the index.
    assert_eq!(chosen.reference.digest(), Some(&amd64.documents().1.digest));
    put("none", &index(&[(&arm64, "linux", "arm64"), (&amd64, "windows", "amd64")]));
    let error = find("none").unwrap_err();
    assert_eq!(error.id(), "registry.no_platform");
    let said = error.to_string();
    assert!(said.contains("`linux/amd64`, only for `linux/arm64`, `windows/amd64`"), "{said}");
    put("lie", &index(&[(&arm64, "linux", "amd64")]));
    let said = text(&find("lie").unwrap_err());
    assert!(said.contains("it is for `linux/arm64`"), "{said}");

    // An index in an index, and one that contains itself as far as it can.
    let outer = |bytes: &[u8]| {
        json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [
            {"mediaType": OCI_INDEX, "digest": Digest::of(bytes), "size": bytes.len()}]})
        .to_string()
        .into_bytes()
    };
    let mut nested = index(&[(&amd64, "linux", "amd64")]);
    put("0", &nested);
    for depth in 1..=4 {
        nested = outer(&nested);
        put(&depth.to_string(), &nested);
    }
    assert!(find("1").unwrap().is_some() && find("2").unwrap().is_some());
    let said = text(&find("4").unwrap_err());
    assert!(said.contains("nested too deeply"), "{said}");
    assert!(!fake.lines().iter().any(|line| line.contains(amd64.layers[0].digest.hex())));
}

/// R8: the size that an index gives is that of the manifest.
#[test]
fn r8_sizes_in_an_index_are_true() {
    let bench = bench();
    let fake = Fake::honest();
    let image = with_image(&bench, &fake);
    let mut wrong: Value = serde_json::from_slice(&index(&[(&image, "linux", "amd64")])).unwrap();
    wrong["manifests"][0]["size"] = json!(7);
    fake.kept().put_manifest("app", "x", OCI_INDEX, wrong.to_string().as_bytes());
    assert_eq!(bench.find(&format!("{}/app:x", fake.name())).unwrap_err().id(), "registry.integrity");
}

/// R5: bodies that do not end, or are far too large, end soon and are not kept in memory.
#[test]
fn r5_what_does_not_end_is_cut_off() {
    let endless = || {
        vec![
            Step::Send(head("200 OK", &format!("content-type: {OCI_MANIFEST}\r\n"))),
            Step::Endless(vec![b' '; 65536]),
        ]
    };
    let started = std::time::Instant::now();
    let fake = Fake::start(move |request, _| request.line.contains("manifests").then(endless));
    let error = bench().find(&format!("{}/app", fake.name())).unwrap_err();
    assert_eq!(error.id(), "registry.too_large");
    // An endless token, and an endless explanation.
    for status in ["200 OK", "403 Forbidden"] {
        let fake = Fake::start(move |request, _| {
            let address = request.header("host").unwrap();
            if request.line.contains("manifests") {
                let challenge = format!("www-authenticate: Bearer realm=\"http://{address}/token\"\r\n");
                return Some(answer("401 Unauthorized", &challenge, b""));
            }
            Some(vec![Step::Send(head(status, "")), Step::Endless(vec![b' '; 65536])])
        });
        bench().find(&format!("{}/app", fake.name())).unwrap_err();
    }
    // 100,000 entries fit into no index.
    let entry = json!({"mediaType": OCI_MANIFEST, "digest": Digest::of(b""), "size": 0});
    let entries = vec![entry; 100_000];
    let large = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": &entries}).to_string();
    let said = text(&found(OCI_INDEX, large.as_bytes(), &[]).unwrap_err());
    assert!(said.contains("larger than 4194304 bytes"), "{said}");
    let many = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": &entries[..1001]}).to_string();
    let said = text(&found(OCI_INDEX, many.as_bytes(), &[]).unwrap_err());
    assert!(said.contains("more than 1000"), "{said}");
    // A configuration that is said to be huge is not asked for.
    let mut manifest = manifest_of(&bench().image(&[b"content of the layer"]));
    manifest["config"]["size"] = json!(u64::from(u32::MAX));
    let error = found(OCI_MANIFEST, manifest.to_string().as_bytes(), &[]).unwrap_err();
    assert_eq!(error.id(), "registry.too_large");
    assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
}

/// R6: addresses in a manifest are nobody's to follow, bytes in it are taken when they are right.
#[test]
fn r6_a_manifest_sends_nobody_anywhere() {
    use base64::Engine as _;
    let canary = Server::start(|_, _| ok("", b"content"));
    let bench = bench();
    let fake = Fake::honest();
    let image = bench.image(&[b"content of the layer"]);
    fake.kept().put_image("app", "0", &image);
    let mut manifest = manifest_of(&image);
    manifest["layers"][0]["urls"] = json!([canary.url("http", "127.0.0.1", "/layer").as_str()]);
    let configuration = image.documents().0.bytes;
    let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
    let blobs_asked = || fake.lines().iter().filter(|line| line.contains("/blobs/")).count();
    // Wrong bytes in the manifest are passed over: the right ones are asked for.
    let cases = [(encode(b"wrong"), 1), ("no base64!".to_owned(), 2), (encode(&configuration), 2)];
    for (tag, (data, asked)) in ["1", "2", "3"].into_iter().zip(cases) {
        manifest["config"]["data"] = json!(data);
        fake.kept().put_manifest("app", tag, OCI_MANIFEST, manifest.to_string().as_bytes());
        let found = bench.find(&format!("{}/app:{tag}", fake.name())).unwrap().unwrap();
        assert_eq!(found.image.configuration, image.configuration);
        assert_eq!(blobs_asked(), asked, "{data}");
        let layer = &found.image.layers[0];
        assert!(matches!(layer.blob, BlobPlace::Registry(_)));
    }
    let layer = &image.layers[0];
    assert_eq!(
        fetch(&bench, &fake, &layer.digest, layer.size).unwrap(),
        std::fs::read(layer.file().unwrap()).unwrap()
    );
    assert_eq!(canary.connections(), 0);
}

/// What a mirror gets wrong, the registry makes good.
#[test]
fn r3_a_mirror_that_lies_costs_a_request() {
    let bench = bench();
    let mirror =
        Fake::start(|request, _| request.line.contains("/blobs/").then(|| ok("", CANARY.as_bytes())));
    let fake = Fake::honest();
    let image = with_image(&bench, &fake);
    mirror.kept().put_image("app", "1", &image);
    let mut settings = NetworkSettings::default();
    let mirrors = vec![mirror.server.url("http", "127.0.0.1", "/")];
    settings.registries.insert(fake.name(), RegistrySettings { mirrors, ..RegistrySettings::default() });
    let bench = Bench::hurried(&settings);
    let app = name(&format!("{}/app:1", fake.name()));
    let found = bench.registry.image(&app, AMD64, &go()).unwrap().unwrap();
    assert_eq!(found.image.configuration, image.configuration);
    let layer = &image.layers[0];
    fetch(&bench, &fake, &layer.digest, layer.size).unwrap();
    // Nothing is ever published to a mirror.
    let before = mirror.lines().len();
    bench.push(&bench.image(&[b"new"]), &app).unwrap();
    assert_eq!(mirror.lines().len(), before);
}

/// A mirror whose index lacks a platform, or whose manifest is none, is no reason not to ask the registry.
#[test]
fn r4_a_mirror_that_is_of_no_use_stands_in_nobodys_way() {
    let (fake, mirror) = (Fake::honest(), Fake::honest());
    let mirrors = vec![mirror.server.url("http", "127.0.0.1", "/")];
    let mut settings = NetworkSettings::default();
    settings.registries.insert(fake.name(), RegistrySettings { mirrors, ..RegistrySettings::default() });
    let empty = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [] }).to_string();
    for (tag, media_type, useless) in [("1", OCI_INDEX, empty.as_str()), ("2", OCI_MANIFEST, "{}")] {
        let bench = Bench::hurried(&settings);
        let image = bench.image(&[b"content"]);
        fake.kept().put_image("app", tag, &image);
        mirror.kept().put_manifest("app", tag, media_type, useless.as_bytes());
        let name = format!("{}/app:{tag}", fake.name());
        // Whoever asks what systems there are has seen the mirror's.
        let _ = bench.registry.first_document(&name.parse().unwrap(), &go());
        for _ in 0..2 {
            let found = bench.find(&name).unwrap().expect("the registry has it");
            assert_eq!(found.image.configuration, image.configuration, "{useless}");
        }
    }
}
