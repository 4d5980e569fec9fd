//! Hostile guests: refused, stopped or contained, each with its message and id.
//!
//! Every guest goes through the front door of the library and a real worker
//! process. `tests/guests/README.md` says what each does and what was seen when
//! its defence was taken out.

mod files;
mod limits;
mod load;
mod output;
mod worker;

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use wapack_runtime::error::Error;
use wapack_runtime::event::Event;
use wapack_runtime::fault::Diagnose as _;
use wapack_test_guests::raw::{self, RawGuest};

use crate::support::{Outcome, Site};

/// How long something that has to happen may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn a_well_behaved_guest_builds() {
    let outcome = Site::new().guest("well-behaved").build();
    outcome.result.expect("an image");
}

#[test]
fn every_guest_is_in_the_list_of_guests() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("guests");
    let readme = std::fs::read_to_string(directory.join("README.md")).expect("the list");
    let files = std::fs::read_dir(directory.join("examples")).expect("the guests");
    let names = files.map(|file| {
        let path = file.expect("a file").path();
        path.file_stem().expect("a name").to_string_lossy().into_owned()
    });
    for name in names.chain(raw_guests().iter().map(|guest| guest.name.to_owned())) {
        assert!(readme.contains(&format!("`{name}`")), "`{name}` is missing");
    }
}

fn raw_guests() -> &'static [RawGuest] {
    static GUESTS: OnceLock<Vec<RawGuest>> = OnceLock::new();
    GUESTS.get_or_init(|| raw::all().expect("the texts are valid"))
}

/// The bytes of a guest that is encoded from text.
fn raw_bytes(name: &str) -> &'static [u8] {
    &raw_guests().iter().find(|guest| guest.name == name).expect("a guest of this name").bytes
}

/// A site with a buildpack `test/<name>` made of `bytes`.
fn site_of_bytes(name: &str, bytes: &[u8]) -> Site {
    let mut site = Site::new();
    let component = site.path(&format!("{name}.wasm"));
    std::fs::write(&component, bytes).expect("a file");
    site.buildpack(name, &component, "");
    site
}

/// A site with a guest that is encoded from text.
fn raw_site(name: &str) -> Site {
    site_of_bytes(name, raw_bytes(name))
}

impl Outcome {
    /// The error, which there must be.
    fn error(&self) -> &Error {
        self.result.as_ref().expect_err("an error")
    }

    /// Id and text of the error.
    fn said(&self) -> (&'static str, String) {
        (self.error().id(), self.error().to_string())
    }

    /// Nobody was refused anything that stopped the build.
    fn succeeded(&self) -> &Self {
        if let Err(error) = &self.result {
            panic!("[{}] {error}\n{:?}", error.id(), self.lines());
        }
        self
    }

    fn printed(&self, wanted: &str) -> bool {
        self.lines().iter().any(|line| line.contains(wanted))
    }

    /// The build ended with this id, and a text that holds this.
    #[track_caller]
    fn failed_with(&self, id: &str, wanted: &str) -> &Self {
        let (is, text) = self.said();
        assert!(is == id && text.contains(wanted), "[{is}] {text}");
        self
    }

    /// `detect` went wrong with this id, and a text that holds this.
    #[track_caller]
    fn detect_failed_with(&self, id: &str, wanted: &str) -> &Self {
        let (is, text) = self.said();
        assert_eq!(is, "detect.error", "{text}");
        assert!(text.contains(&format!("[{id}] ")) && text.contains(wanted), "{text}");
        self
    }
}

/// Whether there is nothing left of any build in the site's store.
fn no_litter(site: &Site) -> bool {
    let mut work = std::fs::read_dir(site.path("store/work")).expect("the store has it");
    work.next().is_none() && worker::processes(site).is_empty()
}

/// Names, contents and kinds of all files below `directory`.
fn tree(directory: &Path) -> String {
    let mut text = String::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(path) = pending.pop() {
        let status = std::fs::symlink_metadata(&path).expect("it was listed");
        let contents = if status.is_dir() {
            let entries = std::fs::read_dir(&path).expect("a directory");
            let mut below: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
            below.sort();
            pending.extend(below);
            Vec::new()
        } else if status.is_symlink() {
            std::fs::read_link(&path).expect("a link").into_os_string().into_encoded_bytes()
        } else {
            std::fs::read(&path).expect("a file")
        };
        let modified = status.modified().expect("a time");
        let _ = writeln!(text, "{} {:?} {modified:?} {contents:?}", path.display(), status.permissions());
    }
    text
}

/// Everything that leaves the build in which `canary` could be: events, the
/// error, and every file of the image with its layers unpacked.
fn shows(site: &Site, outcome: &Outcome, canary: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut look = |place: String, bytes: &[u8]| {
        if bytes.windows(canary.len()).any(|window| window == canary.as_bytes()) {
            found.push(place);
        }
    };
    for event in &outcome.events {
        look(format!("{event:?}"), format!("{event:?}").as_bytes());
    }
    if let Err(error) = &outcome.result {
        look("the error".into(), format!("{error:?} {error} {:?}", error.hint()).as_bytes());
    }
    let mut pending = vec![site.path("image")];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten() {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                pending.push(path);
                continue;
            }
            let bytes = std::fs::read(&path).expect("a file");
            look(path.display().to_string(), &bytes);
            let mut unpacked = Vec::new();
            if flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_end(&mut unpacked).is_ok() {
                look(path.display().to_string(), &unpacked);
            }
        }
    }
    found
}

/// Asks again until there is an answer, for as long as [`PATIENCE`] lasts.
#[track_caller]
fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// How each `detect` ended, in the order of the group.
fn verdicts(outcome: &Outcome) -> Vec<(String, String)> {
    let verdict = |event: &Event| match event {
        Event::Detected { buildpack, verdict } => Some((buildpack.id.to_string(), format!("{verdict:?}"))),
        _ => None,
    };
    outcome.events.iter().filter_map(verdict).collect()
}
