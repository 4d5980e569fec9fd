//! A small package registry on loopback that behaves as badly as it is told.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How the registry answers for one path.
#[derive(Debug, Clone)]
pub(crate) enum Manner {
    /// These bytes.
    Honest(Vec<u8>),
    /// These bytes, a piece at a time with a pause after each.
    Slow(Vec<u8>, Duration),
    /// Half of these bytes, and then the connection is reset. A request for the
    /// rest is served.
    Interrupted(Vec<u8>),
    /// Takes the request and never answers.
    Silent,
    /// Says that it is somewhere else.
    Redirect(String),
    /// This status, so many times; then these bytes.
    Failing(u16, usize, Vec<u8>),
}

/// A running registry; it ends with the value.
pub(crate) struct Registry {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    manners: Mutex<BTreeMap<String, Manner>>,
    /// Path and headers of every request.
    requests: Mutex<Vec<(String, String)>>,
    failures: AtomicUsize,
    ended: AtomicBool,
}

impl Registry {
    /// Serves `manners` by path, without the leading slash.
    pub(crate) fn start(manners: impl IntoIterator<Item = (String, Manner)>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let shared =
            Arc::new(Shared { manners: Mutex::new(manners.into_iter().collect()), ..Shared::default() });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if serving.ended.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&serving);
                // Whoever hangs up early is the subject of some test.
                std::thread::spawn(move || stream.and_then(|stream| serve(stream, &shared)));
            }
        });
        Self { port, shared }
    }

    pub(crate) fn address(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    /// Behaves differently from now on.
    pub(crate) fn set(&self, path: &str, manner: Manner) {
        lock(&self.shared.manners).insert(path.to_owned(), manner);
        self.shared.failures.store(0, Ordering::Relaxed);
    }

    /// Path and headers of every request so far.
    pub(crate) fn requests(&self) -> Vec<(String, String)> {
        lock(&self.shared.requests).clone()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves requests of one connection until the other side hangs up.
fn serve(stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let path = line.split(' ').nth(1).unwrap_or("/").trim_start_matches('/').to_owned();
        let mut headers = String::new();
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header)? <= 2 {
                break;
            }
            headers.push_str(&header);
        }
        let range = headers.lines().find_map(|header| {
            let (name, value) = header.split_once(':')?;
            let start = value.trim().strip_prefix("bytes=")?.strip_suffix('-')?;
            name.eq_ignore_ascii_case("range").then(|| start.parse::<usize>().ok()).flatten()
        });
        lock(&shared.requests).push((path.clone(), headers));
        let manner = lock(&shared.manners).get(&path).cloned();
        match manner {
            None => head(&mut stream, "404 Not Found", 0, "")?,
            Some(Manner::Honest(bytes)) => whole(&mut stream, &bytes)?,
            Some(Manner::Slow(bytes, pause)) => {
                head(&mut stream, "200 OK", bytes.len(), "")?;
                for piece in bytes.chunks(bytes.len().div_ceil(16).max(1)) {
                    stream.write_all(piece)?;
                    std::thread::sleep(pause);
                }
            }
            Some(Manner::Interrupted(bytes)) => {
                let Some(rest) = range.and_then(|start| bytes.get(start..)) else {
                    head(&mut stream, "200 OK", bytes.len(), "ETag: \"same\"\r\nAccept-Ranges: bytes\r\n")?;
                    return stream.write_all(&bytes[..bytes.len() / 2]);
                };
                let (length, start) = (bytes.len(), bytes.len() - rest.len());
                let range = format!("Content-Range: bytes {start}-{}/{length}\r\n", length - 1);
                head(&mut stream, "206 Partial Content", rest.len(), &range)?;
                stream.write_all(rest)?;
            }
            Some(Manner::Silent) => {
                while !shared.ended.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(20));
                }
                return Ok(());
            }
            Some(Manner::Redirect(to)) => head(&mut stream, "302 Found", 0, &format!("Location: {to}\r\n"))?,
            Some(Manner::Failing(status, times, bytes)) => {
                if shared.failures.fetch_add(1, Ordering::Relaxed) < times {
                    head(&mut stream, &format!("{status} Sorry"), 0, "")?;
                } else {
                    whole(&mut stream, &bytes)?;
                }
            }
        }
    }
}

fn whole(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    head(stream, "200 OK", bytes.len(), "")?;
    stream.write_all(bytes)
}

fn head(stream: &mut TcpStream, status: &str, length: usize, more: &str) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{more}\r\n")
}
