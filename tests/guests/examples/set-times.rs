//! G20: gives a file times that no clock shows. (WASI has none before 1970.)
#![cfg(target_family = "wasm")]

use wapack_sdk::{Built, fs};
use wapack_test_guests::{report, say, scratch_layer};
use wasip2::filesystem::preopens::get_directories;
use wasip2::filesystem::types::{Datetime, NewTimestamp, PathFlags};

wapack_test_guests::in_build!(|context| {
    let layer = scratch_layer(context)?;
    let path = layer.path().join("file").display().to_string();
    fs::write(&path, "x")?;
    let directories = get_directories();
    let Some((directory, relative)) = directories.iter().find_map(|(directory, root)| {
        path.strip_prefix(root.as_str()).map(|rest| (directory, rest.trim_start_matches('/')))
    }) else {
        say("no directory holds the layer");
        return Ok(Built::new());
    };
    for seconds in [0, 1, 1 << 31, 1 << 32, 1 << 40, i64::MAX as u64, 1 << 63, u64::MAX] {
        for nanoseconds in [0, 999_999_999, 1_000_000_000, u32::MAX] {
            let time = NewTimestamp::Timestamp(Datetime { seconds, nanoseconds });
            let set = directory.set_times_at(PathFlags::empty(), relative, time, time);
            report(format_args!("{seconds}.{nanoseconds}"), &set);
            report(
                "modified",
                &fs::metadata(&path).and_then(|metadata| metadata.modified()).map_err(|e| e.kind()),
            );
        }
    }
    Ok(Built::new().layer(layer))
});
