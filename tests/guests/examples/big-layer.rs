//! A cached launch layer of `FILES` files of `BYTES` bytes each, under the key
//! `KEY`. With `READ`, reads that file of it.

use wapack_sdk::{Built, LayerTypes, fs};
use wapack_test_guests::{number, say, text};

wapack_test_guests::in_build!(|context| {
    let (files, bytes) = (number(context, "FILES", 10), number(context, "BYTES", 1000));
    let layer = context
        .layer("big", LayerTypes::LAUNCH | LayerTypes::CACHE)
        .key(&[("key", text(context, "KEY", "1"))])
        .fill(|directory| {
            // Numbers that hardly compress, the same ones in every build.
            let mut state = 1_u64;
            for file in 0..files {
                let mut contents = Vec::new();
                while (contents.len() as u64) < bytes {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    contents.extend((state ^ (state >> 32)).to_le_bytes());
                }
                fs::write(directory.join(format!("file-{file:05}")), contents)?;
            }
            Ok(())
        })?;
    say(format_args!("big: {:?}", layer.state()));
    if let Some(name) = context.user_env.get("READ") {
        say(format_args!("read {} bytes", fs::read(layer.path().join(name))?.len()));
    }
    Ok(Built::new().layer(layer))
});
