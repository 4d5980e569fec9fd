//! The static program in images that have nothing of ours: no C library, no shell, no
//! `nsswitch.conf`.
//!
//! `cargo xtask lifecycle` builds it, which takes too long to be a part of every test run.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use super::fixture::{Ended, is_root};
use crate::image::tools::skip;
use crate::support::target_directory;

/// The program, or aloud that there is none.
#[expect(clippy::print_stderr, reason = "this is for whoever runs the tests")]
fn program() -> Option<PathBuf> {
    let built =
        target_directory().join(format!("{}-unknown-linux-musl/release/wapack", std::env::consts::ARCH));
    let named = std::env::var_os("WAPACK_STATIC_PROGRAM").map(PathBuf::from);
    let program = named.or_else(|| built.is_file().then_some(built));
    if program.is_none() {
        eprintln!("NOT RUN IN FOREIGN IMAGES: `cargo xtask lifecycle` builds the program for that");
    }
    program
}

/// A root directory with the program and nothing else.
fn empty_root() -> Option<TempDir> {
    let program = program()?;
    if !is_root() {
        skip("only root changes the root directory");
        return None;
    }
    let root = tempfile::tempdir().expect("a directory");
    std::fs::copy(program, root.path().join("lifecycle")).expect("a copy");
    symlink("lifecycle", root.path().join("analyzer")).expect("a link");
    for name in ["etc", "layers", "tmp"] {
        std::fs::create_dir(root.path().join(name)).expect("a directory");
    }
    Some(root)
}

fn run(root: &TempDir, arguments: &[&str], variables: &[(&str, &str)]) -> Ended {
    let mut command = Command::new("chroot");
    command.arg(root.path()).args(arguments).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    Ended::from(command.envs(variables.iter().copied()).output().expect("`chroot`"))
}

/// Answers every request as an engine without images, until the test ends.
fn engine() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("bound").port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { break };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let _ = stream
                .write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}");
        }
    });
    port
}

/// A name server that knows every name, at an address of its own; gives its questions.
fn name_server(address: Ipv4Addr) -> std::sync::mpsc::Receiver<String> {
    let socket = UdpSocket::bind((address, 53)).expect("root may");
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    let (sender, questions) = std::sync::mpsc::channel();
    thread::spawn(move || {
        let mut packet = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut packet) {
            let mut end = 12;
            let mut name = Vec::new();
            while packet[end] != 0 {
                let label = &packet[end + 1..][..usize::from(packet[end])];
                name.push(String::from_utf8_lossy(label).into_owned());
                end += 1 + label.len();
            }
            let question = &packet[12..end + 5];
            let is_v4 = question[question.len() - 4..][..2] == [0, 1];
            let mut answer = packet[..2].to_vec();
            answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_v4), 0, 0, 0, 0]);
            answer.extend(question);
            if is_v4 {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
            }
            assert!(length > end);
            let _ = sender.send(name.join("."));
            let _ = socket.send_to(&answer, from);
        }
    });
    questions
}

#[test]
fn the_static_program_starts_where_there_is_nothing() {
    let Some(root) = empty_root() else { return };
    let ended = run(&root, &["/lifecycle", "-version"], &[]).succeeded();
    assert!(ended.stdout.starts_with("0.21."), "{}", ended.said());
    let ended = run(&root, &["/analyzer", "-h"], &[("CNB_PLATFORM_API", "0.12")]);
    assert!(ended.said().contains("Usage of analyzer"), "{}", ended.said());
}

/// Names are looked up in `/etc/hosts`, then asked of the servers in `/etc/resolv.conf`.
#[test]
fn the_static_program_resolves_names_by_itself() {
    let Some(root) = empty_root() else { return };
    let port = engine();
    let analyze = |host: &str| {
        let address = format!("tcp://{host}:{port}");
        let variables = [
            ("CNB_PLATFORM_API", "0.12"),
            ("CNB_USER_ID", "65534"),
            ("CNB_GROUP_ID", "65534"),
            ("DOCKER_HOST", address.as_str()),
        ];
        run(&root, &["/analyzer", "-daemon", "-run-image", "registry.example/run", "app"], &variables)
    };
    std::fs::write(root.path().join("etc/hosts"), "127.0.0.1 by-file.example\n").unwrap();
    // It gets as far as the engine, which has no such image.
    let reached = "the run image `registry.example/run` cannot be read";
    let ended = analyze("by-file.example");
    assert!(ended.stderr.contains(reached), "{}", ended.said());

    let server = Ipv4Addr::new(127, 0, 0, 77);
    let questions = name_server(server);
    std::fs::write(root.path().join("etc/resolv.conf"), format!("nameserver {server}\n")).unwrap();
    let ended = analyze("by-server.example");
    assert!(ended.stderr.contains(reached), "{}", ended.said());
    assert_eq!(questions.try_recv().as_deref(), Ok("by-server.example"));
}
