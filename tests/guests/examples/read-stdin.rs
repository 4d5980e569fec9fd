//! G2: reads standard input to its end.

use std::io::Read;

use wapack_sdk::Built;
use wapack_test_guests::say;

wapack_test_guests::in_build!(|_| {
    let mut input = Vec::new();
    std::io::stdin().read_to_end(&mut input)?;
    say(format_args!("stdin: {} bytes", input.len()));
    Ok(Built::new())
});
