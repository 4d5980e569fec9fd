use super::*;
use crate::inspection::testing::{Entry, image, opener, tar};

fn report(tars: &[Vec<u8>]) -> FileReport {
    read_files(&image(tars), &opener(tars), &Cancel::default()).unwrap()
}

/// Path, layer, and the layer it went away in.
fn files(report: &FileReport) -> Vec<(&str, usize, Option<usize>)> {
    let file = |file: &FileRecord| {
        let path: &'static str = String::from_utf8(file.path.clone()).unwrap().leak();
        (path, file.layer, file.gone_in)
    };
    report.files.iter().map(file).collect()
}

/// R7
#[test]
fn r7_what_later_layers_replace_or_remove_is_waste() {
    let report = report(&[
        tar(&[
            (b"./etc", Entry::Directory),
            (b"./etc/a", Entry::File(b"12345")),
            (b"etc/b", Entry::File(b"123")),
            (b"/opt/deep/c", Entry::File(b"1234567")),
            (b"opt/deep.txt", Entry::File(b"1")),
            (b"var/d", Entry::File(b"12")),
            (b"usr/e", Entry::File(b"1234")),
            (b"etc/stay", Entry::File(b"1")),
        ]),
        tar(&[
            (b"etc/a", Entry::File(b"1")),
            (b"etc/.wh.b", Entry::File(b"")),
            (b"opt/.wh.deep", Entry::File(b"")),
            (b"var/new", Entry::File(b"9")),
            (b"var/.wh..wh..opq", Entry::File(b"")),
            (b"usr", Entry::Symlink("etc")),
        ]),
        tar(&[
            (b"etc/a", Entry::Directory),
            (b"etc/.wh..", Entry::File(b"")),
            (b"etc/.wh.", Entry::File(b"")),
        ]),
    ]);
    assert_eq!(
        files(&report),
        [
            ("etc/a", 0, Some(1)),
            ("etc/b", 0, Some(1)),
            ("opt/deep/c", 0, Some(1)),
            ("opt/deep.txt", 0, None),
            ("var/d", 0, Some(1)),
            ("usr/e", 0, Some(1)),
            // R7: what is left of `.wh.` and `.wh..` is no name.
            ("etc/stay", 0, None),
            ("etc/a", 1, Some(2)),
            // Written before the whiteout of its own layer.
            ("var/new", 1, None),
        ]
    );
    assert_eq!(report.layers[0].wasted_bytes, 5 + 3 + 7 + 2 + 4);
    assert_eq!((report.layers[0].bytes, report.layers[0].files, report.layers[0].directories), (23, 7, 1));
    assert_eq!((report.layers[1].whiteouts, report.layers[1].links), (3, 1));
    assert_eq!(report.wasted_bytes(), 21 + 1);
}

#[test]
fn equal_files_that_are_there_in_the_end_are_found() {
    let (large, other) = (vec![7; 5000], vec![8; 5000]);
    let report = report(&[
        tar(&[(b"a", Entry::File(&large)), (b"b", Entry::File(&large)), (b"c", Entry::File(&other))]),
        tar(&[(b"d", Entry::File(&large)), (b"b", Entry::File(b"")), (b"small", Entry::File(b"x"))]),
        tar(&[(b"small2", Entry::File(b"x"))]),
    ]);
    assert_eq!(report.duplicates, [Duplicates { bytes: 5000, files: vec![0, 3] }]);
    assert_eq!(report.duplicates[0].gain(), 5000);
}

#[test]
fn a_layer_that_cannot_be_read_is_said_and_the_others_are() {
    let mut cut = tar(&[(b"a", Entry::File(&[1; 2000])), (b"b", Entry::File(b"x"))]);
    cut.truncate(1000);
    let report = report(&[cut, tar(&[(b"dev/null", Entry::Device), (b"c", Entry::File(b"x"))])]);
    assert!(report.layers[0].problem.is_some());
    assert_eq!(report.layers[1].problem, None);
    // What was seen before the end is there.
    assert_eq!(files(&report), [("a", 0, None), ("c", 1, None)]);
}

/// R8
#[test]
fn r8_contents_that_are_not_the_layer_are_an_error() {
    let good = tar(&[(b"a", Entry::File(b"x"))]);
    let evil = tar(&[(b"b", Entry::File(b"y"))]);
    let open = move |_: &crate::oci::digest::DiffId| -> Result<Box<dyn std::io::Read>, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Box::new(std::io::Cursor::new(evil.clone())))
    };
    let error = read_files(&image(&[good]), &open, &Cancel::default()).unwrap_err();
    assert_eq!(crate::fault::Diagnose::id(&error), "image.diffid_mismatch");
}

#[test]
fn trees_show_the_largest_files_and_sum_up_the_rest() {
    let report = report(&[tar(&[
        (b"a/small1", Entry::File(b"1")),
        (b"a/large", Entry::File(b"12345")),
        (b"a/small2", Entry::File(b"12")),
        (b"top", Entry::File(b"1234567")),
        (b"b/c/small3", Entry::File(b"1")),
    ])]);
    let file = |name: &str, bytes| FileNode::File { name: name.to_owned(), bytes, is_wasted: false };
    assert_eq!(
        trees(&report, 2, 100),
        [vec![
            FileNode::Directory {
                name: "a".to_owned(),
                bytes: 8,
                children: vec![file("large", 5), FileNode::Rest { files: 2, bytes: 3, wasted_bytes: 0 }],
            },
            file("top", 7),
            // Nothing of `b` is shown.
            FileNode::Rest { files: 1, bytes: 1, wasted_bytes: 0 },
        ]]
    );
    // Only the path of the largest file has room.
    let rest = FileNode::Rest { files: 4, bytes: 9, wasted_bytes: 0 };
    assert_eq!(trees(&report, 10, 8), [vec![file("top", 7), rest]]);
}

/// R9: names are shown as text, and no path is too deep.
#[test]
fn r9_names_are_harmless_and_paths_bounded() {
    assert_eq!(shown_name("a\u{202e}b\n".as_bytes()), "a\\u{202e}b\\u{a}");
    assert_eq!(shown_name(b"x\xff</script>"), "x\\xff</script>");
    assert_eq!(shown_name("ä".repeat(1000).as_bytes()).chars().count(), 301);
    let record = FileRecord { path: vec![b'/'; 5000], bytes: 1, layer: 0, gone_in: None };
    let report = FileReport { layers: vec![LayerFiles::default()], files: vec![record], duplicates: vec![] };
    let mut nodes = trees(&report, 10, 10_000).remove(0);
    let mut depth = 0;
    while let Some(FileNode::Directory { children, .. }) = nodes.pop() {
        (nodes, depth) = (children, depth + 1);
    }
    assert!((10..100).contains(&depth), "{depth}");
}
