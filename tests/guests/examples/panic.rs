//! G25: panics some named functions deep; their names have to reach the author.

use wapack_sdk::Built;

#[inline(never)]
fn innermost_function(values: &[u32], index: usize) -> u32 {
    values[std::hint::black_box(index)] + 1
}

#[inline(never)]
fn middle_function(values: &[u32]) -> u32 {
    innermost_function(values, values.len() + 3) * 2
}

#[inline(never)]
fn outer_function() -> u32 {
    middle_function(&[1, 2, 3]) - 1
}

wapack_test_guests::in_build!(|_| { Ok(Built::new().label("never", outer_function().to_string())) });
