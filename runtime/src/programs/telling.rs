//! Saying what happens, in one line each.

use crate::event::{Event, EventSink};
use crate::text::harmless;

/// Something the user should know that stops nothing.
pub(super) fn warn(events: &mut dyn EventSink, message: String) {
    events.event(Event::Warning { message });
}

/// Something for those who want to know more.
pub(super) fn note(events: &mut dyn EventSink, message: String) {
    events.event(Event::Note { message });
}

/// An error with its causes.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    harmless(&text)
}
