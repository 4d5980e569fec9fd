//! G4: takes memory, a MiB at a time, until there is no more or `BYTES` are
//! reached, and touches it.

use wapack_sdk::Built;
use wapack_test_guests::{number, say};

const MIB: usize = 1024 * 1024;

wapack_test_guests::in_build!(|context| {
    let wanted = number(context, "BYTES", u64::MAX);
    let mut held: Vec<Vec<u8>> = Vec::new();
    while (held.len() * MIB) as u64 <= wanted {
        let mut block = Vec::new();
        if block.try_reserve_exact(MIB).is_err() {
            say(format_args!("no more after {} MiB", held.len()));
            return Ok(Built::new());
        }
        block.resize(MIB, 1);
        held.push(std::hint::black_box(block));
    }
    say(format_args!("got {} MiB", held.len()));
    Ok(Built::new())
});
