//! G8: nests `COUNT` (100,000) directories by renaming: a new parent is put
//! around the tree each time, so that no path is ever long.

use std::fs;

use wapack_sdk::Built;
use wapack_test_guests::{number, report, say, scratch_layer};

wapack_test_guests::in_build!(|context| {
    let layer = scratch_layer(context)?;
    let count = number(context, "COUNT", 100_000);

    let long = (0..count.min(2000)).fold(layer.path().join("long"), |path, _| path.join("d"));
    report("one long path", &fs::create_dir_all(long).map_err(|error| error.kind()));

    let (tree, parent) = (layer.path().join("tree"), layer.path().join("parent"));
    fs::create_dir(&tree)?;
    for depth in 1..count {
        let wrapped = fs::create_dir(&parent)
            .and_then(|()| fs::rename(&tree, parent.join("d")))
            .and_then(|()| fs::rename(&parent, &tree));
        if let Err(error) = wrapped {
            say(format_args!("refused at depth {depth}: {:?}", error.kind()));
            return Ok(Built::new().layer(layer));
        }
    }
    say(format_args!("reached depth {count}"));
    Ok(Built::new().layer(layer))
});
