//! G10: twelve ways to change the app and the buildpack's own directory. Both
//! have a file `victim` and a directory `victims`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::time::SystemTime;

use wapack_sdk::{Built, files};
use wapack_test_guests::{report, scratch_layer, symlink};

type Attempt<'a> = (&'a str, Box<dyn FnOnce() -> io::Result<()> + 'a>);

fn attempts<'a>(root: &'a Path, layer: &'a Path) -> Vec<Attempt<'a>> {
    let victim = root.join("victim");
    let at = |name: &str| root.join(name);
    let [v1, v2, v3, v4, v5, v6, v7, v8] = std::array::from_fn(|_| victim.clone());
    let (new, dir, sub, link, hard, moved) =
        (at("new"), at("victims"), at("sub"), at("link"), at("hard"), at("moved"));
    vec![
        ("create", Box::new(move || fs::write(new, "x"))),
        ("truncate", Box::new(move || OpenOptions::new().write(true).truncate(true).open(v1).map(drop))),
        ("append", Box::new(move || OpenOptions::new().append(true).open(v2)?.write_all(b"x"))),
        ("set length", Box::new(move || OpenOptions::new().write(true).open(v3)?.set_len(0))),
        (
            "truncate and read",
            Box::new(move || {
                OpenOptions::new().read(true).write(true).truncate(true).create(true).open(v4).map(drop)
            }),
        ),
        ("unlink", Box::new(move || fs::remove_file(v5))),
        ("rename away", Box::new(move || fs::rename(v6, layer.join("stolen")))),
        (
            "rename onto",
            Box::new(move || {
                fs::write(layer.join("ours"), "ours")?;
                fs::rename(layer.join("ours"), moved)
            }),
        ),
        (
            "link away and write",
            Box::new(move || {
                fs::hard_link(v7, layer.join("hard"))?;
                fs::write(layer.join("hard"), "x")
            }),
        ),
        ("link into", Box::new(move || fs::hard_link(layer.join("ours"), hard))),
        ("symlink", Box::new(move || symlink("victim", link))),
        ("make directory", Box::new(move || fs::create_dir(sub))),
        ("remove directory", Box::new(move || fs::remove_dir(dir))),
        ("set times", Box::new(move || File::open(v8)?.set_modified(SystemTime::UNIX_EPOCH))),
    ]
}

wapack_test_guests::in_build!(|context| {
    let layer = scratch_layer(context)?;
    for (place, root) in [("app", &context.app), ("buildpack", &context.buildpack)] {
        for (what, attempt) in attempts(root, layer.path()) {
            report(format_args!("{place}: {what}"), &attempt().map_err(|error| error.kind()));
        }
        report(format_args!("{place}: set executable"), &files::set_executable(root.join("victim"), true));
        report(format_args!("{place}: copy into"), &files::copy_tree(root.join("victim"), root.join("copy")));
    }
    Ok(Built::new())
});
