//! What is attached to an image in a registry: Debian's, which has not heard of referrers.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::site::{SAMPLE, Site};

/// A registry on a port of its own; it ends with the test.
pub(crate) struct Registry {
    process: Child,
    host: String,
    log: Arc<Mutex<Vec<String>>>,
}

impl Registry {
    /// `None`, said aloud, where it is not installed.
    pub(crate) fn start(site: &Site) -> Option<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let host = format!("127.0.0.1:{port}");
        let storage = site.path().join("registry").display().to_string();
        let configuration = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: '{storage}'}}}}\n\
             http: {{addr: '{host}'}}\n"
        );
        let file = site.file("registry.yml", &configuration);
        let started = Command::new("docker-registry")
            .args(["serve", file.to_str().unwrap()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut process) = started else {
            assert!(std::env::var("CI").is_err(), "`docker-registry` must not be missing in CI");
            println!("SKIPPED: `docker-registry` is not installed");
            return None;
        };
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let (lines, output) = (Arc::clone(&log), process.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
        let started = Instant::now();
        while std::net::TcpStream::connect(&host).is_err() {
            assert!(started.elapsed() < Duration::from_secs(30), "the registry does not start");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(Self { process, host, log })
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Requests since the last call that have one of these words.
    pub(crate) fn requests(&self, words: &[&str]) -> Vec<String> {
        // The log is written a moment after the answer.
        std::thread::sleep(Duration::from_millis(300));
        let lines = std::mem::take(&mut *self.log.lock().unwrap());
        lines.into_iter().filter(|line| words.iter().any(|word| line.contains(word))).collect()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn attachments_are_published_found_and_not_sent_twice() {
    let site = Site::new();
    let Some(registry) = Registry::start(&site) else { return };
    let name = format!("{}/demo/website:1", registry.host);
    let build =
        || site.run(&["build", "--path", SAMPLE, "--publish", "--attach", "sbom,provenance", &name]).with(0);
    build().says(&["moved     3 layers, "]);
    assert!(!registry.requests(&["\"PUT /v2/", "\"POST /v2/"]).is_empty());

    // Only manifest, configuration and the list are read.
    let inspected = site.run(&["inspect", "--json", &name]).with(0).out;
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    let blobs = registry.requests(&["\"GET /v2/demo/website/blobs/"]);
    assert_eq!(blobs.len(), 1, "the configuration: {blobs:#?}");
    let kinds: Vec<&str> = inspected["attachments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|attachment| attachment["artifact_type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["application/vnd.cyclonedx+json", "application/vnd.in-toto+json"]);
    assert_eq!(inspected["sbom"]["documents"], Value::Null, "that layer was not read");

    let statement = site.run(&["inspect", "--provenance", &name]).with(0).out;
    let statement: Value = serde_json::from_str(&statement).unwrap();
    let digest = inspected["digest"].as_str().unwrap();
    assert_eq!(statement["subject"][0]["digest"]["sha256"], digest.trim_start_matches("sha256:"));

    // The layer with the bills of materials is the only one that is fetched.
    registry.requests(&[]);
    site.run(&["sbom", "download", &name, "-o", "out"]).with(0).says(&["sbom.cdx.json"]);
    let blobs = registry.requests(&["\"GET /v2/demo/website/blobs/"]);
    assert_eq!(blobs.len(), 2, "the configuration and one layer: {blobs:#?}");

    // Publishing the same again sends nothing; the one upload that is opened asks whether one may.
    build().says(&["moved     nothing; 3 layers were there"]);
    let sent = registry.requests(&["\"PUT /v2/", "\"PATCH /v2/"]);
    assert!(sent.is_empty(), "{sent:#?}");
}

#[test]
fn programs_are_told_of_transfers() {
    let site = Site::new();
    let Some(registry) = Registry::start(&site) else { return };
    let name = format!("{}/demo/website:1", registry.host);
    let build = || {
        let arguments = ["build", "--output-format", "json", "--path", SAMPLE, "--publish", &name];
        let out = site.run(&arguments).with(0).out;
        let events = out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        events.filter(|event| event["event"] == "transfer").collect::<Vec<_>>()
    };
    let told = build();
    let last = told.last().unwrap();
    assert_eq!(last["transfer"], "publish");
    assert!(last["total_bytes"].as_u64().unwrap() > 0);
    assert_eq!(last["done_bytes"], last["total_bytes"]);
    assert_eq!(build(), [Value::Null; 0], "nothing is sent again");
}

/// R8: an image for another processor is refused by what its configuration says.
#[test]
fn r8_a_run_image_for_another_processor_is_refused_before_its_layers() {
    let site = Site::new();
    let Some(registry) = Registry::start(&site) else { return };
    let run_image = format!("{}/run:1", registry.host);
    site.run(&["build", "--path", SAMPLE, "--target", "linux/amd64", "--publish", &run_image]).with(0);
    registry.requests(&[]);

    let build = |architecture: &str| {
        let (target, output) = (format!("linux/{architecture}"), format!("oci:{architecture}"));
        let run_image = ["--run-image", &run_image, "--target", &target];
        let output = ["--output", &output, "app"];
        site.run(&[&["build", "--path", SAMPLE], &run_image[..], &output].concat())
    };
    build("arm64").with(3).complains(&["linux/amd64", "linux/arm64"]);
    let blobs = registry.requests(&["\"GET /v2/run/blobs/", "\"HEAD /v2/run/blobs/"]);
    assert_eq!(blobs.len(), 1, "the configuration: {blobs:#?}");
    assert!(!site.path().join("arm64").exists());
    // The layers are fetched once they are of use, so the log would show it.
    build("amd64").with(0);
    assert!(registry.requests(&["\"GET /v2/run/blobs/"]).len() > 1);
}
