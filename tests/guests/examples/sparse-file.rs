//! G7: makes a file of `BYTES` (8 TiB) that holds nothing.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};

use wapack_sdk::Built;
use wapack_test_guests::{number, report, scratch_layer};

wapack_test_guests::in_build!(|context| {
    let layer = scratch_layer(context)?;
    let bytes = number(context, "BYTES", 8 << 40);
    let mut file = File::create(layer.path().join("by-length"))?;
    report("set_len", &file.set_len(bytes).map_err(|error| error.kind()));
    let mut file_by_seek = File::create(layer.path().join("by-seek"))?;
    let written = file_by_seek.seek(SeekFrom::Start(bytes)).and_then(|_| file_by_seek.write_all(b"x"));
    report("write far out", &written.map_err(|error| error.kind()));
    report("write", &file.write_all(b"x").map_err(|error| error.kind()));
    Ok(Built::new().layer(layer))
});
