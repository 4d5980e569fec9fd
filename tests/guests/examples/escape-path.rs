//! G9: reads, lists and writes `PATH_TO_TRY`, or else a list of ways out of the
//! directories it was given.

use std::fs;
use std::path::Path;

use wapack_sdk::Built;
use wapack_test_guests::{report, scratch_layer};

wapack_test_guests::in_build!(|context| {
    let layer = scratch_layer(context)?;
    let wanted = context.user_env.get("PATH_TO_TRY").cloned();
    let outside =
        ["/etc/hostname", "/proc/self/environ", "/proc/self/root/etc/hostname", "/sys", "/dev/null", "/"];
    let mut paths: Vec<String> = outside.map(str::to_owned).to_vec();
    for start in [&context.app, &context.buildpack, &context.layers, layer.path(), Path::new("/tmp")] {
        for way in
            ["..", "../..", "../../../../../../etc/hostname", "./../x", "missing/../../x", "//etc/hostname"]
        {
            paths.push(format!("{}/{way}", start.display()));
        }
    }
    for path in wanted.map_or(paths, |path| vec![path]) {
        report(format_args!("read {path}"), &fs::read(&path).map_err(|error| error.kind()));
        report(format_args!("list {path}"), &fs::read_dir(&path).map_err(|error| error.kind()));
        report(format_args!("stat {path}"), &fs::metadata(&path).map_err(|error| error.kind()));
        report(
            format_args!("write {path}/w"),
            &fs::write(format!("{path}/w"), "w").map_err(|error| error.kind()),
        );
    }
    Ok(Built::new())
});
