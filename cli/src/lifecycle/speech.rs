//! What a program says, in the form that platforms and people know from the reference
//! lifecycle: information on standard output, warnings and errors on standard error.

use std::error::Error;
use std::fmt::Write as _;

use wapack_runtime::cancel::Cancel;
use wapack_runtime::cnb::id::BuildpackRef;
use wapack_runtime::event::{Event, EventSink, LayerSource, Phase, Verdict};
use wapack_runtime::text::{harmless, harmless_lines};

use crate::terminal::Terminal;

/// How much is said: everything from this level on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

impl Level {
    /// The level with a name; `warning` and `fatal` are the reference's, too (CLI-07).
    pub(super) fn named(name: &str) -> Option<Self> {
        match name.to_lowercase().as_str() {
            "debug" => Some(Self::Debug),
            "info" => Some(Self::Info),
            "warn" | "warning" => Some(Self::Warn),
            "error" | "fatal" => Some(Self::Error),
            _ => None,
        }
    }
}

/// What flags and variables say about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Speech {
    pub(crate) level: Level,
    pub(crate) color: bool,
}

impl Default for Speech {
    fn default() -> Self {
        Self { level: Level::Info, color: true }
    }
}

/// One thing to say, and how loud it is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    level: Level,
    text: String,
    /// A heading of the creator's.
    is_heading: bool,
}

impl Line {
    fn at(level: Level, text: String) -> Self {
        Self { level, text, is_heading: false }
    }
}

/// Where everything goes that a program says.
#[derive(Debug)]
pub(crate) struct Log {
    terminal: Terminal,
    level: Level,
}

impl Log {
    pub(crate) fn new(speech: Speech, cancel: Cancel) -> Self {
        Self { terminal: Terminal::new(!speech.color, cancel), level: speech.level }
    }

    pub(crate) fn info(&mut self, text: &str) {
        self.write(&Line::at(Level::Info, text.to_owned()));
    }

    pub(crate) fn warning(&mut self, text: &str) {
        self.write(&Line::at(Level::Warn, text.to_owned()));
    }

    /// Why the program failed: one line.
    pub(crate) fn failure(&mut self, error: &dyn Error) {
        self.write(&Line::at(Level::Error, chain(error)));
    }

    /// CLI-06.
    fn write(&mut self, line: &Line) {
        if line.level < self.level {
            return;
        }
        match line.level {
            Level::Debug | Level::Info if line.is_heading => {
                let text = self.terminal.out.heading(&line.text);
                self.terminal.line(&text);
            }
            Level::Debug | Level::Info => self.terminal.line(&line.text),
            Level::Warn => {
                let prefix = self.terminal.err.warning("Warning: ");
                Terminal::error_line(&format!("{prefix}{}", line.text));
            }
            Level::Error => {
                let prefix = self.terminal.err.error("ERROR: ");
                Terminal::error_line(&format!("{prefix}{}", line.text));
            }
        }
    }
}

impl EventSink for Log {
    fn event(&mut self, event: Event) {
        if let Some(line) = line(&event) {
            self.write(&line);
        }
    }
}

/// An error and its causes: `failed to build: cannot read `plan.toml`: …`.
fn chain(error: &dyn Error) -> String {
    let mut text = harmless_lines(&error.to_string());
    let mut next = error.source();
    while let Some(cause) = next {
        let said = harmless_lines(&cause.to_string());
        // Errors of others sometimes say what their cause says again.
        if !text.ends_with(&said) {
            let _ = write!(text, ": {said}");
        }
        next = cause.source();
    }
    text
}

/// What an event reads like; `None` for what only moves.
fn line(event: &Event) -> Option<Line> {
    let debug = |text| Some(Line::at(Level::Debug, text));
    let info = |text| Some(Line::at(Level::Info, text));
    match event {
        Event::PhaseStarted { phase } => {
            let text = format!("===> {}", heading(*phase));
            Some(Line { level: Level::Info, text, is_heading: true })
        }
        Event::PhaseFinished { elapsed, .. } => debug(format!("took {:.1} ms", elapsed.as_secs_f64() * 1e3)),
        Event::Detected { buildpack, verdict: Verdict::Pass } => debug(format!("pass: {buildpack}")),
        Event::Detected { buildpack, verdict: Verdict::Fail { reason } } => {
            let reason = harmless_lines(reason);
            debug(if reason.is_empty() {
                format!("fail: {buildpack}")
            } else {
                format!("fail: {buildpack}: {reason}")
            })
        }
        Event::Detected { buildpack, verdict: Verdict::Error { message } } => {
            info(format!("err:  {buildpack}: {}", harmless_lines(message)))
        }
        Event::DetectOutput { buildpack, lines, prominent } => {
            let heading = format!("======== Output: {buildpack} ========");
            let lines = lines.iter().map(|line| harmless(line));
            let text = std::iter::once(heading).chain(lines).collect::<Vec<_>>().join("\n");
            if *prominent { info(text) } else { debug(text) }
        }
        Event::GroupChosen { buildpacks, considered } => info(participants(buildpacks, *considered)),
        Event::Compiling { buildpack } => debug(format!("{buildpack} is compiled for this machine, once")),
        Event::LayerRestored { buildpack, layer } => {
            info(format!("Restoring data for \"{}:{}\" from cache", buildpack.id, harmless(layer)))
        }
        Event::BuildpackStarted { buildpack } => debug(format!("{buildpack} builds")),
        Event::BuildpackFinished { buildpack, elapsed } => {
            debug(format!("{buildpack} took {:.1} ms", elapsed.as_secs_f64() * 1e3))
        }
        Event::Output { line, .. } => info(harmless(line)),
        Event::LayerExported { name, source, .. } => {
            let what = match source {
                LayerSource::Added => "Adding",
                LayerSource::Reused => "Reusing",
            };
            info(format!("{what} layer '{}'", harmless(name)))
        }
        Event::ImageWritten { reference, digest, .. } => {
            info(format!("*** Images ({}):\n      {}", harmless(digest), harmless(reference)))
        }
        Event::Detail { message } => debug(harmless_lines(message)),
        Event::Download { .. }
        | Event::Progress { .. }
        | Event::Transfer { .. }
        | Event::LayerExplained { .. } => None,
        Event::Warning { message } => Some(Line::at(Level::Warn, harmless_lines(message))),
        Event::Note { message } => info(harmless_lines(message)),
    }
}

fn heading(phase: Phase) -> &'static str {
    match phase {
        Phase::Analyze => "ANALYZING",
        Phase::Detect => "DETECTING",
        Phase::Restore => "RESTORING",
        Phase::Build => "BUILDING",
        Phase::Export => "EXPORTING",
    }
}

/// Who takes part.
///
/// # Shape
/// ```text
/// 2 of 3 buildpacks participating
/// acme/node     1.2.0
/// acme/procfile 0.1.0
/// ```
/// The first line only when some were dropped.
///
/// # Spec
/// DET-12.
fn participants(buildpacks: &[BuildpackRef], considered: usize) -> String {
    let width = buildpacks.iter().map(|buildpack| buildpack.id.as_str().len()).max().unwrap_or_default();
    let counted = format!("{} of {considered} buildpacks participating", buildpacks.len());
    let lines =
        buildpacks.iter().map(|BuildpackRef { id, version }| format!("{:<width$} {version}", id.as_str()));
    let first = (buildpacks.len() != considered).then_some(counted);
    first.into_iter().chain(lines).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn buildpack(id: &str, version: &str) -> BuildpackRef {
        BuildpackRef { id: id.parse().unwrap(), version: version.parse().unwrap() }
    }

    fn said(event: &Event) -> (Level, String) {
        let line = line(event).unwrap();
        (line.level, line.text)
    }

    #[test]
    fn det_12_participants_are_counted_when_some_were_dropped_and_padded() {
        let two = [buildpack("acme/node", "1.2.0"), buildpack("a", "0.1.0")];
        let event = |considered| Event::GroupChosen { buildpacks: two.to_vec(), considered };
        assert_eq!(
            said(&event(3)),
            (Level::Info, "2 of 3 buildpacks participating\nacme/node 1.2.0\na         0.1.0".to_owned())
        );
        assert_eq!(said(&event(2)), (Level::Info, "acme/node 1.2.0\na         0.1.0".to_owned()));
    }

    #[test]
    fn det_11_passes_and_failures_are_details_and_errors_are_not() {
        let detected = |verdict| said(&Event::Detected { buildpack: buildpack("a", "1"), verdict });
        assert_eq!(detected(Verdict::Pass), (Level::Debug, "pass: a@1".to_owned()));
        assert_eq!(detected(Verdict::Fail { reason: String::new() }), (Level::Debug, "fail: a@1".to_owned()));
        let error = Verdict::Error { message: "exit status 3".to_owned() };
        assert_eq!(detected(error), (Level::Info, "err:  a@1: exit status 3".to_owned()));
    }

    #[test]
    fn det_11_output_of_detect_has_a_heading_and_is_shown_when_it_matters() {
        let output = |prominent| {
            let lines = vec!["one".to_owned(), "two".to_owned()];
            said(&Event::DetectOutput { buildpack: buildpack("a", "1"), lines, prominent })
        };
        let text = "======== Output: a@1 ========\none\ntwo".to_owned();
        assert_eq!(output(true), (Level::Info, text.clone()));
        assert_eq!(output(false), (Level::Debug, text));
    }

    #[test]
    fn cli_07_levels_have_the_names_of_the_reference() {
        let named = |name| Level::named(name);
        assert_eq!(named("debug"), Some(Level::Debug));
        assert_eq!(named("INFO"), Some(Level::Info));
        assert_eq!([named("warn"), named("warning")], [Some(Level::Warn); 2]);
        assert_eq!([named("error"), named("fatal")], [Some(Level::Error); 2]);
        assert_eq!([named(""), named("loud")], [None; 2]);
    }

    #[test]
    fn an_error_and_its_causes_are_one_line() {
        #[derive(Debug, thiserror::Error)]
        #[error("failed to build")]
        struct Failed(#[source] io::Error);
        let error = Failed(io::Error::other("no space"));
        assert_eq!(chain(&error), "failed to build: no space");
    }

    #[test]
    fn layers_and_phases_read_as_platforms_know_them() {
        let exported = |source| {
            let (name, digest) = ("acme/node:dist".to_owned(), String::new());
            said(&Event::LayerExported { name, source, bytes: 0, digest }).1
        };
        assert_eq!(exported(LayerSource::Added), "Adding layer 'acme/node:dist'");
        assert_eq!(exported(LayerSource::Reused), "Reusing layer 'acme/node:dist'");
        assert_eq!(said(&Event::PhaseStarted { phase: Phase::Detect }).1, "===> DETECTING");
    }
}
