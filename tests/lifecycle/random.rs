//! Builds made up from a seed: an order, its buildpacks, and what they leave behind.
//!
//! The same seed gives the same build on every machine. What is made up are things on
//! which the reference lifecycle and ours agree; where they differ on purpose is in
//! `docs/lifecycle.md`.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::fixture::{Lifecycle, Platform, give_if_root};

/// Numbers that look random; the generator is the well-known `SplitMix64`.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).expect("below a limit that is one")
    }

    pub(super) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(super) fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }

    /// Some of them, each at most once, in their order.
    fn some<'a>(&mut self, percent: usize, of: &[&'a str]) -> Vec<&'a str> {
        of.iter().copied().filter(|_| self.chance(percent)).collect()
    }
}

/// Names in plans.
const NAMES: [&str; 3] = ["node", "two words", "ü"];
/// Names of layers; those with dots would lose bills of materials with the reference.
const LAYERS: [&str; 5] = ["l1", "a b", "ü", "Lx", "cached"];
const TYPES: [&str; 3] = ["web", "worker", "task.x"];

/// A platform with all that `seed` makes up. The second build finds what `number` says.
pub(super) fn platform(lifecycle: Lifecycle, seed: u64) -> Platform {
    let mut random = Random::new(seed);
    let random = &mut random;
    let api = random.pick(&["0.12", "0.13", "0.14", "0.15", "0.15"]);
    let mut platform = Platform::new(lifecycle, api);
    if random.chance(30) {
        platform.set("CNB_EXEC_ENV", random.pick(&["production", "test"]));
    }
    if random.chance(20) {
        platform.set("SOURCE_DATE_EPOCH", random.pick(&["0", "1700000000", "soon"]));
    }
    for name in random.some(30, &["CPATH", "http_proxy", "USER", "LD_LIBRARY_PATH"]) {
        platform.set(name, random.pick(&["/host", ""]));
    }
    for directory in ["platform/env", "build-config/env"] {
        let names = ["PATH", "FOO", "BAR", "CPATH", "FOO.append", "FOO.delim", "BAR.default", "BAZ.override"];
        for name in random.some(20, &names) {
            platform.file(&format!("{directory}/{name}"), value(random), 0o644);
        }
    }
    for name in ["a", "b.txt", "src/m.c", "sub/d/e", "sub-x", "ü/é"] {
        if random.chance(50) {
            platform.file(&format!("app/{name}"), name, 0o644);
        }
    }
    let ids: Vec<String> = (0..=random.below(4)).map(|n| format!("acme/b{n}")).collect();
    for id in &ids {
        buildpack(&platform, random, id);
    }
    order(&platform, random, &ids);
    platform.file("number", "1", 0o644);
    std::fs::create_dir(platform.path("dump")).expect("a test's own files");
    give_if_root(&platform.path("dump"));
    platform
}

/// Groups, some with a composite in them, and system buildpacks around.
fn order(platform: &Platform, random: &mut Random, ids: &[String]) {
    let member = |random: &mut Random, table: &str, ids: &[String], text: &mut String| {
        let (id, optional) = (&ids[random.below(ids.len())], random.chance(35));
        let _ = write!(text, "[[{table}]]\nid = \"{id}\"\nversion = \"1\"\noptional = {optional}\n");
    };
    // Composites multiply, and there is a limit to groups here.
    let groups = |random: &mut Random, ids: &[String], most: usize| {
        let mut text = String::new();
        for _ in 0..=random.below(most) {
            text += "[[order]]\n";
            for _ in 0..=random.below(most) {
                member(random, "order.group", ids, &mut text);
            }
        }
        text
    };
    let mut all = ids.to_vec();
    for number in 0..random.below(3) {
        let id = format!("acme/meta{number}");
        let order = groups(random, &all, 2);
        let text = format!("api = \"0.10\"\n[buildpack]\nid = \"{id}\"\nversion = \"1\"\n{order}");
        platform.file(&format!("buildpacks/{}/1/buildpack.toml", id.replace('/', "_")), &text, 0o644);
        all.extend([id.clone(), id]);
    }
    platform.file("order.toml", &groups(random, &all, 3), 0o644);
    if random.chance(20) {
        let side = random.pick(&["pre", "post"]);
        let id = &ids[random.below(ids.len())];
        let text = format!("[[system.{side}.buildpacks]]\nid = \"{id}\"\nversion = \"1\"\n");
        platform.file("system.toml", &text, 0o644);
    }
}

/// What a variable's file may hold.
fn value(random: &mut Random) -> &'static str {
    random.pick(&["a", "b b", ":", ",", "", "line\n", "/p", "$FOO", "q\"q"])
}

/// Lines of metadata; nothing that the reference turns into something else on the way back.
fn metadata(random: &mut Random) -> String {
    let values =
        ["\"v\"", "\"a\\\"b<&>\\n\"", "true", "[\"a\", \"b\"]", "[]", "{ deep = { x = \"y\" }, e = {} }"];
    let mut text = String::new();
    for key in random.some(30, &["version", "\"b b\"", "launch", "ü"]) {
        let _ = writeln!(text, "{key} = {}", random.pick(&values));
    }
    text
}

fn buildpack(platform: &Platform, random: &mut Random, id: &str) {
    let directory = format!("buildpacks/{}/1", id.replace('/', "_"));
    let api = random.pick(&["0.7", "0.8", "0.9", "0.10", "0.10", "0.11", "0.12"]);
    let mut text = format!("api = \"{api}\"\n[buildpack]\nid = \"{id}\"\nversion = \"1\"\n");
    for line in ["homepage = \"https://example.com\"", "clear-env = true", "exec-env = [\"test\"]"] {
        if random.chance(20) {
            let _ = writeln!(text, "{line}");
        }
    }
    text += "sbom-formats = [\"application/vnd.cyclonedx+json\"]\n[[stacks]]\nid = \"*\"\n";
    platform.file(&format!("{directory}/buildpack.toml"), &text, 0o644);

    let mut plan = offer(random, "");
    for _ in 0..random.below(3) {
        let _ = write!(plan, "[[or]]\n{}", offer(random, "or."));
    }
    let code = if random.chance(80) { "0" } else { random.pick(&["100", "100", "1", "77"]) };
    let detect = format!("#!/bin/sh\ncat > \"$2\" <<'TOML'\n{plan}TOML\nexit {code}\n");
    platform.file(&format!("{directory}/bin/detect"), &detect, 0o755);

    for number in 1..=2 {
        if number == 1 || random.chance(60) {
            results(platform, random, &format!("{directory}/results/{number}"), api);
        }
    }
    let (root, name) = (platform.root.path().display(), id.replace('/', "_"));
    let code = if random.chance(97) { "0" } else { "7" };
    let build = format!(
        r#"#!/bin/sh
number=$(cat {root}/number)
dump={root}/dump/$number-{name}
env | grep -v '^_=\|^PWD=\|^OLDPWD=\|^SHLVL=\|^HOME=\|^CNB_BP_PLAN_PATH=' | LC_ALL=C sort > "$dump.env"
cat "$3" > "$dump.plan"
(cd "$1" && find . ! -name '*sbom*' | LC_ALL=C sort && cat ./*.toml 2>/dev/null) > "$dump.found"
results={root}/{directory}/results/$number
if [ -d "$results" ]; then cp -R "$results/." "$1/"; fi
echo "$number {name}" >> changed
exit {code}
"#
    );
    platform.file(&format!("{directory}/bin/build"), &build, 0o755);
}

/// One alternative of a plan.
fn offer(random: &mut Random, table: &str) -> String {
    let mut text = String::new();
    for name in random.some(30, &NAMES) {
        let _ = write!(text, "[[{table}provides]]\nname = \"{name}\"\n");
    }
    for _ in 0..random.below(3) {
        let _ = write!(text, "[[{table}requires]]\nname = \"{}\"\n", random.pick(&NAMES));
        if random.chance(40) {
            let _ = write!(text, "[{table}requires.metadata]\n{}", metadata(random));
        }
    }
    text
}

/// What a build leaves in its directory of layers.
fn results(platform: &Platform, random: &mut Random, directory: &str, api: &str) {
    let put = |name: &str, text: &str| platform.file(&format!("{directory}/{name}"), text, 0o644);
    let lists = ["0.9", "0.10", "0.11", "0.12"].contains(&api);
    put("made", "");
    for layer in random.some(40, &LAYERS) {
        let mut text = "[types]\n".to_owned();
        for kind in random.some(50, &["build", "launch", "cache"]) {
            let _ = writeln!(text, "{kind} = true");
        }
        if random.chance(60) {
            let _ = write!(text, "[metadata]\n{}", metadata(random));
        }
        put(&format!("{layer}.toml"), &text);
        // The reference restores one even where it does not restore the layer (CON-19).
        if ["l1", "cached"].contains(&layer) {
            put(&format!("{layer}.sbom.cdx.json"), "{\"of\": \"a layer\"}");
        }
        if random.chance(5) {
            continue;
        }
        for name in ["file", "bin/tool", "lib/x", "include/h", "pkgconfig/p", "deep/er/é", "exec.d/x"] {
            if random.chance(30) {
                platform.file(&format!("{directory}/{layer}/{name}"), name, 0o755);
            }
        }
        put(&format!("{layer}/here"), "");
        for place in ["env", "env.build", "env.launch", "env.launch/web"] {
            variables(random, |name, text| put(&format!("{layer}/{place}/{name}"), text));
        }
    }
    if random.chance(70) {
        put("launch.toml", &launch(random, lists));
    }
    if random.chance(25) {
        put("build.toml", "[[bom]]\nname = \"b\"\n[bom.metadata]\n");
    }
    if random.chance(40) {
        put("store.toml", &format!("[metadata]\n{}", metadata(random)));
    }
    for name in random.some(30, &["launch.sbom.cdx.json", "build.sbom.cdx.json"]) {
        put(name, "{}");
    }
}

fn variables(random: &mut Random, put: impl Fn(&str, &str)) {
    if random.chance(60) {
        return;
    }
    let mut names = BTreeSet::new();
    for _ in 0..=random.below(4) {
        let name = random.pick(&["FOO", "BAR", "PATH", "CPATH", "X"]);
        let suffixes = ["", ".append", ".prepend", ".default", ".override", ".delim", ".bogus", ".append.x"];
        names.insert(format!("{name}{}", random.pick(&suffixes)));
    }
    for name in &names {
        put(name, value(random));
    }
}

fn launch(random: &mut Random, lists: bool) -> String {
    let mut text = String::new();
    let mut has_default = false;
    for kind in random.some(50, &TYPES) {
        let command =
            if lists { random.pick(&["[\"srv\"]", "[\"srv\", \"a b\", \"$X<\"]"]) } else { "'srv \"$X\"'" };
        let _ = write!(text, "[[processes]]\ntype = \"{kind}\"\ncommand = {command}\n");
        for line in [
            random.pick(&["", "args = []\n", "args = [\"x\", \"\"]\n"]),
            random.pick(&["", "working-dir = \"sub\"\n"]),
        ] {
            text += line;
        }
        if !has_default && random.chance(30) {
            has_default = true;
            text += "default = true\n";
        }
        if !lists {
            let _ = writeln!(text, "direct = {}", random.chance(50));
        }
    }
    for _ in 0..random.below(3) {
        let (key, value) = (random.pick(&["one", "io.two"]), random.pick(&["v", "<&>", "ü\\\"", ""]));
        let _ = write!(text, "[[labels]]\nkey = \"{key}\"\nvalue = \"{value}\"\n");
    }
    for _ in 0..random.below(3) {
        let (first, second) = ("*.txt", random.pick(&["src/*", "sub", "a", "*/d", "no*", "[ab]*", "su?-x"]));
        let _ = write!(text, "[[slices]]\npaths = [\"{first}\", \"{second}\"]\n");
    }
    if random.chance(20) {
        text += "[[bom]]\nname = \"l\"\n";
    }
    text
}
