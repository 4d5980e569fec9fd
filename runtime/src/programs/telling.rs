//! Saying what happens, in one line each.

use crate::event::{Event, EventSink};
use crate::executor::worker::Isolation;
use crate::text::harmless;

/// Something the user should know that stops nothing.
pub(super) fn warn(events: &mut dyn EventSink, message: String) {
    events.event(Event::Warning { message });
}

/// Something for those who want to know more.
pub(super) fn note(events: &mut dyn EventSink, message: String) {
    events.event(Event::Note { message });
}

/// What holds components, where that is not everything. In the containers of platforms
/// it never is, and there is nothing that users could do, so this is no warning.
pub(super) fn isolation(events: &mut dyn EventSink, isolation: &Isolation) {
    if let Some(message) = isolation.remains() {
        note(events, message);
    }
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
