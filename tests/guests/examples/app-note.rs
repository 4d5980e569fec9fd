//! Reads `note` in the app, then writes its own name there.

use wapack_sdk::{Built, fs};
use wapack_test_guests::say;

wapack_test_guests::in_build!(|context| {
    let path = context.app.join("note");
    match fs::read_to_string(&path) {
        Ok(text) => say(format_args!("read: {text}")),
        Err(_) => say(format_args!("read: nothing")),
    }
    match fs::write(&path, "written by another") {
        Ok(()) => say(format_args!("write: done")),
        Err(error) => say(format_args!("write: refused: {:?}", error.kind())),
    }
    Ok(Built::new())
});
