//! Fetches `COUNT` times the file `p.tgz` of the source `npm`, each one unpacked
//! into a directory of its own, and says how many of them hold what they should.

use wapack_sdk::downloads::Artifact;
use wapack_sdk::files::Unpack;
use wapack_sdk::{Built, LayerTypes};
use wapack_test_guests::{number, say};

wapack_test_guests::in_build!(|context| {
    let count = number(context, "COUNT", 1);
    let layer = context.layer("fetched", LayerTypes::LAUNCH).key::<&str>(&[]).fill(|directory| {
        let place = |number: u64| directory.join(format!("{}/{}", number % 100, number / 100));
        let artifacts: Vec<Artifact> = (0..count)
            .map(|number| Artifact::new("npm", "p.tgz", place(number)).unpack(Unpack::strip(1)))
            .collect();
        context.fetch(&artifacts)?;
        let files = (0..count).filter(|number| place(*number).join("lib/index.js").is_file()).count();
        say(format_args!("files: {files}"));
        Ok(())
    })?;
    Ok(Built::new().layer(layer))
});
