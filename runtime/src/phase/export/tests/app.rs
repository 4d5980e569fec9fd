//! What of the app is in an image: slices, links into layers, names that are refused.

use super::*;

fn slices(bench: &mut Bench, slices: &[&[&str]]) {
    bench.built.slices = slices
        .iter()
        .map(|paths| Slice { paths: paths.iter().map(|path| (*path).to_owned()).collect() })
        .collect();
}

/// EXP-04, IMG-08, SLC-07
#[test]
fn slc_02_to_05_slices() {
    let mut bench = Bench::new();
    for path in ["a.js", "lib/deep/x.js", "lib/y.css", "only/a.js", "static/img/1.png", "static/2.png", "z"] {
        bench.write(&format!("app/{path}"), "");
    }
    fs::create_dir(bench.root.path().join("app/empty")).unwrap();
    slices(&mut bench, &[&["*.js", "only/*.js"], &["static", "lib/deep/*", "a.js"], &["nothing"]]);
    let image = bench.export().image;
    assert_eq!(
        history(&image)[..4],
        ["Application Slice: 1", "Application Slice: 2", "Application Slice: 3", "Application Slice: 4"]
    );
    assert_eq!(
        Bench::names(&image, 0),
        ["/workspace", "/workspace/a.js", "/workspace/only", "/workspace/only/a.js"]
    );
    assert_eq!(
        Bench::names(&image, 1),
        [
            "/workspace",
            "/workspace/lib",
            "/workspace/lib/deep",
            "/workspace/lib/deep/x.js",
            "/workspace/static",
            "/workspace/static/2.png",
            "/workspace/static/img",
            "/workspace/static/img/1.png"
        ]
    );
    // EXP-04: V4, the empty layer.
    assert_eq!(
        image.layers[2].diff_id.0.hex(),
        "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
    );
    assert_eq!(
        Bench::names(&image, 3),
        ["/workspace", "/workspace/empty", "/workspace/lib", "/workspace/lib/y.css", "/workspace/z"]
    );
}

/// EXP-04
#[test]
fn slc_05_nothing_left_is_an_empty_layer() {
    let mut bench = Bench::new();
    bench.write("app/dir/x", "");
    slices(&mut bench, &[&["*"]]);
    let image = bench.export().image;
    assert_eq!(Bench::names(&image, 0), ["/workspace", "/workspace/dir", "/workspace/dir/x"]);
    assert_eq!(
        image.layers[1].diff_id.0.hex(),
        "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
    );
}

#[test]
fn slc_01_a_malformed_pattern_fails_the_export() {
    let mut bench = Bench::new();
    slices(&mut bench, &[&["a[b"]]);
    assert_eq!(bench.try_export().unwrap_err().id(), "export.slice");
}

fn link(path: &str, layer: &str, target: &str) -> (BuildpackId, AppLink) {
    let link = AppLink { path: path.into(), layer: layer.parse().unwrap(), target: target.into() };
    (node().id, link)
}

#[test]
fn app_links_hide_what_the_source_has() {
    let mut bench = Bench::new();
    for path in ["node_modules/x/y", "node_modules-2/z", "sub/f"] {
        bench.write(&format!("app/{path}"), "");
    }
    bench.fresh("modules");
    bench.built.app_links =
        vec![link("node_modules", "modules", "node_modules"), link("sub/new/dir/link", "modules", "")];
    let image = bench.export().image;
    assert_eq!(
        Bench::listing(&image, 1),
        [
            "drwxr-xr-x 1000/1000 /workspace",
            "lrwxrwxrwx 1000/1000 /workspace/node_modules -> /layers/acme_node/modules/node_modules",
            "drwxr-xr-x 1000/1000 /workspace/node_modules-2",
            "-rw-r--r-- 1000/1000 /workspace/node_modules-2/z",
            "drwxr-xr-x 1000/1000 /workspace/sub",
            "-rw-r--r-- 1000/1000 /workspace/sub/f",
            "drwxr-xr-x 1000/1000 /workspace/sub/new",
            "drwxr-xr-x 1000/1000 /workspace/sub/new/dir",
            "lrwxrwxrwx 1000/1000 /workspace/sub/new/dir/link -> /layers/acme_node/modules",
        ]
    );
}

#[test]
fn app_links_that_cannot_be_are_refused() {
    for bad in [
        link("../x", "modules", ""),
        link("/x", "modules", ""),
        link("", "modules", ""),
        link("a/../b", "modules", ""),
        link("x", "modules", "../../etc"),
        link("x", "other", ""),
        link("file/x", "modules", ""),
    ] {
        let mut bench = Bench::new();
        bench.write("app/file", "");
        bench.fresh("modules");
        bench.built.app_links = vec![bad.clone()];
        assert_eq!(bench.try_export().unwrap_err().id(), "export.app_link", "{bad:?}");
    }
}

#[test]
fn r13_names_that_would_remove_files_are_all_listed() {
    let mut bench = Bench::new();
    for path in [".wh.passwd", "a/b/.wh..wh..opq", "a/.wh.dir/x", "a/b.wh.fine"] {
        bench.write(&format!("app/{path}"), "");
    }
    bench.write("modules/.wh.bin", "");
    bench.fresh("modules");
    let error = bench.try_export().unwrap_err();
    assert_eq!(error.id(), "export.reserved_name");
    let ExportError::ReservedNames { names } = error else { panic!("{error}") };
    assert_eq!(
        names,
        [
            "/workspace/.wh.passwd",
            "/workspace/a/.wh.dir",
            "/workspace/a/.wh.dir/x",
            "/workspace/a/b/.wh..wh..opq",
            "/layers/acme_node/modules/.wh.bin",
        ]
    );
    assert!(!bench.layout().exists());
}
