//! Events as text for people, or as JSON for programs.

use serde::Serialize;
use serde_json::json;
use std::fmt::Write as _;
use wapack_runtime::cnb::id::BuildpackRef;
use wapack_runtime::event::{Event, EventSink, LayerSource, Phase, Transfer, Verdict};
use wapack_runtime::limits::show_bytes;
use wapack_runtime::text::{harmless, harmless_lines};

use crate::args::{OutputFormat, Speech};
use crate::exit;
use crate::explain;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::report;
use crate::signals::Caught;
use crate::terminal::Terminal;

/// How much is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Volume {
    Quiet,
    Normal,
    Verbose,
}

/// Where everything that is said goes through.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) terminal: Terminal,
    format: OutputFormat,
    volume: Volume,
    progress: Progress,
    /// Whether it is said why layers are what they are.
    pub(crate) explains: bool,
}

impl Output {
    pub(crate) fn new(terminal: Terminal, speech: &Speech) -> Self {
        let volume = match (speech.quiet, speech.verbose) {
            (true, _) => Volume::Quiet,
            (_, true) => Volume::Verbose,
            _ => Volume::Normal,
        };
        let format = speech.output_format;
        let moves = terminal.can_move && volume > Volume::Quiet && format == OutputFormat::Text;
        Self { terminal, format, volume, progress: Progress::new(moves), explains: false }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.format == OutputFormat::Json
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.volume == Volume::Quiet
    }

    /// What a command found out, for people; nothing with `--quiet`.
    pub(crate) fn say(&mut self, text: &str) {
        if self.volume > Volume::Quiet {
            self.line(text);
        }
    }

    /// A line that even `--quiet` does not leave out.
    pub(crate) fn line(&mut self, text: &str) {
        self.progress.clear();
        self.terminal.line(text);
    }

    /// One JSON object on one line.
    pub(crate) fn object(&mut self, value: &impl Serialize) {
        self.line(&json_line(value));
    }

    /// A whole JSON document, laid out for reading.
    pub(crate) fn document(&mut self, value: &impl Serialize) {
        let text = serde_json::to_string_pretty(value).unwrap_or_else(|error| error.to_string());
        self.line(&text);
    }

    pub(crate) fn warning(&mut self, message: &str) {
        if self.is_json() {
            self.object(&Event::Warning { message: message.to_owned() });
        } else {
            self.progress.clear();
            let text = format!("{}: {}", self.terminal.err.warning("warning"), harmless_lines(message));
            Terminal::error_line(&text);
        }
    }

    /// Something to know, without alarm.
    pub(crate) fn note(&mut self, message: &str) {
        self.event(Event::Note { message: message.to_owned() });
    }

    /// Why a command failed; gives its exit code.
    pub(crate) fn failure(&mut self, failure: &Failure, caught: &Caught) -> u8 {
        self.progress.clear();
        if self.terminal.out_closed() && failure.is_cancelled() {
            return exit::CLOSED;
        }
        let code = exit::code(failure, caught.signal());
        let text = if self.is_json() {
            json_line(&report::json(failure, code))
        } else if failure.is_cancelled() {
            "interrupted; nothing was published".to_owned()
        } else {
            report::text(failure, self.terminal.err)
        };
        Terminal::error_line(&text);
        code
    }

    fn text_event(&mut self, event: &Event) {
        if !matches!(event, Event::Progress { .. } | Event::Download { .. } | Event::Transfer { .. }) {
            self.progress.clear();
        }
        match event {
            Event::PhaseStarted { phase } => {
                let heading = self.terminal.out.heading(&format!("===> {}", heading(*phase)));
                self.say(&heading);
            }
            Event::PhaseFinished { elapsed, .. } => {
                self.detail(&format!("{:.1} ms", elapsed.as_secs_f64() * 1e3));
            }
            Event::Detected { buildpack, verdict } => self.detail(&verdict_line(buildpack, verdict)),
            Event::DetectOutput { buildpack, lines, prominent } => {
                let mut text = format!("======== Output: {buildpack} ========");
                for line in lines {
                    let _ = write!(text, "\n{}", harmless(line));
                }
                if *prominent { self.say(&text) } else { self.detail(&text) }
            }
            Event::GroupChosen { buildpacks, considered } => {
                self.say(&participants(buildpacks, *considered));
            }
            Event::Compiling { buildpack } => {
                self.detail(&format!("{buildpack} is compiled for this machine, once"));
                self.progress.spin(format!("compiling {buildpack} for this machine, once"));
            }
            Event::LayerRestored { buildpack, layer } => {
                self.say(&format!("Restoring layer '{}:{}'", buildpack.id, harmless(layer)));
            }
            Event::BuildpackStarted { buildpack } => self.detail(&format!("{buildpack} builds")),
            Event::BuildpackFinished { buildpack, elapsed } => {
                self.detail(&format!("{buildpack} took {:.1} ms", elapsed.as_secs_f64() * 1e3));
            }
            Event::Output { buildpack, line } => {
                let prefix = self.terminal.out.faint(&format!("[{}]", buildpack.id));
                self.say(&format!("{prefix} {}", harmless(line)));
            }
            Event::LayerExplained { buildpack, layer, fate, reason, version_was } => {
                if self.explains {
                    self.say(&explain::text(buildpack, layer, *fate, reason, version_was.as_deref()));
                }
            }
            Event::LayerExported { name, source, bytes, digest } => {
                let what = match source {
                    LayerSource::Added => "Adding",
                    LayerSource::Reused => "Reusing",
                };
                let mut line = format!("{what} layer '{}'", harmless(name));
                if self.volume == Volume::Verbose {
                    let _ = write!(line, " ({}, {digest})", show_bytes(*bytes));
                }
                self.say(&line);
            }
            Event::Download { done_bytes, total_bytes, done_files, total_files } => {
                let files = format!("{done_files} of {total_files} files");
                self.progress.bytes(*done_bytes, *total_bytes, &files);
            }
            Event::Progress { done_bytes, total_bytes } => {
                self.progress.bytes(*done_bytes, *total_bytes, "");
            }
            Event::Transfer { transfer, done_bytes, total_bytes } => {
                let what = match transfer {
                    Transfer::Fetch => "fetching layers",
                    Transfer::Publish => "publishing layers",
                };
                self.progress.bytes(*done_bytes, Some(*total_bytes), what);
            }
            // The command says it, with what else it knows.
            Event::ImageWritten { .. } => {}
            Event::Warning { message } => self.warning(message),
            Event::Note { message } => self.say(&harmless_lines(message)),
            Event::Detail { message } => self.detail(&harmless_lines(message)),
        }
    }

    /// For `--verbose`.
    pub(crate) fn detail(&mut self, text: &str) {
        if self.volume == Volume::Verbose {
            let text = self.terminal.out.faint(text);
            self.line(&text);
        }
    }
}

impl EventSink for Output {
    fn event(&mut self, event: Event) {
        if self.is_json() {
            self.object(&event);
        } else {
            self.text_event(&event);
        }
    }
}

fn json_line(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|error| json!({ "error": error.to_string() }).to_string())
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

fn verdict_line(buildpack: &BuildpackRef, verdict: &Verdict) -> String {
    match verdict {
        Verdict::Pass => format!("pass: {buildpack}"),
        Verdict::Fail { reason } => format!("skip: {buildpack}: {}", harmless_lines(reason)),
        Verdict::Error { message } => format!("err:  {buildpack}: {}", harmless_lines(message)),
    }
}

/// # Shape
/// ```text
/// 2 of 3 buildpacks participating
/// acme/node     1.2.0
/// acme/procfile 0.1.0
/// ```
fn participants(buildpacks: &[BuildpackRef], considered: usize) -> String {
    let mut text = format!("{} of {considered} buildpacks participating", buildpacks.len());
    let width = buildpacks.iter().map(|buildpack| buildpack.id.as_str().len()).max().unwrap_or_default();
    for BuildpackRef { id, version } in buildpacks {
        let _ = write!(text, "\n{:<width$} {version}", id.as_str());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn participants_are_shown_in_columns() {
        let buildpack = |id: &str, version: &str| BuildpackRef {
            id: id.parse().unwrap(),
            version: version.parse().unwrap(),
        };
        assert_eq!(
            participants(&[buildpack("acme/node", "1.2.0"), buildpack("a", "0.1.0")], 3),
            "2 of 3 buildpacks participating\nacme/node 1.2.0\na         0.1.0"
        );
    }
}
