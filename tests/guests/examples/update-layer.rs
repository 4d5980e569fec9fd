//! A cached launch layer with the files `kept` and `changing`. When it is
//! restored, asks to change it and then does what `CHANGE` says: `nothing`, or
//! writes that into `changing`. With `CHANGE=never` it does not even ask.

use wapack_sdk::{Built, LayerTypes, fs};
use wapack_test_guests::{say, text};

wapack_test_guests::in_build!(|context| {
    let change = text(context, "CHANGE", "nothing");
    let layer = context.layer("updated", LayerTypes::LAUNCH | LayerTypes::CACHE).key::<&str>(&[]);
    let fill = |directory: &std::path::Path| {
        fs::write(directory.join("kept"), "kept\n")?;
        Ok(fs::write(directory.join("changing"), "first\n")?)
    };
    let layer = if change == "never" {
        layer.fill(fill)?
    } else {
        layer.update(|directory, contents| match (contents, change) {
            (wapack_sdk::Contents::Empty, _) => fill(directory),
            (_, "nothing") => Ok(()),
            (_, change) => Ok(fs::write(directory.join("changing"), change)?),
        })?
    };
    say(format_args!("updated: {:?}", layer.state()));
    for name in ["changing", "kept"] {
        say(format_args!("{name}: {}", fs::read_to_string(layer.path().join(name))?.trim_end()));
    }
    Ok(Built::new().layer(layer))
});
