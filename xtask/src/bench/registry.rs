//! Debian's `docker-registry` on loopback, for benchmarks: what it has, and what was moved.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::failed;
use crate::Result;

/// A registry that starts empty and ends, with all it has, when it is dropped.
pub(super) struct Registry {
    port: u16,
    directory: PathBuf,
    child: Child,
}

/// Bytes of blobs that went over a connection, configurations of images included.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moved {
    pub(super) up: u64,
    pub(super) down: u64,
}

impl Registry {
    /// Starts one over a new directory.
    pub(super) fn start(directory: &Path) -> Result<Self> {
        let directory = directory.to_owned();
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).map_err(|error| failed("make", &directory, &error))?;
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let port = free.map_err(|error| format!("there is no free port: {error}"))?.port();
        let configuration = directory.join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: false}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\nhttp:\n  addr: 127.0.0.1:{port}\n  secret: bench\n",
            directory.join("data").display()
        );
        fs::write(&configuration, text).map_err(|error| failed("write", &configuration, &error))?;
        let log = directory.join("log");
        let log = fs::File::create(&log).map_err(|error| failed("make", &log, &error))?;
        let errors = log.try_clone().map_err(|error| failed("open", &directory, &error))?;
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&configuration)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(|error| format!("cannot start `docker-registry`: {error}"))?;
        let registry = Self { port, directory, child };
        let started = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if started.elapsed() > Duration::from_secs(20) {
                return Err("`docker-registry` does not answer".to_owned());
            }
            sleep(Duration::from_millis(20));
        }
        Ok(registry)
    }

    /// An image there.
    pub(super) fn image(&self, name: &str) -> String {
        format!("127.0.0.1:{}/{name}", self.port)
    }

    /// How far the log has come.
    pub(super) fn mark(&self) -> usize {
        // A line is written after the answer.
        sleep(Duration::from_millis(100));
        self.log().len()
    }

    /// What was moved since a mark, by the log of requests: a blob that came counts with its size, one that
    /// went with the bytes of the answer. What was mounted from another repository is neither.
    pub(super) fn moved(&self, since: usize) -> Moved {
        let mut moved = Moved { up: 0, down: 0 };
        let log = {
            self.mark();
            self.log()
        };
        for line in log.get(since..).unwrap_or("").lines() {
            let Some((request, rest)) = line.split_once("] \"").and_then(|(_, rest)| rest.split_once('"'))
            else {
                continue;
            };
            let mut fields = rest.split_whitespace();
            let status = fields.next().unwrap_or("");
            let bytes: u64 = fields.next().and_then(|bytes| bytes.parse().ok()).unwrap_or(0);
            if request.starts_with("GET ") && request.contains("/blobs/sha256:") {
                moved.down += bytes;
            } else if request.starts_with("PUT ") && request.contains("/blobs/uploads/") && status == "201" {
                moved.up += self.uploaded(request);
            }
        }
        moved
    }

    /// The size of the blob that an upload ended with.
    fn uploaded(&self, request: &str) -> u64 {
        let hex =
            request.split("sha256").nth(1).map(|rest| rest.trim_start_matches("%3A").trim_start_matches(':'));
        let hex: String = hex.unwrap_or("").chars().take_while(char::is_ascii_hexdigit).collect();
        let blob = self.directory.join("data/docker/registry/v2/blobs/sha256");
        let blob = blob.join(hex.get(..2).unwrap_or("")).join(&hex).join("data");
        fs::metadata(blob).map_or(0, |found| found.len())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}
