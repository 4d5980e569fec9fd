//! G5: makes a directory of `COUNT` names and lists it whole.

use std::fs;

use wapack_sdk::Built;
use wapack_test_guests::{number, report, say, scratch_layer};

wapack_test_guests::in_build!(|context| {
    let layer = scratch_layer(context)?;
    for index in 0..number(context, "COUNT", 1_000_000) {
        let made = fs::write(layer.path().join(format!("{index:0>200}")), "");
        if made.is_err() {
            report(format_args!("name {index}"), &made.map_err(|error| error.kind()));
            break;
        }
    }
    say(format_args!("listed {}", fs::read_dir(layer.path())?.count()));
    Ok(Built::new())
});
