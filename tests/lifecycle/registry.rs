//! Builds into a registry, which is where programs keep images when nothing else is said.

#![expect(clippy::unwrap_used, reason = "helpers of tests; clippy.toml reaches only the tests themselves")]

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::chain::example;
use super::fixture::{IMAGE, Lifecycle, Platform, RUN_IMAGE};
use crate::image::tools::{have, skip};

/// `printf joe:s3cret | base64`
const JOE: &str = "Basic am9lOnMzY3JldA==";

/// A registry with the user `joe`, that ends with the test.
struct Served {
    process: Child,
    name: String,
    log: std::path::PathBuf,
}

impl Served {
    /// `None`, said aloud, where none can be started.
    fn start(platform: &Platform) -> Option<Self> {
        if !have(&["docker-registry", "htpasswd", "skopeo"]) {
            skip("`docker-registry`, `htpasswd` or `skopeo` is missing; `cargo xtask setup` installs them");
            return None;
        }
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let users = Command::new("htpasswd").args(["-nbB", "-C", "4", "joe", "s3cret"]).output().unwrap();
        platform.file("htpasswd", &String::from_utf8(users.stdout).unwrap(), 0o644);
        let path = |name: &str| platform.path(name).display().to_string();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: \"127.0.0.1:{port}\", secret: test}}\n\
             auth: {{htpasswd: {{realm: test, path: {}}}}}\n",
            path("registry"),
            path("htpasswd")
        );
        platform.file("registry.yml", &config, 0o644);
        let log = platform.path("registry.log");
        let output = std::fs::File::create(&log).unwrap();
        let process = Command::new("docker-registry")
            .args(["serve", &path("registry.yml")])
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .expect("`docker-registry` is there");
        let served = Self { process, name: format!("127.0.0.1:{port}"), log };
        let started = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(started.elapsed() < Duration::from_secs(20), "{}", served.said());
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(served)
    }

    fn said(&self) -> String {
        // The line is written after the answer.
        std::thread::sleep(Duration::from_millis(100));
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Requests that send bytes of blobs, from this place in the log on.
    fn sent(&self, from: usize) -> Vec<String> {
        let log = self.said();
        let is_sent = |line: &&str| line.contains("\"PUT /v2/") && line.contains("/blobs/");
        log[from..].lines().filter(is_sent).map(str::to_owned).collect()
    }

    /// Puts a run image of the platform's layouts there.
    fn put(&self, platform: &Platform, name: &str, tag: &str) {
        let layout = platform.path("layout").join(name.replace(':', "/"));
        let output = Command::new("skopeo")
            .args([
                "--insecure-policy",
                "copy",
                "-q",
                "--dest-tls-verify=false",
                "--dest-creds",
                "joe:s3cret",
            ])
            .arg(format!("oci:{}:1", layout.display()))
            .arg(format!("docker://{}/{tag}", self.name))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// What another tool says of an image.
    fn inspect(&self, tag: &str) -> serde_json::Value {
        let output = Command::new("skopeo")
            .args(["inspect", "--tls-verify=false", "--creds", "joe:s3cret"])
            .arg(format!("docker://{}/{tag}", self.name))
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Five programs build into a registry that wants a password, and again, and the rebaser
/// moves no layer (CLI-08, ANA-02, ANA-04, RPT-01, EXP-12, RBS-04, RBS-17).
#[test]
fn cli_08_rbs_04_a_build_into_a_registry() {
    let mut platform = example(Lifecycle::ours(), "0.12");
    let Some(served) = Served::start(&platform) else { return };
    served.put(&platform, RUN_IMAGE, "base/run:1");
    let place = |name: &str| format!("{}/{name}", served.name);
    for name in ["CNB_USE_LAYOUT", "CNB_LAYOUT_DIR", "CNB_EXPERIMENTAL_MODE"] {
        platform.variables.remove(name);
    }
    platform.file("run.toml", &format!("[[images]]\nimage = \"{}\"\n", place("base/run:1")), 0o644);
    let image = place("team/app:1");

    // Nobody in particular is told what is wrong, and nothing of the password of somebody else.
    let refused = platform.run("analyzer", &[&image]);
    assert_ne!(refused.code, 0);
    assert!(refused.said().contains("it asks for credentials"), "{}", refused.said());
    platform.set("CNB_REGISTRY_AUTH", &format!("{{\"{}\": \"Basic am9lOkNBTkFSWQ==\"}}", served.name));
    let refused = platform.run("analyzer", &[&image]);
    assert!(refused.said().contains("do not allow it"), "{}", refused.said());
    assert!(!refused.said().contains("CANARY") && !refused.said().contains("am9l"), "{}", refused.said());

    platform.set("CNB_REGISTRY_AUTH", &format!("{{\"http://{}/v2/\": \"{JOE}\"}}", served.name));
    let launcher = platform.launcher();
    let tags = [image.clone(), place("team/app:latest"), place("other/app:1")];
    let export: Vec<&str> = launcher.iter().chain(&tags).map(String::as_str).collect();
    let build = || {
        platform.run("analyzer", &[&image]).succeeded();
        let analyzed = platform.toml("layers/analyzed.toml");
        for program in ["detector", "restorer", "builder"] {
            platform.run(program, &[]).succeeded();
        }
        (analyzed, platform.run("exporter", &export).succeeded())
    };
    let (analyzed, _) = build();
    let run_image =
        format!("{}@{}", place("base/run"), served.inspect("base/run:1")["Digest"].as_str().unwrap());
    assert_eq!(analyzed["run-image"]["reference"].as_str(), Some(&*run_image));
    let report = platform.toml("layers/report.toml");
    let digest = report["image"]["digest"].as_str().unwrap().to_owned();
    let named: Vec<&str> =
        report["image"]["tags"].as_array().unwrap().iter().filter_map(|tag| tag.as_str()).collect();
    assert_eq!(named, tags);
    assert!(report["image"]["manifest-size"].as_integer().unwrap() > 0);
    for tag in ["team/app:1", "team/app:latest", "other/app:1"] {
        let inspected = served.inspect(tag);
        assert_eq!(inspected["Digest"], *digest);
        assert_eq!(inspected["Labels"]["acme.label"], "labelled");
    }

    // Once more: what did not change stays where it is.
    std::fs::remove_dir_all(platform.path("layers")).unwrap();
    std::fs::create_dir(platform.path("layers")).unwrap();
    let before = served.said().len();
    let (analyzed, ended) = build();
    assert_eq!(analyzed["image"]["reference"].as_str(), Some(&*format!("{}@{digest}", place("team/app"))));
    assert!(ended.stdout.contains("Reusing layer 'acme/one:app'"), "{}", ended.said());
    assert_eq!(platform.toml("layers/report.toml")["image"]["digest"].as_str(), Some(&*digest));
    assert_eq!(served.sent(before), Vec::<String>::new());

    // Another run image: one configuration is sent.
    platform.run_image("registry.example/run:2");
    served.put(&platform, "registry.example/run:2", "base/run:1");
    let before = served.said().len();
    platform.run("rebaser", &[&image]).succeeded();
    let rebased = platform.toml("layers/report.toml")["image"]["digest"].as_str().unwrap().to_owned();
    assert_ne!(rebased, digest);
    assert_eq!(served.inspect("team/app:1")["Digest"], *rebased);
    assert_eq!(served.inspect("team/app:latest")["Digest"], *digest);
    assert_eq!(served.sent(before).len(), 1, "{:#?}", served.sent(before));
}

/// A build whose cache is an image and nothing else: the next one has what it needs, and sends
/// what changed (CAC-06, CAC-07, CAC-10, RST-05).
#[test]
fn cac_06_and_07_a_build_with_a_cache_image() {
    for api in ["0.12", "0.15"] {
        let mut platform = example(Lifecycle::ours(), api);
        let Some(served) = Served::start(&platform) else { return };
        // The app's image is in a layout, its cache in a registry all the same.
        platform.variables.remove("CNB_CACHE_DIR");
        let cache = format!("{}/team/cache:1", served.name);
        platform.set("CNB_CACHE_IMAGE", &cache);
        let refused = platform.run("analyzer", &[IMAGE]);
        assert!(refused.code != 0 && refused.said().contains(&cache), "{}", refused.said());
        platform.set("CNB_REGISTRY_AUTH", &format!("{{\"{}\": \"{JOE}\"}}", served.name));

        let ended = platform.build();
        assert!(ended[3].said().contains("kept is new"), "{}", ended[3].said());
        let inspected = served.inspect("team/cache:1");
        let label = inspected["Labels"]["io.buildpacks.lifecycle.cache.metadata"].as_str().unwrap();
        let label: serde_json::Value = serde_json::from_str(label).unwrap();
        assert_eq!(label["buildpacks"][0]["layers"]["kept"]["data"]["key"], "one");
        assert_eq!(inspected["Layers"].as_array().unwrap().len(), 1);

        std::fs::remove_dir_all(platform.path("layers")).unwrap();
        std::fs::create_dir(platform.path("layers")).unwrap();
        let before = served.said().len();
        let ended = platform.build();
        assert!(ended[3].said().contains("kept was here"), "{}", ended[3].said());
        assert_eq!(served.sent(before), Vec::<String>::new());
        assert_eq!(served.inspect("team/cache:1")["Digest"], inspected["Digest"]);
        if let Some(reference) = Lifecycle::reference() {
            // Each reads what the other wrote.
            for lifecycle in [reference, Lifecycle::ours()] {
                platform.lifecycle = lifecycle;
                std::fs::remove_dir_all(platform.path("layers")).unwrap();
                std::fs::create_dir(platform.path("layers")).unwrap();
                let ended = platform.build();
                assert!(ended[3].said().contains("kept was here"), "{}", ended[3].said());
            }
        }
    }
}
