//! G9: opens a directory, moves it elsewhere, and goes up from it; swaps a
//! directory for a link between looking and opening.

use std::fs::{self, File};

use wapack_sdk::Built;
use wapack_test_guests::{number, report, say, scratch_layer, symlink, text};

wapack_test_guests::in_build!(|context| {
    let layer = scratch_layer(context)?;
    let (deep, swap, link) =
        (layer.path().join("a/b/c/d"), layer.path().join("swap"), layer.path().join("link"));
    fs::create_dir_all(&deep)?;
    let _held = File::open(&deep)?;
    fs::rename(&deep, layer.path().join("moved"))?;
    let up = layer.path().join("moved/../../../../../../etc/hostname");
    report("up from a moved directory", &fs::read(up).map_err(|error| error.kind()));

    symlink(text(context, "DIRECTORY_TO_TRY", "/etc"), &link)?;
    let mut escaped = 0;
    for _ in 0..number(context, "COUNT", 10_000) {
        fs::create_dir(&swap)?;
        fs::write(swap.join("hostname"), "ours")?;
        fs::metadata(&swap)?;
        fs::remove_dir_all(&swap)?;
        fs::rename(&link, &swap)?;
        escaped += u64::from(fs::read(swap.join("hostname")).is_ok());
        fs::rename(&swap, &link)?;
    }
    say(format_args!("escaped {escaped} times"));
    Ok(Built::new())
});
