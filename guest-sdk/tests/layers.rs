//! Layers over several builds, on the native host.

#![expect(clippy::unwrap_used, reason = "a failure is a failed test")]

use std::cell::Cell;

use wapack_sdk::testing::Project;
use wapack_sdk::{
    BuildContext, Buildpack, Built, Contents, DetectContext, Detected, Error, LayerState, LayerTypes, files,
    fs,
};

/// Makes one layer whose types, key and metadata the user's variables decide.
struct OneLayer;

impl Buildpack for OneLayer {
    fn detect(_: &DetectContext) -> Result<Detected, Error> {
        Ok(Detected::pass())
    }

    fn build(context: &BuildContext) -> Result<Built, Error> {
        let mut types = LayerTypes::default();
        for name in context.user_env["TYPES"].split('|') {
            types = types
                | match name {
                    "launch" => LayerTypes::LAUNCH,
                    "build" => LayerTypes::BUILD,
                    _ => LayerTypes::CACHE,
                };
        }
        let key = fs::read(context.app.join("key"))?;
        let layer = context
            .layer("one", types)
            .key(&[("key", key)])
            .fill(|directory| Ok(fs::write(directory.join("file"), "contents")?))?;
        Ok(Built::new().layer(layer))
    }
}

fn states(types: &str) -> [LayerState; 3] {
    let project = Project::new().unwrap().user_env("TYPES", types);
    project.app_file("key", "1").unwrap();
    let first = project.build::<OneLayer>().unwrap().layers[0].state();
    let second = project.build::<OneLayer>().unwrap().layers[0].state();
    project.app_file("key", "2").unwrap();
    [first, second, project.build::<OneLayer>().unwrap().layers[0].state()]
}

#[test]
fn a_layer_is_reused_as_its_types_allow_while_its_key_is_the_same() {
    use LayerState::{Filled, Kept, Restored};
    assert_eq!(states("launch|cache"), [Filled, Restored, Filled]);
    assert_eq!(states("cache"), [Filled, Restored, Filled]);
    assert_eq!(states("launch"), [Filled, Kept, Filled]);
    assert_eq!(states("launch|build"), [Filled, Filled, Filled]);
    assert_eq!(states("build"), [Filled, Filled, Filled]);
}

#[test]
fn update_sees_what_the_last_build_left() {
    thread_local!(static SEEN: Cell<Option<Contents>> = const { Cell::new(None) });
    struct Counter;
    impl Buildpack for Counter {
        fn detect(_: &DetectContext) -> Result<Detected, Error> {
            Ok(Detected::pass())
        }
        fn build(context: &BuildContext) -> Result<Built, Error> {
            let layer =
                context.layer("runs", LayerTypes::CACHE).key::<&str>(&[]).update(|directory, contents| {
                    SEEN.set(Some(contents));
                    let file = directory.join("runs");
                    let before =
                        if contents == Contents::Empty { String::new() } else { fs::read_to_string(&file)? };
                    Ok(fs::write(file, before + "x")?)
                })?;
            let runs = fs::read_to_string(layer.path().join("runs"))?.len() as u64;
            let store = std::collections::BTreeMap::from([("runs", runs)]);
            Built::new().layer(layer).store(&store)
        }
    }
    let project = Project::new().unwrap();
    let _ = project.build::<Counter>().unwrap();
    assert_eq!(SEEN.get(), Some(Contents::Empty));
    let built = project.build::<Counter>().unwrap();
    assert_eq!(SEEN.get(), Some(Contents::Restored));
    assert_eq!(built.store.as_deref(), Some("runs = 2\n"));
}

#[test]
fn names_that_the_host_refuses_are_refused() {
    let project = Project::new().unwrap();
    for name in ["../x", "a/b", "", ".", "..", "launch", "/x", "x/"] {
        let context = project.build_context();
        let opened = context.layer(name, LayerTypes::LAUNCH).key(&[("format", "1")]).fill(|_| Ok(()));
        assert!(opened.is_err(), "{name:?}");
    }
    let context = project.build_context();
    let open = || context.layer("twice", LayerTypes::LAUNCH).key(&[("format", "1")]).fill(|_| Ok(()));
    let _ = open().unwrap();
    assert!(open().unwrap_err().message.contains("opened twice"));
}

#[test]
fn files_work_on_trees() {
    let project = Project::new().unwrap();
    project.app_file("tree/bin/tool", "#!").unwrap();
    project.app_file("tree/a", "a").unwrap();
    let (tree, copy) = (project.path().join("app/tree"), project.path().join("app/copy"));
    files::set_executable(tree.join("bin/tool"), true).unwrap();
    let summary = files::copy_tree(&tree, &copy).unwrap();
    assert_eq!((summary.entries, summary.bytes), (4, 3));
    assert_eq!(files::hash_tree(&tree).unwrap(), files::hash_tree(&copy).unwrap());
    files::set_executable(copy.join("bin/tool"), false).unwrap();
    assert_ne!(files::hash_tree(&tree).unwrap(), files::hash_tree(&copy).unwrap());
    assert!(files::copy_tree(&tree, &copy).is_err(), "the target is there");
}
