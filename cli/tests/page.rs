//! The page about an image, in a real browser.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::browser::Browser;
use crate::layouts::{Layer, layout};
use crate::site::Site;

const EVIL: &str = "<img src=x onerror=\"document.title='evil'\">\u{202e}gnp.exe";

/// An image of three layers: 600, 300 and 100 kB of files.
fn image(site: &Site) -> PathBuf {
    let base = Layer::new()
        .file("usr/bin/large", &vec![1; 400_000])
        .file("usr/lib/Medium", &vec![2; 150_000])
        .file("var/cache/old", &vec![3; 50_000]);
    let app = Layer::new()
        .file("workspace/app.js", &vec![4; 200_000])
        .file(&format!("workspace/{EVIL}"), &vec![5; 60_000])
        .file("workspace/</script><script>document.title='evil'<", &vec![6; 40_000]);
    let top = Layer::new().file("workspace/data", &vec![7; 100_000]).file("var/cache/.wh.old", b"");
    let run_image = json!({ "topLayer": base.diff_id(), "reference": "", "image": "base:1" });
    let metadata = json!({
        "runImage": run_image,
        "app": [{ "sha": app.diff_id() }, { "sha": top.diff_id() }],
    });
    let labels = json!({ "io.buildpacks.lifecycle.metadata": metadata.to_string() });
    let directory = site.path().join("image");
    layout(&directory, "demo:1", &labels, &[base, app, top]);
    directory
}

fn page(site: &Site) -> PathBuf {
    site.run(&["inspect", "oci:image:demo:1", "--html", "page.html"]).with(0).says(&["page.html"]);
    site.path().join("page.html")
}

fn address(page: &Path) -> String {
    format!("file://{}", page.display())
}

/// Nothing went wrong in the page, and it asked for nothing but itself.
fn assert_quiet(browser: &Browser, address: &str) {
    for event in &browser.events {
        let method = event["method"].as_str().unwrap_or_default();
        assert!(
            !matches!(method, "Runtime.exceptionThrown" | "Log.entryAdded" | "Runtime.consoleAPICalled"),
            "{event}"
        );
        if method == "Network.requestWillBeSent" {
            assert_eq!(event["params"]["request"]["url"], address, "{event}");
        }
    }
}

/// Name, bytes and area of each rectangle at the top.
fn rectangles(browser: &mut Browser) -> Vec<(String, f64, f64)> {
    let found = browser.value(
        "[...document.querySelectorAll('#treemap > .item')].map(item => {\
           const box = item.querySelector('rect').getBoundingClientRect();\
           return [item.getAttribute('aria-label'), Number(item.dataset.bytes), box.width * box.height]; })",
    );
    let part = |value: &Value| {
        (value[0].as_str().unwrap().to_owned(), value[1].as_f64().unwrap(), value[2].as_f64().unwrap())
    };
    found.as_array().unwrap().iter().map(part).collect()
}

fn text(browser: &mut Browser, element: &str) -> String {
    browser.value(&format!("{element}.textContent")).as_str().unwrap().to_owned()
}

#[test]
fn the_page_works_in_a_browser_without_a_network() {
    let site = Site::new();
    image(&site);
    let address = address(&page(&site));
    let Some(mut browser) = Browser::start(false) else { return };
    browser.open(&address);

    // Layers have areas in proportion to their bytes.
    let shown = rectangles(&mut browser);
    let names: Vec<&str> = shown.iter().map(|(name, ..)| name.split(", ").next().unwrap()).collect();
    assert_eq!(names, ["1. base", "2. app slice 1", "3. app"]);
    let bytes: Vec<f64> = shown.iter().map(|(_, bytes, _)| *bytes).collect();
    assert_eq!(bytes, [600_000.0, 300_000.0, 100_000.0]);
    let area: f64 = shown.iter().map(|(_, _, area)| area).sum();
    for (name, bytes, own) in &shown {
        let (expected, actual) = (bytes / 1_000_000.0, own / area);
        assert!((expected - actual).abs() < 0.01, "{name}: {expected} of the bytes, {actual} of the area");
    }
    // What a later layer removed is marked.
    assert_eq!(browser.value("document.querySelectorAll('#treemap .waste').length"), 1);

    // A click goes into a directory, Escape back out of it, Enter in again.
    browser.click("document.querySelector('#treemap > .item')");
    browser.wait_for("document.querySelectorAll('#treemap > .item').length === 2");
    assert_eq!(text(&mut browser, "document.querySelector('#crumbs button:disabled')"), "1. base");
    let shown = rectangles(&mut browser);
    assert!(shown[0].0.starts_with("usr, directory, 537.1 KiB, 91.7 %"), "{shown:?}");
    browser.press("Escape");
    browser.wait_for("document.querySelectorAll('#treemap > .item').length === 3");
    assert_eq!(
        browser.value("document.activeElement.getAttribute('aria-label').split(',')[0]"),
        "1. base",
        "the focus is on where one came from"
    );
    browser.press("ArrowRight");
    let focused = browser.value("document.activeElement.getAttribute('aria-label').split(',')[0]");
    assert_ne!(focused, "1. base");
    browser.press("Enter");
    browser.wait_for("document.querySelector('#crumbs button:disabled').textContent !== 'image'");
    assert_eq!(browser.value("document.querySelector('#crumbs button:disabled').textContent"), focused);
    browser.click("document.querySelector('#crumbs button')");
    browser.wait_for("document.querySelectorAll('#treemap > .item').length === 3");

    // Files are found by their paths.
    assert_eq!(browser.value("document.querySelectorAll('#files tbody tr').length"), 7);
    browser.value("document.querySelector('#search').focus()");
    browser.type_text("LARGE");
    browser.wait_for("document.querySelectorAll('#files tbody tr').length === 1");
    assert!(text(&mut browser, "document.querySelector('#files tbody')").contains("/usr/bin/large"));
    assert!(text(&mut browser, "document.querySelector('#count')").starts_with("1 files match, 390.6 KiB"));
    assert!(browser.value("document.querySelectorAll('#treemap .dim').length > 0") == true);
    browser.value("document.querySelector('#search').select()");
    browser.type_text("zzz");
    browser.wait_for("document.querySelectorAll('#files tbody tr').length === 0");
    browser.value("document.querySelector('#search').select()");
    browser.type_text("o");
    browser.click("document.querySelector('#legend button:last-child')");
    browser.call("Page.reload", &json!({}));
    browser.wait_for("document.querySelectorAll('#treemap > .item').length === 3");

    // As one file system, the layers are merged and what was removed is gone.
    browser.click("document.querySelector('[data-mode=files]')");
    browser.wait_for("document.querySelector('#crumbs button:disabled').textContent === '/'");
    let shown = rectangles(&mut browser);
    let bytes: Vec<(&str, f64)> =
        shown.iter().map(|(name, bytes, _)| (name.split(',').next().unwrap(), *bytes)).collect();
    assert_eq!(bytes, [("usr", 550_000.0), ("workspace", 400_000.0)]);
    assert_quiet(&browser, &address);
}

/// The list leads to the map; owners and widths choose what is shown; the mouse is told about.
#[test]
fn list_map_and_legend_belong_together() {
    let site = Site::new();
    image(&site);
    let address = address(&page(&site));
    let Some(mut browser) = Browser::start(false) else { return };
    browser.open(&address);
    let rows = "[...document.querySelectorAll('#files tbody tr')]";
    let here = "document.querySelector('#crumbs button:disabled').textContent";
    let pressed =
        |selector: &str| format!("document.querySelector('{selector}').getAttribute('aria-pressed')");

    // The largest first, and what is hidden says so.
    let shown = browser.value(&format!("{rows}.map(row => row.cells[0].textContent)"));
    let sizes = ["390.6 KiB", "195.3 KiB", "146.4 KiB", "97.6 KiB", "58.5 KiB", "48.8 KiB", "39.0 KiB"];
    assert_eq!(shown, json!(sizes));
    let gone = text(&mut browser, "document.querySelector('#files tbody tr.gone')");
    assert!(gone.contains("/var/cache/old") && gone.ends_with("hidden by a later layer"), "{gone}");

    // An owner's files alone, and all of them again.
    let first = "document.querySelector('#legend button')";
    browser.click(first);
    assert_eq!(browser.value(&format!("{rows}.length")), 3);
    assert_eq!(browser.value(&pressed("#legend button")), "true");
    assert!(text(&mut browser, "document.querySelector('#count')").starts_with("3 files match, 585.9 KiB"));
    assert!(browser.value("document.querySelectorAll('#treemap .dim').length > 0") == true);
    browser.click(first);
    assert_eq!(browser.value(&format!("{rows}.length")), 7);
    assert_eq!(browser.value(&pressed("#legend button")), "false");

    // From the list to the place, also out of the other view; letters have no size in a search.
    browser.click("document.querySelector('[data-mode=files]')");
    assert_eq!(browser.value(&pressed("[data-mode=files]")), "true");
    browser.value("document.querySelector('#search').focus()");
    browser.type_text("lib/mEDIUM");
    browser.wait_for(&format!("{rows}.length === 1"));
    browser.click("document.querySelector('#files tbody button')");
    browser.wait_for(&format!("{here} === 'lib'"));
    assert_eq!(browser.value(&pressed("[data-mode=layers]")), "true");
    let focused = browser.value("document.activeElement.getAttribute('aria-label')");
    assert_eq!(focused, "Medium, file, 146.4 KiB, 100.0 % of what is shown, base");

    // A click on a file tells of it, and so does the mouse above it while it is there.
    browser.click("document.querySelector('#treemap > .item')");
    let status = text(&mut browser, "document.querySelector('#status')");
    assert!(status.starts_with("/usr/lib/Medium: Medium, file, 146.4 KiB"), "{status}");
    browser.move_to("document.querySelector('#treemap > .item')");
    browser.wait_for("!document.querySelector('#tip').hidden");
    assert_eq!(text(&mut browser, "document.querySelector('#tip')"), focused.as_str().unwrap());
    browser.move_to("document.querySelector('#search')");
    browser.wait_for("document.querySelector('#tip').hidden");

    // As wide as the window.
    let size = json!({ "width": 640, "height": 900, "deviceScaleFactor": 1, "mobile": false });
    browser.call("Emulation.setDeviceMetricsOverride", &size);
    browser.wait_for(
        "(() => { const map = document.querySelector('#treemap'); \
         return map.getBoundingClientRect().width < 640 && \
         map.getAttribute('viewBox').split(' ')[2] === String(map.getBoundingClientRect().width); })()",
    );
    assert_quiet(&browser, &address);
}

/// R9: hostile names are text, wherever they are shown.
#[test]
fn r9_hostile_names_are_shown_as_text() {
    let site = Site::new();
    image(&site);
    let address = address(&page(&site));
    let Some(mut browser) = Browser::start(true) else { return };
    browser.open(&address);
    assert_eq!(browser.value("document.title"), "demo:1 · image report");
    assert_eq!(browser.value("document.querySelectorAll('img').length"), 0);
    assert_eq!(browser.value("document.querySelectorAll('script').length"), 2);
    let table = text(&mut browser, "document.querySelector('#files tbody')");
    assert!(table.contains("<img src=x onerror=\"document.title='evil'\">\\u{202e}gnp.exe"), "{table}");
    assert!(table.contains("</script><script>document.title='evil'<"), "{table}");
    // The policy holds: what somebody would bring in does not run.
    browser
        .value("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title=1\">')");
    browser.value(
        "(() => { const s = document.createElement('script'); s.textContent = 'document.title=2'; document.body.append(s); })()",
    );
    assert_eq!(browser.value("document.title"), "demo:1 · image report");
    // It is dark for whoever wants that.
    assert_eq!(browser.value("getComputedStyle(document.body).backgroundColor"), "rgb(15, 20, 27)");
}

/// 50,000 files stay usable.
#[test]
fn many_files_stay_usable() {
    let site = Site::new();
    let mut layer = Layer::new();
    for number in 0..50_000 {
        let size = 100 + number % 977;
        layer = layer.file(&format!("srv/node_modules/p{}/lib/f{number}.js", number / 40), &vec![b'x'; size]);
    }
    layout(&site.path().join("image"), "demo:1", &json!({}), &[layer]);
    let page = page(&site);
    assert!(page.metadata().unwrap().len() < 4 << 20);
    let Some(mut browser) = Browser::start(false) else { return };
    browser.open(&address(&page));
    browser.wait_for("document.querySelectorAll('#treemap > .item').length === 1");
    // Far below what a person notices, measured in the page itself.
    let spent = browser.value(
        "(() => { const start = performance.now(); window.dispatchEvent(new Event('resize')); \
         document.querySelector('[data-mode=files]').click(); return performance.now() - start; })()",
    );
    assert!(spent.as_f64().unwrap() < 5000.0, "{spent} ms");
    assert!(browser.value("document.querySelectorAll('#treemap rect').length").as_f64().unwrap() < 20_000.0);
    std::io::stdout().flush().unwrap();
}
