//! Lists what it can see from `/` and from each of `PATHS` (joined by `:`), to
//! any depth, and what it can read there.

use std::fs;
use std::path::Path;

use wapack_sdk::Built;
use wapack_test_guests::{say, text};

fn look(path: &Path, depth: u32) {
    match fs::read_dir(path) {
        Ok(entries) => {
            say(format_args!("list {}: done", path.display()));
            for entry in entries.flatten().filter(|_| depth < 16) {
                look(&entry.path(), depth + 1);
            }
        }
        Err(_) => match fs::read(path) {
            Ok(contents) => {
                say(format_args!("read {}: {}", path.display(), String::from_utf8_lossy(&contents)));
            }
            Err(error) => say(format_args!("see {}: refused: {:?}", path.display(), error.kind())),
        },
    }
}

wapack_test_guests::in_build!(|context| {
    for path in text(context, "PATHS", "/:/layers:/workspace:/cnb:/platform:/tmp").split(':') {
        look(Path::new(path), 0);
    }
    Ok(Built::new())
});
