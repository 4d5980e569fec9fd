//! The cache while it is used hard: it stays small, and takes nothing from anybody.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::site::{Ended, Site};

/// What the policy allows: a little more than one build uses, with the 9 MiB of the builder.
const CAP: u64 = 16 << 20;
/// What one build adds before it looks whether that is too much: an app, and a layer as a tree and compressed.
const OF_ONE_BUILD: u64 = 2 << 20;
const APP_BYTES: usize = 200_000;

/// Apps that are built again and again, into one small cache.
struct Shop {
    site: Site,
    buildpack: String,
}

impl Shop {
    fn new(max_bytes: u64) -> Option<Self> {
        let site = Site::new();
        let buildpack = site.guest("big-layer")?.display().to_string();
        site.file(".config/wapack/policy.toml", &format!("[store]\nmax_bytes = {max_bytes}\n"));
        Some(Self { site, buildpack })
    }

    /// The command that builds `image` of the source `app`, with a layer of its buildpack, into a layout of
    /// the image's name.
    fn command(&self, image: &str, app: u64, layer: u64) -> Command {
        let source = self.site.file(&format!("apps/{image}/page.bin"), "");
        std::fs::write(source, app_bytes(app)).unwrap();
        let (path, output) = (format!("apps/{image}"), format!("oci:images/{image}"));
        let (key, bytes) = (format!("KEY={layer}"), format!("BYTES={}", 40_000 + layer));
        self.site.command(&[
            "build",
            "--path",
            &path,
            "--buildpack",
            &self.buildpack,
            "--output",
            &output,
            "--env",
            &key,
            "--env",
            &bytes,
            image,
        ])
    }

    /// Builds, and looks at every byte of the image, which nothing but this build has written.
    fn build(&self, image: &str, app: u64, layer: u64) -> Ended {
        let _ = std::fs::remove_dir_all(self.site.path().join("images").join(image));
        let ended = Ended::from(self.command(image, app, layer).output().unwrap()).with(0);
        assert!(!ended.err.contains("warning"), "{image} {app} {layer}\n{}", ended.err);
        self.assert_whole(image, app);
        ended
    }

    fn assert_whole(&self, image: &str, app: u64) {
        let layout = format!("images/{image}");
        let manifest = self.site.manifest(&layout);
        let mut blobs = vec![&manifest["config"]];
        blobs.extend(manifest["layers"].as_array().unwrap());
        let blobs: Vec<&str> =
            blobs.iter().map(|blob| blob["digest"].as_str().unwrap().trim_start_matches("sha256:")).collect();
        let mut sums = Command::new("sha256sum");
        sums.args(&blobs).current_dir(self.site.path().join(&layout).join("blobs/sha256"));
        let sums = Ended::from(sums.output().unwrap()).with(0).out;
        let expected: Vec<String> = blobs.iter().map(|blob| format!("{blob}  {blob}")).collect();
        assert_eq!(sums.lines().collect::<Vec<_>>(), expected);
        assert_eq!(self.site.file_in_layers(&layout, "page.bin"), app_bytes(app), "{image}");
        assert_eq!(self.site.file_in_layers(&layout, "file-00009").len() % 8, 0);
    }

    fn cache(&self) -> PathBuf {
        self.site.path().join(".cache/wapack")
    }

    fn usage(&self) -> Value {
        let ended = self.site.run(&["cache", "du", "--json"]).with(0);
        assert_eq!(ended.err, "");
        serde_json::from_str(&ended.out).unwrap()
    }

    /// What `wapack cache du` says is what there is: all but the directories, and what is in the root.
    fn assert_du_agrees(&self) {
        let said = self.usage()["bytes"].as_u64().unwrap();
        let found = files_bytes(&self.cache());
        assert!(said.abs_diff(found) <= found / 20 + (64 << 10), "it says {said}, there are {found}");
    }
}

/// A file that hardly compresses, of its own for each number.
fn app_bytes(number: u64) -> Vec<u8> {
    let mut state = number + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33).to_le_bytes()[0]
    };
    (0..APP_BYTES).map(|_| next()).collect()
}

/// What a directory takes on the disk, by a program that knows nothing of the cache.
fn disk_bytes(directory: &Path) -> u64 {
    let ended: Ended =
        Command::new("du").args(["-s", "--block-size=1"]).arg(directory).output().unwrap().into();
    ended.with(0).out.split_whitespace().next().unwrap().parse().unwrap()
}

/// What files take, in blocks as the cache counts them.
fn files_bytes(directory: &Path) -> u64 {
    let ended: Ended =
        Command::new("find").arg(directory).args(["-type", "f", "-printf", "%s\\n"]).output().unwrap().into();
    let sizes = ended.with(0).out;
    sizes.lines().map(|size| size.parse::<u64>().unwrap().div_ceil(4096) * 4096).sum()
}

/// "200 builds keep the disk flat": what is there after each, by `du`; and each image is whole when
/// it is told.
#[test]
fn two_hundred_builds_keep_the_disk_flat() {
    let Some(shop) = Shop::new(CAP) else { return };
    let mut most = [0, 0];
    for number in 0..200 {
        // The layer changes now and then, the app every time.
        let ended = shop.build("shop", number, number / 10);
        let state = if number % 10 == 0 { "Filled" } else { "Restored" };
        assert!(ended.out.contains(&format!("big: {state}")), "after {number} builds\n{}", ended.out);
        let half = &mut most[usize::from(number >= 100)];
        *half = disk_bytes(&shop.cache()).max(*half);
        assert!(*half <= CAP + OF_ONE_BUILD, "{half} bytes after {number} builds");
    }
    // Flat: no more at the end than in the middle; and no more has gone than had to.
    assert!(most[1] <= most[0] + OF_ONE_BUILD && most[1] >= CAP / 10 * 9, "{most:?}");
    shop.assert_du_agrees();
}

/// Says that all threads should stop; one that fails must not leave the others waiting for it.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Three that build, one that collects, for as long as `is_over` lets them. Gives how many images
/// were built, and how often something was collected.
fn build_and_collect(shop: &Shop, is_over: impl Fn(u64) -> bool + Sync) -> (u64, u64) {
    shop.build("shop-0", 0, 0);
    let (stop, built) = (AtomicBool::new(false), AtomicU64::new(0));
    let collected = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for builder in 0..3_u64 {
            let (stop, built, is_over) = (&stop, &built, &is_over);
            scope.spawn(move || {
                let guard = Stop(stop);
                for number in 0_u64.. {
                    if stop.load(Ordering::SeqCst) || is_over(built.load(Ordering::SeqCst)) {
                        break;
                    }
                    // Two of them have the same layers, and now and then the same app.
                    shop.build(&format!("shop-{builder}"), number % 5 + builder % 2 * 3, number / 3 % 4);
                    built.fetch_add(1, Ordering::SeqCst);
                }
                drop(guard);
            });
        }
        scope.spawn(|| {
            let guard = Stop(&stop);
            for round in 0_u64.. {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                // Everything now and then, components and builder with it, else all but those.
                let arguments: &[&str] = match round % 7 {
                    6 => &["cache", "clear", "--json"],
                    5 => &["cache", "gc", "--keep-bytes", "0", "--json"],
                    3 => &["cache", "clear", "--image", "shop-1", "--json"],
                    _ => &["cache", "gc", "--keep-bytes", "12MiB", "--json"],
                };
                let ended = shop.site.run(arguments);
                // Nobody has built that one, or it was cleared before.
                if ended.code == Some(3) && arguments.contains(&"--image") {
                    continue;
                }
                let ended = ended.with(0);
                assert_eq!(ended.err, "");
                let said: Value = serde_json::from_str(&ended.out).unwrap();
                collected.fetch_add(said["pieces"].as_u64().unwrap(), Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(round % 5 * 40));
            }
            drop(guard);
        });
    });
    for builder in 0..3 {
        let name = format!("oci:images/shop-{builder}:shop-{builder}:latest");
        shop.site.tool("skopeo", &["inspect", "--no-tags", &name]);
        let (image, bundle) =
            (format!("images/shop-{builder}:shop-{builder}:latest"), format!("bundle-{builder}"));
        shop.site.tool("umoci", &["unpack", "--rootless", "--image", &image, &bundle]);
    }
    // Nobody is left to keep anything.
    let ended = shop.site.run(&["cache", "clear", "--json"]).with(0);
    let said: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!((&said["left_bytes"], &said["in_use"]), (&0.into(), &0.into()));
    (built.into_inner(), collected.into_inner())
}

/// K6, as long as there is time for here.
#[test]
fn k6_collecting_takes_nothing_from_builds() {
    let Some(shop) = Shop::new(CAP) else { return };
    let (built, collected) = build_and_collect(&shop, |built| built >= 12);
    assert!(built >= 12 && collected >= 12, "{built} builds, {collected} things collected");
}

/// K6 at its full length.
#[test]
#[ignore = "five minutes: cargo test -p wapack --test main -- --ignored --nocapture k6_five_minutes"]
fn k6_five_minutes_of_collecting_beside_builds() {
    let Some(shop) = Shop::new(CAP) else { return };
    let started = Instant::now();
    let is_over = |built| built >= 50 && started.elapsed() >= Duration::from_mins(5);
    let (built, collected) = build_and_collect(&shop, is_over);
    println!("{built} builds beside {collected} things collected in {:?}", started.elapsed());
    assert!(built >= 50 && collected >= 50);
}

/// K1: whoever collects or builds may be killed at any moment; the next build works, and `du` says what
/// there is.
#[test]
fn k1_after_kills_at_any_moment_a_build_works_and_du_is_right() {
    let Some(shop) = Shop::new(CAP) else { return };
    let command = |is_build: bool, round: u64| {
        if is_build {
            shop.command("killed", round, round)
        } else {
            shop.site.command(&["cache", "gc", "--keep-bytes", "10MiB"])
        }
    };
    // How long they take when nobody kills them says when to do it.
    let takes = [false, true].map(|is_build| {
        shop.build("shop-0", 100, 100);
        let started = Instant::now();
        command(is_build, 100).stdout(Stdio::null()).status().unwrap();
        started.elapsed()
    });
    let mut seed = 1;
    let mut killed = [0, 0];
    for round in 0..16 {
        shop.build(&format!("shop-{}", round % 3), round, round / 2);
        let is_build = round % 2 == 0;
        let started = Instant::now();
        let mut child = command(is_build, round).spawn().unwrap();
        seed = app_bytes(seed)[0].into();
        std::thread::sleep(
            takes[usize::from(is_build)].mul_f64(f64::from(u8::try_from(seed).unwrap()) / 256.0),
        );
        child.kill().unwrap();
        killed[usize::from(is_build)] += u32::from(!child.wait().unwrap().success());
        assert!(started.elapsed() < Duration::from_secs(20));
        shop.build(&format!("shop-{}", (round + 1) % 3), round, round / 2);
        shop.assert_du_agrees();
        assert_eq!(shop.site.work_directories(), 0, "litter of the killed");
    }
    assert!(killed.iter().all(|killed| *killed >= 2), "{killed:?} were killed before they were done");
    let ended = shop.site.run(&["cache", "clear", "--json"]).with(0);
    assert_eq!(serde_json::from_str::<Value>(&ended.out).unwrap()["left_bytes"], 0);
    assert!(files_bytes(&shop.cache()) <= 4 * 4096, "only what a cache always has is left");
}

/// K7: what a build had is anybody's once it is dead, however it died.
#[test]
fn k7_a_dead_build_holds_nothing() {
    let Some(shop) = Shop::new(CAP) else { return };
    shop.build("shop", 1, 1);
    let sleeper = shop.site.guest("nap-forever").unwrap().display().to_string();
    let mut child = shop
        .site
        .command(&["build", "--path", "apps/shop", "-b", &sleeper, "--output", "oci:images/shop", "shop"])
        .spawn()
        .unwrap();
    let cleared = || -> Value {
        serde_json::from_str(&shop.site.run(&["cache", "clear", "--json"]).with(0).out).unwrap()
    };
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(said.any(|line| line.unwrap().starts_with("===> BUILDING")), "it ended before it built");
    let trees = || shop.site.find_files("cache", "sealed").len();
    assert!(cleared()["in_use"].as_u64() > Some(0));
    assert_eq!(trees(), 1, "the tree of the image that is built has gone");
    child.kill().unwrap();
    child.wait().unwrap();
    // Its worker notices a little later.
    let end = Instant::now() + Duration::from_mins(1);
    while cleared()["in_use"] != 0 {
        assert!(Instant::now() < end, "somebody who is dead uses something");
    }
    assert_eq!((cleared()["left_bytes"].as_u64(), trees()), (Some(0), 0));
}

/// Runs a script of the shell that may mount what it likes, after the one that mounts; `None`, and why, where
/// nothing can be mounted. What `wapack` is, it finds in a variable.
fn with_mounts(site: &Site, mount: &str, script: &str) -> Option<Ended> {
    let mut command = Command::new("unshare");
    let script = format!("({mount}) || exit 77\n{script}");
    command.args(["--mount", "sh", "-c", &script]).current_dir(site.path()).env_clear();
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", site.path());
    let ended = Ended::from(command.env("WAPACK", env!("CARGO_BIN_EXE_wapack")).output().unwrap());
    // Without the right to a namespace, `unshare` itself gives 1 and says so.
    if ended.code == Some(77) || ended.err.starts_with("unshare:") {
        println!("SKIPPED: nothing can be mounted: {}", ended.err);
        return None;
    }
    Some(ended)
}

/// K3: a cache on a full disk can be made smaller, and then a build works.
#[test]
fn k3_collecting_on_a_full_disk_makes_room() {
    let Some(shop) = Shop::new(CAP) else { return };
    shop.site.file("apps/shop/page.bin", "x");
    let build = format!(
        "$WAPACK build --path apps/shop -b '{}' --output oci:images/shop --env BYTES=150000",
        shop.buildpack
    );
    let script = format!(
        "{build} --env KEY=1 shop || exit 2
        head -c 8M /dev/zero > .cache/wapack/downloads/of-long-ago
        head -c 100M /dev/zero > .cache/fill
        {build} --env KEY=2 shop && exit 3
        $WAPACK cache gc --keep-bytes 0 || exit 4
        $WAPACK cache du || exit 5
        {build} --env KEY=2 shop || exit 6"
    );
    let mount = "mkdir -p .cache && mount -t tmpfs -o size=34m,mode=700 none .cache";
    let Some(ended) = with_mounts(&shop.site, mount, &script) else { return };
    let ended = ended.with(0).complains(&["error[host.disk_full]"]).says(&["freed, 0 B left"]);
    assert_eq!(ended.err.matches("error[").count(), 1, "{}", ended.err);
}

/// K7: a cache that can only be read is looked at, and loses nothing.
#[test]
fn k7_a_read_only_cache_is_shown_and_left_alone() {
    let Some(shop) = Shop::new(CAP) else { return };
    shop.build("shop", 1, 1);
    let (before, bytes) = (shop.usage(), files_bytes(&shop.cache()));
    let mount = "mount --bind .cache .cache && mount -o remount,bind,ro .cache";
    let script = "$WAPACK cache du --json || exit 2
        for command in gc 'gc --keep-bytes 0' clear 'clear --image shop'; do
            $WAPACK cache $command
            test $? = 1 || exit 3
        done";
    let Some(ended) = with_mounts(&shop.site, mount, script) else { return };
    let ended = ended.with(0);
    assert_eq!(serde_json::from_str::<Value>(&ended.out).unwrap(), before);
    assert_eq!(ended.err.matches("error[store.read_only]").count(), 4, "{}", ended.err);
    assert_eq!(files_bytes(&shop.cache()), bytes);
}

/// A cap that not even one image fits under: builds work, and nothing is left of them but what the
/// last one used.
#[test]
fn a_cap_smaller_than_one_image_costs_time_only() {
    let Some(shop) = Shop::new(1000) else { return };
    let mut most = 0;
    for number in 0..4 {
        // What one build uses it has, and the next one of the image finds it.
        for state in ["Filled", "Restored"] {
            let ended = shop.build("shop", number, 1);
            assert!(ended.out.contains(&format!("big: {state}")), "{number}: {}", ended.out);
        }
        shop.build("other", number, 2);
        most = disk_bytes(&shop.cache()).max(most);
        shop.assert_du_agrees();
    }
    assert!(most < CAP + OF_ONE_BUILD, "{most}");
}
