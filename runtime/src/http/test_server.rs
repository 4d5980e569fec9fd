//! A web server that does what a test tells it, lies and silence included.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use url::Url;

/// What the server was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    /// The first line: method, target, version.
    pub(crate) line: String,
    /// With names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    /// As long as its length says.
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// One thing the server does with a connection.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Send(Vec<u8>),
    /// One byte at a time, with this wait before each.
    Drip(Vec<u8>, Duration),
    /// The same bytes until the client goes away.
    Endless(Vec<u8>),
    /// Nothing, until the client goes away.
    Stall,
    /// Ends the connection as if the machine had died.
    Reset,
}

/// Everything the server does after one request; the connection closes then.
pub(crate) type Answer = Vec<Step>;

/// `200` with these headers and this body.
pub(crate) fn ok(headers: &str, body: &[u8]) -> Answer {
    answer("200 OK", headers, body)
}

/// An answer with a right length.
pub(crate) fn answer(status: &str, headers: &str, body: &[u8]) -> Answer {
    let mut bytes = head(status, &format!("content-length: {}\r\n{headers}", body.len()));
    bytes.extend_from_slice(body);
    vec![Step::Send(bytes)]
}

/// Status line and headers, each of which ends with a line end.
pub(crate) fn head(status: &str, headers: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nconnection: close\r\n{headers}\r\n").into_bytes()
}

pub(crate) fn redirect(to: &str) -> Answer {
    answer("302 Found", &format!("location: {to}\r\n"), b"")
}

pub(crate) struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    connections: Arc<Mutex<usize>>,
    is_over: Arc<AtomicBool>,
}

impl Server {
    /// Answers every request by what `answer` says to it and to its number,
    /// counted from 0.
    pub(crate) fn start(answer: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST, None, answer)
    }

    pub(crate) fn start_at(
        address: Ipv4Addr,
        tls: Option<Arc<ServerConfig>>,
        answer: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((IpAddr::V4(address), 0)).unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            requests: Arc::default(),
            connections: Arc::default(),
            is_over: Arc::default(),
        };
        let answer = Arc::new(answer);
        let (requests, connections, is_over) =
            (Arc::clone(&server.requests), Arc::clone(&server.connections), Arc::clone(&server.is_over));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                let stream = stream.unwrap();
                *connections.lock().unwrap() += 1;
                let (answer, requests, tls) = (Arc::clone(&answer), Arc::clone(&requests), tls.clone());
                std::thread::spawn(move || {
                    // Clients that go away are part of the tests.
                    let _ = match tls {
                        None => serve(stream.try_clone().unwrap(), &stream, &requests, &*answer),
                        Some(tls) => {
                            let connection = ServerConnection::new(tls).unwrap();
                            let encrypted = StreamOwned::new(connection, stream.try_clone().unwrap());
                            serve(encrypted, &stream, &requests, &*answer)
                        }
                    };
                });
            }
        });
        server
    }

    /// An address of this server under a name.
    pub(crate) fn url(&self, scheme: &str, host: &str, path: &str) -> Url {
        format!("{scheme}://{host}:{}{path}", self.address.port()).parse().unwrap()
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(
    mut stream: impl Read + Write,
    socket: &TcpStream,
    requests: &Mutex<Vec<Request>>,
    answer: &dyn Fn(&Request, usize) -> Answer,
) -> io::Result<()> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        bytes.push(byte[0]);
        // The first byte of TLS; a server without it says something that is none.
        if bytes == [0x16] {
            return stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n");
        }
    }
    let text = String::from_utf8(bytes).unwrap();
    let mut lines = text.lines();
    let line = lines.next().unwrap_or_default().to_owned();
    let header = |line: &str| {
        let (name, value) = line.split_once(": ")?;
        Some((name.to_ascii_lowercase(), value.to_owned()))
    };
    let mut request = Request { line, headers: lines.filter_map(header).collect(), body: Vec::new() };
    let length = request.header("content-length").map_or(0, |length| length.parse().unwrap());
    request.body.resize(length, 0);
    stream.read_exact(&mut request.body)?;
    let number = {
        let mut requests = requests.lock().unwrap();
        requests.push(request.clone());
        requests.len() - 1
    };
    for step in answer(&request, number) {
        match step {
            Step::Send(bytes) => stream.write_all(&bytes)?,
            Step::Drip(bytes, wait) => {
                for byte in bytes {
                    std::thread::sleep(wait);
                    stream.write_all(&[byte])?;
                }
            }
            Step::Endless(bytes) => loop {
                stream.write_all(&bytes)?;
            },
            Step::Stall => {
                let mut rest = [0; 1024];
                while stream.read(&mut rest)? > 0 {}
            }
            Step::Reset => {
                // What was sent has to be there first: a reset takes back what is on its way.
                std::thread::sleep(Duration::from_millis(50));
                rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO))?;
                return Ok(());
            }
        }
        stream.flush()?;
    }
    Ok(())
}
