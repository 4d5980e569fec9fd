//! G7: deletes a file that is open, then goes on writing `BYTES` to it.

use std::fs::{self, File};
use std::io::Write;

use wapack_sdk::Built;
use wapack_test_guests::{number, say, scratch_layer};

wapack_test_guests::in_build!(|context| {
    let layer = scratch_layer(context)?;
    let block = vec![7; 1024 * 1024];
    let mut held = Vec::new();
    let mut written = 0;
    while written < number(context, "BYTES", 1 << 40) {
        let path = layer.path().join("file");
        let result = File::create(&path).and_then(|mut file| {
            fs::remove_file(&path)?;
            file.write_all(&block)?;
            held.push(file);
            Ok(())
        });
        if let Err(error) = result {
            say(format_args!("refused after {written} bytes: {:?}", error.kind()));
            return Ok(Built::new());
        }
        written += block.len() as u64;
    }
    say(format_args!("wrote {written} bytes"));
    Ok(Built::new())
});
