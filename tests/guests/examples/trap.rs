//! G25: ends by `KIND`: `abort`, `exit` or `exit-ok`, without a word to the host.

use wapack_test_guests::text;

wapack_test_guests::in_build!(|context| {
    match text(context, "KIND", "abort") {
        "exit" => std::process::exit(3),
        "exit-ok" => std::process::exit(0),
        _ => std::process::abort(),
    }
});
