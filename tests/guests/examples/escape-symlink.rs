//! G9: makes links that lead outside, then reads and writes through them, with
//! and without a slash at the end. `PATH_TO_TRY` is a file outside.

use std::fs;

use wapack_sdk::Built;
use wapack_test_guests::{report, scratch_layer, symlink, text};

wapack_test_guests::in_build!(|context| {
    let layer = scratch_layer(context)?;
    let absolute = text(context, "PATH_TO_TRY", "/etc/hostname");
    let relative = format!("../../../../../../../..{absolute}");
    for (name, target) in
        [("absolute", absolute), ("relative", &relative), ("root", "/"), ("up", ".."), ("loop", "loop")]
    {
        let link = layer.path().join(name);
        let made = symlink(target, &link).map_err(|error| error.kind());
        report(format_args!("{name}: link"), &made);
        // Without the link there would be an ordinary file of that name.
        if made.is_err() {
            continue;
        }
        for suffix in ["", "/", "/.", "/etc/hostname", "/../x"] {
            let path = format!("{}{suffix}", link.display());
            report(format_args!("{name}{suffix}: read"), &fs::read(&path).map_err(|error| error.kind()));
            report(format_args!("{name}{suffix}: list"), &fs::read_dir(&path).map_err(|error| error.kind()));
            report(
                format_args!("{name}{suffix}: write"),
                &fs::write(&path, "w").map_err(|error| error.kind()),
            );
            report(
                format_args!("{name}{suffix}: mkdir"),
                &fs::create_dir(&path).map_err(|error| error.kind()),
            );
        }
        let through = link.join("dir/file");
        report(
            format_args!("{name}: rename onto"),
            &fs::rename(&link, through).map_err(|error| error.kind()),
        );
    }
    Ok(Built::new())
});
