//! Packages from a registry that stalls, lies and redirects; kills while they arrive.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::json;

use super::crash::{Numbers, is_running, own_worker};
use super::run::embedded;
use super::tools::{Layout, build_process, run, run_with, wait_until};
use crate::registry::{Manner, Registry};
use crate::support::{IMAGE, Site};

/// An npm package: its lock entry's name and version, and its tarball.
struct Package {
    name: &'static str,
    version: &'static str,
    tarball: Vec<u8>,
}

impl Package {
    /// A package with one file of these contents.
    fn new(name: &'static str, version: &'static str, contents: &[u8]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        fs::create_dir(directory.path().join("package")).expect("a directory");
        fs::write(directory.path().join("package/index.js"), contents).expect("a file");
        let manifest = json!({ "name": name, "version": version }).to_string();
        fs::write(directory.path().join("package/package.json"), manifest).expect("a file");
        let archive = directory.path().join("archive.tgz");
        run(Command::new("tar").arg("-C").arg(directory.path()).arg("-czf").arg(&archive).arg("package"));
        Self { name, version, tarball: fs::read(archive).expect("a file") }
    }

    fn path(&self) -> String {
        format!("{0}/-/{0}-{1}.tgz", self.name, self.version)
    }

    /// The hash as npm writes it, by other tools.
    fn integrity(&self) -> String {
        let mut command = Command::new("sh");
        let hash = run_with(command.args(["-c", "openssl dgst -sha512 -binary | base64 -w0"]), &self.tarball);
        format!("sha512-{}", hash.trim())
    }
}

/// Bytes that do not compress, so that the tarball is about as long.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut numbers = Numbers(seed);
    (0..length).map(|_| u8::try_from(numbers.below(256)).expect("a byte")).collect()
}

/// A site whose app depends on `packages`.
fn site(packages: &[&Package]) -> Site {
    let mut site = Site::new().guest("provides-node");
    site.buildpacks.push(embedded("builder/buildpacks/wapack_npm-install/0.1.0"));
    lock(&site, packages);
    site
}

fn lock(site: &Site, packages: &[&Package]) {
    let dependencies: BTreeMap<_, _> =
        packages.iter().map(|package| (package.name, package.version)).collect();
    let root = json!({ "name": "app", "version": "1.0.0", "dependencies": dependencies });
    let mut entries = serde_json::Map::from_iter([(String::new(), root.clone())]);
    for package in packages {
        let entry = json!({ "version": package.version, "integrity": package.integrity() });
        entries.insert(format!("node_modules/{}", package.name), entry);
    }
    let lock = json!({ "name": "app", "version": "1.0.0", "lockfileVersion": 3, "requires": true, "packages": entries });
    fs::write(site.path("app/package.json"), root.to_string()).expect("a file");
    fs::write(site.path("app/package-lock.json"), lock.to_string()).expect("a file");
}

fn serve(site: &mut Site, packages: &[&Package]) -> Registry {
    let honest = packages.iter().map(|package| (package.path(), Manner::Honest(package.tarball.clone())));
    let registry = Registry::start(honest);
    site.npm = Some(registry.address());
    registry
}

/// What a build that fails says, down to the cause.
#[track_caller]
fn complaint(site: &Site) -> String {
    let error = site.build().result.expect_err("a failure");
    let first: &dyn std::error::Error = &error;
    let causes = std::iter::successors(Some(first), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// S5, R10: what is wrong is said with the package's name; what was there stays, and the next build works.
#[test]
fn a_registry_that_lies_or_fails_costs_one_build() {
    let (a, b) =
        (Package::new("a", "1.0.0", &noise(50_000, 1)), Package::new("b", "2.0.0", &noise(50_000, 2)));
    let mut site = site(&[&a]);
    let registry = serve(&mut site, &[&a, &b]);
    let first = site.build().digest();
    lock(&site, &[&a, &b]);

    let mut wrong = b.tarball.clone();
    wrong[100] ^= 1;
    let said = |manner: Manner| {
        registry.set(&b.path(), manner);
        let said = complaint(&site);
        assert_eq!(Layout::verified(&site.path("image")).images[IMAGE], first, "the old image stays");
        said
    };
    for (manner, expected) in [
        (Manner::Honest(wrong), "is not what was expected"),
        (Manner::Honest(b.tarball[..1000].to_vec()), "is not what was expected"),
        (Manner::Failing(404, usize::MAX, vec![]), "404"),
        (Manner::Failing(403, usize::MAX, vec![]), "403"),
        (Manner::Redirect("http://169.254.169.254/latest/meta-data".to_owned()), "169.254.169.254"),
        (Manner::Redirect("https://10.0.0.1/b.tgz".to_owned()), "10.0.0.1"),
        (Manner::Redirect("file:///etc/hostname".to_owned()), "redirects to nowhere"),
    ] {
        let shown = format!("{manner:.60?}");
        let said = said(manner);
        assert!(said.contains(expected), "{shown}: {said}");
        assert!(said.contains("b-2.0.0.tgz"), "{shown}: {said}");
    }

    // What comes in pieces or late is fetched all the same, and `a` is not asked for again.
    let asked_for_a = registry.requests().iter().filter(|(path, _)| *path == a.path()).count();
    assert_eq!(asked_for_a, 1);
    registry.set(&b.path(), Manner::Interrupted(b.tarball.clone()));
    let second = site.build().digest();
    assert_ne!(first, second);
    let ranges: Vec<_> = registry
        .requests()
        .into_iter()
        .filter(|(path, headers)| *path == b.path() && headers.to_ascii_lowercase().contains("range: bytes="))
        .collect();
    assert_eq!(ranges.len(), 1, "the rest was asked for once");
    let mut other = site.job();
    other.store = site.path("other-store");
    other.output = site.path("other-image");
    registry.set(&b.path(), Manner::Failing(503, 2, b.tarball.clone()));
    assert_eq!(site.build_job(&other, |_| ()).digest(), second);
}

/// G19: one that takes the request and says nothing is given up, in the time that the operator gives it.
#[test]
fn a_silent_registry_is_given_up() {
    let a = Package::new("a", "1.0.0", b"1");
    let mut site = site(&[&a]);
    let registry = serve(&mut site, &[&a]);
    registry.set(&a.path(), Manner::Silent);
    site.policy.limits.http_connect_seconds = 1;
    site.policy.limits.http_first_byte_seconds = 1;
    let said = complaint(&site);
    assert!(said.contains("a-1.0.0.tgz") && said.contains("no answer within 1 s (after 5 tries)"), "{said}");
}

/// A2, A6: archives that climb and explode are refused by entry, and write nothing outside.
#[test]
fn hostile_tarballs_are_refused() {
    let archive = |script: &str| {
        let directory = tempfile::tempdir().expect("a directory");
        run(Command::new("python3").arg("-c").arg(script).current_dir(directory.path()));
        fs::read(directory.path().join("x.tgz")).expect("a file")
    };
    let begin = "import io, tarfile\nt = tarfile.open('x.tgz', 'w:gz')\n\
                 def add(name, data=b'', **more):\n    i = tarfile.TarInfo(name)\n    i.size = len(data)\n\
                 \x20   for k, v in more.items(): setattr(i, k, v)\n    t.addfile(i, io.BytesIO(data))\n";
    for (script, expected) in [
        ("add('package/../../../escaped', b'x')", "leaves the destination"),
        ("add('/etc/escaped', b'x')", "leaves the destination"),
        ("add('package/pipe', type=tarfile.FIFOTYPE)", "FIFO"),
        ("add('package/zeroes', b'\\0' * (200 << 20))", "expands to more"),
        ("add('package/index.js', b'1')\nadd('package/index.js', b'2')", "twice"),
    ] {
        let package = Package {
            name: "bad",
            version: "1.0.0",
            tarball: archive(&format!("{begin}{script}\nt.close()")),
        };
        let mut site = site(&[&package]);
        let _registry = serve(&mut site, &[&package]);
        let said = complaint(&site);
        assert!(said.contains(expected), "{script}: {said}");
        assert!(!Path::new("/etc/escaped").exists() && !site.path("escaped").exists());
    }
}

/// Links of a package are left out, as npm does; a later entry cannot go through one.
#[test]
fn links_in_packages_are_left_out() {
    let directory = tempfile::tempdir().expect("a directory");
    let script = "import io, tarfile\nt = tarfile.open('x.tgz', 'w:gz')\n\
                  i = tarfile.TarInfo('package/out'); i.type = tarfile.SYMTYPE; i.linkname = '/etc'; t.addfile(i)\n\
                  i = tarfile.TarInfo('package/out/passwd'); i.size = 1; t.addfile(i, io.BytesIO(b'x'))\nt.close()\n";
    run(Command::new("python3").arg("-c").arg(script).current_dir(directory.path()));
    let tarball = fs::read(directory.path().join("x.tgz")).expect("a file");
    let package = Package { name: "links", version: "1.0.0", tarball };
    let mut site = site(&[&package]);
    let _registry = serve(&mut site, &[&package]);
    site.build().digest();
    let layers = Layout::verified(&site.path("image")).layers();
    let listed: String =
        layers.iter().flat_map(|layer| super::tools::tar_list(layer)).collect::<Vec<_>>().join("\n");
    assert!(listed.contains("node_modules/links/out/passwd"), "{listed}");
    assert!(!listed.contains("-> /etc"), "{listed}");
}

/// Without a network, everything that is missing is named at once.
#[test]
fn an_offline_build_names_what_is_missing() {
    let (a, b) = (Package::new("a", "1.0.0", b"1"), Package::new("b", "2.0.0", b"2"));
    let mut site = site(&[&a]);
    let registry = serve(&mut site, &[&a, &b]);
    let first = site.build().digest();
    site.offline = true;
    let mut job = site.job();
    job.image = "acceptance/other:latest".to_owned();
    // Where packages come from need not even be known.
    job.npm = None;
    assert_eq!(site.build_job(&job, |_| ()).digest(), first, "from the store");
    lock(&site, &[&a, &b]);
    let said = complaint(&site);
    assert!(said.contains("b-2.0.0.tgz") && !said.contains("a-1.0.0.tgz"), "{said}");
    assert_eq!(registry.requests().len(), 1);
}

/// K1: killed while packages arrive; the next build works and comes to the same image.
#[test]
fn a_build_killed_while_it_downloads_leaves_nothing_wrong() {
    let packages: Vec<Package> = [("a", 11), ("b", 12), ("c", 13), ("d", 14)]
        .map(|(name, seed)| Package::new(name, "1.0.0", &noise(200_000, seed)))
        .into();
    let all: Vec<&Package> = packages.iter().collect();
    let mut site = site(&all);
    let registry = serve(&mut site, &all);
    let golden = site.build().digest();

    let mut job = site.job();
    own_worker(&mut job, &site.path("worker"));
    job.store = site.path("killed-store");
    job.output = site.path("killed-image");
    // Compiled components, so that kills hit the downloads.
    for package in &all {
        registry.set(&package.path(), Manner::Slow(package.tarball.clone(), Duration::from_millis(10)));
    }
    site.build_job(&job, |_| ()).digest();
    let mut numbers = Numbers(20_261_122);
    let mut killed = 0;
    for round in 0..12 {
        for directory in ["downloads", "layers"] {
            let _ = fs::remove_dir_all(job.store.join(directory));
        }
        let _ = fs::remove_dir_all(&job.output);
        let before = registry.requests().len();
        let mut process = build_process(&[], &job).stdout(Stdio::null()).spawn().expect("a process");
        wait_until("the first package is asked for", || registry.requests().len() > before);
        std::thread::sleep(Duration::from_millis(numbers.below(220)));
        process.kill().expect("a signal");
        killed += u32::from(!process.wait().expect("it ends").success());
        wait_until("the workers end with the build", || !is_running(&job.worker));
        assert_eq!(site.build_job(&job, |_| ()).digest(), golden, "round {round}");
        let work: Vec<_> = fs::read_dir(job.store.join("work")).expect("a directory").collect();
        assert!(work.is_empty(), "round {round}: {work:?}");
    }
    assert!(killed >= 8, "most were killed before they were done: {killed}");
}
