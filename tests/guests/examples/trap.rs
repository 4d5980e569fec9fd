//! G25: ends by `KIND`: `abort`, `exit` or `exit-ok`, without a word to the host.
#![expect(clippy::exit, reason = "that is what it is for")]

use wapack_sdk::{BuildContext, Built, Error};
use wapack_test_guests::text;

fn build(context: &BuildContext) -> Result<Built, Error> {
    match text(context, "KIND", "abort") {
        "exit" => std::process::exit(3),
        "exit-ok" => std::process::exit(0),
        _ => std::process::abort(),
    }
}

wapack_test_guests::in_build!(build);
