use super::*;
use crate::cancel::Cancel;
use crate::inspection::files::read_files;
use crate::inspection::testing::{Entry, image, opener, tar};

fn page(tars: &[Vec<u8>], change: impl FnOnce(&mut ImageView)) -> String {
    let image = image(tars);
    let mut view = ImageView::of(&image, None);
    change(&mut view);
    html(&view, &read_files(&image, &opener(tars), &Cancel::default()).unwrap())
}

/// R9: whatever a name says, there are two scripts and no tag of anybody else's.
#[test]
fn r9_hostile_names_stay_text() {
    let evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\u{202e}\u{1b}\u{2028}'\"&";
    let tar = tar(&[
        (evil.as_bytes(), Entry::File(&[1; 9000])),
        (b"<!--<script>", Entry::File(b"x")),
        (b"copy", Entry::File(&[1; 9000])),
    ]);
    let page = page(&[tar.clone(), tar], |view| {
        view.image_name = Some(evil.to_owned());
        view.env = vec![evil.to_owned()];
        view.digest = Some(evil.to_owned());
        view.layers[0].owner = LayerOwner::Buildpack { buildpack: evil.to_owned(), layer: evil.to_owned() };
        view.layers[1].created_by = Some(evil.to_owned());
        view.problems = vec![evil.to_owned()];
    });
    assert_eq!(page.matches("<script").count(), 2, "the data and the script");
    assert_eq!(page.matches("</script").count(), 2);
    assert_eq!(page.matches("<img").count() + page.matches("<!--").count(), 0);
    assert!(!page.contains(['\u{202e}', '\u{1b}', '\u{2028}']));
    assert!(page.contains("&lt;/script&gt;&lt;script&gt;alert(1)"));
}

/// The policy names exactly the bytes that are in the page.
#[test]
fn the_policy_allows_what_is_there_and_nothing_else() {
    let page = page(&[tar(&[(b"a", Entry::File(b"x"))])], |_| ());
    let between = |start: &str, end: &str| page.split(start).nth(1).unwrap().split(end).next().unwrap();
    let script = between("</script>\n<script>", "</script>");
    let style = between("<style>", "</style>");
    let openssl = |text: &str| {
        let command = "openssl dgst -sha256 -binary | base64 -w0";
        let mut child = std::process::Command::new("sh")
            .args(["-c", command])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
    };
    assert_eq!(
        between("Content-Security-Policy\" content=\"", "\""),
        format!(
            "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'",
            openssl(script),
            openssl(style)
        )
    );
    for outside in ["http://", "https://", " style=", " src=", "@import", "url("] {
        let page = page.replace("http://www.w3.org/2000/svg", "").replace("url(#hatch)", "");
        assert!(!page.contains(outside), "{outside}");
    }
}

/// Without the script, the largest files, what is wasted and what is there twice can be read.
#[test]
fn tables_are_there_without_the_script() {
    let lower = tar(&[(b"opt/large", Entry::File(&[1; 9000])), (b"opt/same", Entry::File(&[2; 5000]))]);
    let upper = tar(&[(b"opt/.wh.large", Entry::File(b"")), (b"twin", Entry::File(&[2; 5000]))]);
    let page = page(&[lower, upper], |_| ());
    let static_part = page.split("<script").next().unwrap();
    for text in ["/opt/large", "8.7 KiB", "Hidden by later layers: 8.7 KiB", "/twin", "Equal files"] {
        assert!(static_part.contains(text), "{text}");
    }
}

/// 50,000 files make a page of bounded size, and 200,000 no larger one.
#[test]
fn the_size_of_the_page_is_bounded() {
    let size = |count: usize| {
        let names: Vec<String> = (0..count)
            .map(|number| format!("usr/lib/node_modules/package-{}/lib/file-{number}.js", number / 40))
            .collect();
        let entries: Vec<(&[u8], Entry<'_>)> =
            names.iter().map(|name| (name.as_bytes(), Entry::File(b"1234"))).collect();
        page(&[tar(&entries)], |_| ()).len()
    };
    let (some, many) = (size(50_000), size(200_000));
    assert!(some < 3 << 20, "{some}");
    assert!(many < some + (1 << 20), "{many}");
}
