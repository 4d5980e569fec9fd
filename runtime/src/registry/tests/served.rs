//! Debian's `docker-registry`, for tests: on loopback, over a directory of its own.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running registry; it ends with the value.
pub(crate) struct Served {
    port: u16,
    directory: tempfile::TempDir,
    child: Child,
}

impl Served {
    /// For everybody, without TLS.
    pub(crate) fn start() -> Self {
        Self::with("", |_| String::new())
    }

    /// For everybody; what is there stays.
    pub(crate) fn keeping() -> Self {
        Self::configured("", false, |_| String::new())
    }

    /// With more lines of configuration: of its `http` part, and at the end.
    pub(crate) fn with(http: &str, more: impl FnOnce(&Path) -> String) -> Self {
        Self::configured(http, true, more)
    }

    fn configured(http: &str, deletes: bool, more: impl FnOnce(&Path) -> String) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // Nobody else is given this port in the moment it is free.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let path = directory.path().join("config.yml");
        let (root, more) = (directory.path().join("data"), more(directory.path()));
        let http = http.replace("$DIRECTORY", directory.path().to_str().unwrap());
        let config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: false}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: {deletes}}}}}\n\
             http:\n  addr: 127.0.0.1:{port}\n  secret: test\n{http}{more}",
            root.display()
        );
        fs::write(&path, config).unwrap();
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("`docker-registry` is needed for this test: {error}"));
        let served = Self { port, directory, child };
        let started = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            let log = || fs::read_to_string(served.directory.path().join("log")).unwrap();
            assert!(started.elapsed() < Duration::from_secs(20), "{}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
        served
    }

    /// `127.0.0.1:<port>`
    pub(crate) fn name(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A file or directory of a repository, as the registry keeps it.
    pub(crate) fn kept(&self, repository: &str, below: &str) -> PathBuf {
        self.directory.path().join("data/docker/registry/v2/repositories").join(repository).join(below)
    }

    /// Method and path of every request so far, and the status of its answer.
    pub(crate) fn requests(&self) -> Vec<String> {
        // The line is written after the answer.
        std::thread::sleep(Duration::from_millis(100));
        let log = fs::read_to_string(self.directory.path().join("log")).unwrap();
        let of = |line: &str| {
            let (_, rest) = line.split_once("] \"")?;
            let (request, rest) = rest.split_once('"')?;
            let path = request.rsplit_once(" HTTP")?.0;
            Some(format!("{path} {}", rest.split_whitespace().next()?))
        };
        log.lines().filter_map(of).collect()
    }
}

/// What a program prints, which has to succeed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("`{program}` is needed for this test: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
