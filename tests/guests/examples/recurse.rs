//! G6: recursion without end.

use std::hint::black_box;

use wapack_sdk::Built;
use wapack_test_guests::say;

#[expect(unconditional_recursion, reason = "that is what it is for")]
fn deeper(depth: u64) -> u64 {
    black_box(deeper(black_box(depth + 1))) + 1
}

wapack_test_guests::in_build!(|_| {
    say(deeper(0));
    Ok(Built::new())
});
