//! Requests to a container engine over one connection.
//!
//! One, because its socket may be root's alone: the connection is made before a program
//! becomes somebody else, and has to last. Knows HTTP and no image.

use std::io::{self, Read};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body, Frame, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::{Builder, Runtime};

use crate::fault::{Diagnose, Fault};

/// The largest document that is read: an image's labels are its largest part.
const MAX_DOCUMENT_BYTES: usize = 64 << 20;
/// Between two looks at how far a request is.
const LOOK: Duration = Duration::from_millis(100);
/// Read from a file at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// Where a container engine listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DaemonAddress {
    /// The path of a socket.
    Unix(PathBuf),
    /// A host and a port, without TLS.
    Tcp(String),
}

/// Why an engine did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error("cannot connect to {}", shown(address))]
    Connect { address: DaemonAddress, source: io::Error },
    #[error("cannot talk to the container engine")]
    Http(#[from] hyper::Error),
    #[error("cannot send to the container engine, or read what it sent")]
    Io(#[from] io::Error),
    /// What it says itself.
    #[error("the container engine answers {status}: {message}")]
    Refused { status: u16, message: String },
    #[error("the container engine sent what cannot be read")]
    Invalid(#[from] serde_json::Error),
    #[error("the container engine sent more than {MAX_DOCUMENT_BYTES} bytes")]
    TooLarge,
    #[error("the image is not what the container engine has: {problem}")]
    Image { problem: String },
}

impl Diagnose for DaemonError {
    fn id(&self) -> &'static str {
        match self {
            Self::Connect { .. } => "engine.unreachable",
            Self::Http(_) | Self::Io(_) => "engine.connection",
            Self::Refused { .. } => "engine.refused",
            Self::Invalid(_) | Self::TooLarge | Self::Image { .. } => "engine.answer",
        }
    }

    fn fault(&self) -> Fault {
        Fault::Environment
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Connect { .. } => {
                Some("start the container engine, or say with `DOCKER_HOST` where it listens".to_owned())
            }
            _ => None,
        }
    }
}

fn shown(address: &DaemonAddress) -> String {
    match address {
        DaemonAddress::Unix(path) => format!("`{}`", path.display()),
        DaemonAddress::Tcp(host) => format!("`{host}`"),
    }
}

/// What is sent along with a request.
type Upload = BoxBody<Bytes, io::Error>;

/// A connection, and the thread's own loop that moves its bytes.
pub(super) struct Engine {
    address: DaemonAddress,
    runtime: Runtime,
    sender: Mutex<SendRequest<Upload>>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Engine").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Engine {
    /// Connects, and starts no thread.
    pub(super) fn connect(address: DaemonAddress) -> Result<Self, DaemonError> {
        let failed = |source| DaemonError::Connect { address: address.clone(), source };
        let runtime = Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let sender = Mutex::new(open(&runtime, &address)?);
        Ok(Self { address, runtime, sender })
    }

    /// Asks for a document; `None` when there is none.
    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, DaemonError> {
        let response = self.send(Method::GET, path, empty())?;
        match self.document(response) {
            Err(DaemonError::Refused { status: 404, .. }) => Ok(None),
            bytes => Ok(Some(serde_json::from_slice(&bytes?)?)),
        }
    }

    /// Asks for something to be done.
    pub(super) fn post(&self, path: &str) -> Result<(), DaemonError> {
        let response = self.send(Method::POST, path, empty())?;
        self.document(response).map(drop)
    }

    /// Sends a stream and gives the answer; says now and then that it is on its way.
    pub(super) fn post_stream(
        &self,
        path: &str,
        stream: Box<dyn Read + Send + Sync>,
        on_its_way: &mut dyn FnMut(),
    ) -> Result<Vec<u8>, DaemonError> {
        let response = self.send_while(Method::POST, path, Stream(stream).boxed(), on_its_way)?;
        self.document(response)
    }

    /// Hands over what is sent, piece by piece.
    pub(super) fn get_stream(
        &self,
        path: &str,
        mut take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), DaemonError> {
        let mut response = self.send(Method::GET, path, empty())?;
        if !response.status().is_success() {
            return self.document(response).map(drop);
        }
        while let Some(frame) = self.runtime.block_on(response.body_mut().frame()) {
            if let Ok(data) = frame?.into_data() {
                take(&data)?;
            }
        }
        Ok(())
    }

    fn send(&self, method: Method, path: &str, body: Upload) -> Result<Response<Incoming>, DaemonError> {
        self.send_while(method, path, body, &mut || ())
    }

    fn send_while(
        &self,
        method: Method,
        path: &str,
        body: Upload,
        on_its_way: &mut dyn FnMut(),
    ) -> Result<Response<Incoming>, DaemonError> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "localhost")
            .header(CONTENT_TYPE, "application/x-tar")
            .body(body)
            .map_err(|error| DaemonError::Image { problem: error.to_string() })?;
        let mut sender = self.sender.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if self.runtime.block_on(sender.ready()).is_err() {
            // Closed while nothing was asked; works where the socket is not root's alone.
            *sender = open(&self.runtime, &self.address)?;
        }
        Ok(self.runtime.block_on(async {
            let mut answer = std::pin::pin!(sender.send_request(request));
            loop {
                match tokio::time::timeout(LOOK, &mut answer).await {
                    Ok(answer) => return answer,
                    Err(_) => on_its_way(),
                }
            }
        })?)
    }

    /// The whole answer, or what the engine says is wrong.
    fn document(&self, mut response: Response<Incoming>) -> Result<Vec<u8>, DaemonError> {
        let mut bytes = Vec::new();
        while let Some(frame) = self.runtime.block_on(response.body_mut().frame()) {
            if let Ok(data) = frame?.into_data() {
                bytes.extend_from_slice(&data);
            }
            if bytes.len() > MAX_DOCUMENT_BYTES {
                return Err(DaemonError::TooLarge);
            }
        }
        let status = response.status();
        if status.is_success() { Ok(bytes) } else { Err(refused(status, &bytes)) }
    }
}

fn open(runtime: &Runtime, address: &DaemonAddress) -> Result<SendRequest<Upload>, DaemonError> {
    let failed = |source| DaemonError::Connect { address: address.clone(), source };
    runtime.block_on(async {
        let sender = match address {
            DaemonAddress::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(failed)?;
                let (sender, connection) = handshake(TokioIo::new(stream)).await?;
                tokio::spawn(connection);
                sender
            }
            DaemonAddress::Tcp(host) => {
                // Looked up here: tokio would start a thread for it.
                let addresses: Vec<SocketAddr> = host.to_socket_addrs().map_err(failed)?.collect();
                let stream = TcpStream::connect(&addresses[..]).await.map_err(failed)?;
                let (sender, connection) = handshake(TokioIo::new(stream)).await?;
                tokio::spawn(connection);
                sender
            }
        };
        Ok(sender)
    })
}

fn refused(status: StatusCode, bytes: &[u8]) -> DaemonError {
    #[derive(Deserialize)]
    struct Answer {
        message: String,
    }
    let message = match serde_json::from_slice::<Answer>(bytes) {
        Ok(answer) => answer.message,
        Err(_) => String::from_utf8_lossy(&bytes[..bytes.len().min(1000)]).into_owned(),
    };
    DaemonError::Refused { status: status.as_u16(), message }
}

fn empty() -> Upload {
    Empty::new().map_err(|never| match never {}).boxed()
}

/// A file, or several, as the body of a request. Reading waits, which harms nobody:
/// the loop has this one thing to do.
struct Stream(Box<dyn Read + Send + Sync>);

impl Body for Stream {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let mut chunk = vec![0; CHUNK_BYTES];
        Poll::Ready(match self.0.read(&mut chunk) {
            Ok(0) => None,
            Ok(count) => {
                chunk.truncate(count);
                Some(Ok(Frame::data(chunk.into())))
            }
            Err(error) => Some(Err(error)),
        })
    }
}
