//! G1: `build` never returns.

wapack_test_guests::in_build!(|_| {
    loop {
        std::hint::black_box(());
    }
});
