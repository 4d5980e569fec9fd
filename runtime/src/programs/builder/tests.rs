//! Whole runs over buildpacks that are shell scripts. Expected trees are what the
//! reference left for the same buildpacks.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;
use crate::cancel::Cancel;
use crate::cnb::api::ApiVersion;
use crate::event::EventSink;
use crate::executor::worker::NoCode;
use crate::executor::worker::WorkerCommand;
use crate::policy::Policy;
use crate::programs::{BUILDPACK_API, GENERIC};
use crate::sources::Sources;

/// A platform's directories.
struct Site {
    temp: tempfile::TempDir,
    group: String,
    plan: String,
    platform_api: u64,
    events: Vec<Event>,
}

impl Site {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        for name in ["app", "layers", "platform/env", "build-config/env"] {
            fs::create_dir_all(temp.path().join(name)).unwrap();
        }
        Self { temp, group: String::new(), plan: String::new(), platform_api: 15, events: Vec::new() }
    }

    /// One buildpack of API 0.`minor`.
    fn one(minor: u64, script: &str) -> Self {
        let mut site = Self::new();
        site.buildpack("acme/a", minor, "", script);
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn buildpack(&mut self, id: &str, minor: u64, more: &str, script: &str) {
        let directory = self.path("buildpacks").join(id.replace('/', "_")).join("1.0.0");
        fs::create_dir_all(directory.join("bin")).unwrap();
        let descriptor = format!(
            "api = \"0.{minor}\"\n[buildpack]\nid = \"{id}\"\nversion = \"1.0.0\"\n\
             sbom-formats = [\"application/vnd.cyclonedx+json\"]\n{more}"
        );
        fs::write(directory.join("buildpack.toml"), descriptor).unwrap();
        for (name, text) in [("detect", ""), ("build", script)] {
            let file = directory.join("bin").join(name);
            fs::write(&file, format!("#!/bin/bash\nset -e\n{text}\n")).unwrap();
            fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let member = format!("[[group]]\nid = \"{id}\"\nversion = \"1.0.0\"\napi = \"0.{minor}\"\n");
        self.group.push_str(&member);
    }

    fn run(&mut self) -> Result<(), BuilderError> {
        fs::write(self.path("layers/group.toml"), &self.group).unwrap();
        fs::write(self.path("layers/plan.toml"), &self.plan).unwrap();
        let inputs = Inputs {
            api: PlatformApi::supported(ApiVersion::zero(self.platform_api)).unwrap(),
            exec_env: "test".parse().unwrap(),
            analyzed: self.path("layers/analyzed.toml"),
            app: self.path("app"),
            build_config: self.path("build-config"),
            buildpacks: self.path("buildpacks"),
            group: self.path("layers/group.toml"),
            layers: self.path("layers"),
            plan: self.path("layers/plan.toml"),
            platform: self.path("platform"),
        };
        let environment: [(OsString, OsString); 5] = [
            ("PATH".into(), "/usr/bin:/bin".into()),
            ("CNB_REGISTRY_AUTH".into(), "CANARY".into()),
            ("DOCKER_CONFIG".into(), "/CANARY".into()),
            ("CNB_PLATFORM_API".into(), "CANARY".into()),
            ("AWS_SECRET_ACCESS_KEY".into(), "CANARY".into()),
        ];
        let events = &mut self.events;
        let mut sink = |event: Event| events.push(event);
        let mut services = Services {
            worker: &WorkerCommand { program: "/none".into(), arguments: Vec::new() },
            code: &NoCode,
            policy: &Policy::default(),
            sources: &Sources::default(),
            environment: &environment,
            cancel: &Cancel::default(),
            events: &mut sink as &mut dyn EventSink,
        };
        run(&inputs, &mut services)
    }

    fn code(&mut self) -> u8 {
        self.run().map_or_else(|error| error.code(), |()| 0)
    }

    fn said(&self) -> Vec<&str> {
        let mut lines = Vec::new();
        for event in &self.events {
            if let Event::Output { line, .. } = event {
                lines.push(line.as_str());
            }
        }
        lines
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Everything below a directory, sorted.
    fn tree(&self, name: &str) -> Vec<String> {
        fn add(directory: &Path, prefix: &str, found: &mut Vec<String>) {
            for entry in fs::read_dir(directory).into_iter().flatten() {
                let entry = entry.unwrap();
                let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
                if entry.file_type().unwrap().is_dir() {
                    add(&entry.path(), &format!("{name}/"), found);
                }
                found.push(name);
            }
        }
        let mut found = Vec::new();
        add(&self.path(name), "", &mut found);
        found.sort();
        found
    }
}

/// TGT-13
#[test]
fn tgt_13_executables_do_not_build_for_another_machine() {
    let mut site = Site::one(12, "echo x > \"$1/ran\"");
    // By the names that images have for machines.
    let (here, there) = if cfg!(target_arch = "aarch64") { ("arm64", "amd64") } else { ("amd64", "arm64") };
    let analyzed = |site: &Site, arch: &str| {
        let text = format!("[run-image]\n[run-image.target]\nos = \"linux\"\narch = \"{arch}\"\n");
        fs::write(site.path("layers/analyzed.toml"), text).unwrap();
    };
    analyzed(&site, there);
    let error = site.run().unwrap_err();
    assert_eq!(error.code(), 52);
    let text = error.to_string();
    for part in ["`acme/a@1.0.0`", &format!("`linux/{here}`"), &format!("`linux/{there}`")] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!site.path("layers/acme_a/ran").exists());
    analyzed(&site, here);
    site.run().unwrap();
    assert!(site.path("layers/acme_a/ran").exists());
}

/// BLD-01, API-15, BLD-08, BLD-09, ENV-28
#[test]
fn bld_01_and_api_15_how_build_is_called() {
    for minor in [2, 7, 8, 12] {
        let mut site = Site::one(
            minor,
            "printf '%s\\n' \"$0\" \"$1\" \"$2\" \"$3\" \"$#\" \"$PWD\" > called; test -d \"$1\"\n\
             echo \"$CNB_LAYERS_DIR $CNB_BP_PLAN_PATH\" > variables; stat -c %a \"$(dirname \"$3\")\" > mode",
        );
        site.run().unwrap();
        let called = site.text("app/called");
        let called: Vec<&str> = called.lines().collect();
        let text = |name: &str| site.path(name).to_str().unwrap().to_owned();
        assert_eq!(called[0], text("buildpacks/acme_a/1.0.0/bin/build"));
        assert_eq!(called[1], text("layers/acme_a"));
        assert_eq!(called[2], text("platform"));
        assert_eq!(called[4..], ["3", &text("app")]);
        let expected = if minor < 8 { " ".to_owned() } else { format!("{} {}", called[1], called[3]) };
        assert_eq!(site.text("app/variables").trim_end_matches('\n'), expected, "0.{minor}");
        assert!(called[..4].iter().all(|path| path.starts_with('/')), "{called:?}");
        assert_eq!(site.text("app/mode"), "700\n");
        assert!(!Path::new(called[3]).exists());
    }
}

/// BLD-02, BLD-03, CLI-14
#[test]
fn bld_02_and_03_exit_codes() {
    assert_eq!(Site::one(12, "true").code(), 0);
    for script in ["exit 1", "exit 100", "kill -9 $$", "chmod a-x \"$0\"; exec \"$0\""] {
        let mut site = Site::one(12, script);
        site.buildpack("acme/b", 12, "", "touch later");
        assert_eq!(site.code(), 51, "{script}");
        assert!(!site.path("app/later").exists());
        assert!(!site.path("layers/config/metadata.toml").exists());
    }
    for script in [
        "echo = > $1/a.toml",
        "echo = > $1/launch.toml",
        "echo = > $1/build.toml",
        "echo = > $1/store.toml",
        "echo '[[unmet]]' > $1/build.toml",
        "printf '[types]\\nbuild = true' > $1/a.toml; mkdir -p $1/a/env; ln -s none $1/a/env/X",
        "echo x > $1/launch.sbom.spdx.json",
        "echo x > $1/launch.sbom.other.json",
        "printf '[[processes]]\\ntype = \"a\"\\ncommand = \"x\"\\n' > $1/launch.toml",
    ] {
        assert_eq!(Site::one(12, script).code(), 52, "{script}");
    }
}

/// API-07, GRP-03
#[test]
fn api_07_the_group_is_checked_before_anything_runs() {
    let mut site = Site::one(12, "touch ran");
    site.group += "[[group]]\nid = \"acme/b\"\nversion = \"1\"\napi = \"0.99\"\n";
    assert_eq!(site.code(), BUILDPACK_API);
    let mut site = Site::one(12, "touch ran");
    site.group += "[[group]]\nid = \"acme/b\"\nversion = \"1\"\napi = \"0.12\"\n";
    assert_eq!(site.code(), 52);
    assert!(!site.path("app/ran").exists());
    site.group = "= ".into();
    assert_eq!(site.code(), GENERIC);
}

#[test]
fn bld_04_old_bills_of_materials_are_removed_first() {
    let mut site = Site::one(12, "test ! -e $1/../sbom");
    fs::create_dir_all(site.path("layers/sbom/launch/old")).unwrap();
    site.run().unwrap();
    assert_eq!(
        site.tree("layers/sbom"),
        ["build", "build/sbom.legacy.json", "launch", "launch/sbom.legacy.json"]
    );
}

/// BLD-06, BLD-08: files stay, and layers of others are readable where they are.
#[test]
fn bld_06_and_08_changes_are_seen_by_later_buildpacks() {
    let mut site =
        Site::one(12, "touch made; mkdir $1/x; touch $1/x/file; printf '[types]\\ncache = true' > $1/x.toml");
    site.buildpack("acme/b", 12, "", "test -e made; test -e $1/../acme_a/x/file; rm made");
    site.run().unwrap();
    assert_eq!(site.tree("app"), Vec::<String>::new());
}

/// LYR-04, LYR-06, LYR-07, LYR-08, LYR-09, LYR-18
#[test]
fn lyr_06_to_09_what_is_no_layer_is_renamed_away() {
    let mut site = Site::one(
        12,
        "cd $1; mkdir -p bare restored/x empty used new old.ignore/kept\n\
         printf '[types]\\ncache = true' > empty.toml; printf '[types]\\nlaunch = true' > used.toml\n\
         printf '[types]\\nlaunch = true' > reused.toml; touch restored/x/y new/n",
    );
    let layers = site.path("layers/acme_a");
    fs::create_dir_all(layers.join("new.ignore/stale")).unwrap();
    fs::write(layers.join("restored.toml"), "[metadata]\na = 1\n").unwrap();
    site.run().unwrap();
    let expected = [
        "bare.ignore",
        "empty",
        "empty.toml",
        "new.ignore",
        "new.ignore/n",
        "old.ignore",
        "old.ignore/kept",
        "restored.ignore",
        "restored.ignore/x",
        "restored.ignore/x/y",
        "restored.toml",
        "reused.toml",
        "used",
        "used.toml",
    ];
    assert_eq!(site.tree("layers/acme_a"), expected);
}

#[test]
fn lyr_08_a_layer_is_never_replaced_by_what_is_put_away() {
    let script = "mkdir $1/a $1/a.ignore; printf '[types]\\nlaunch = true' > $1/a.ignore.toml";
    assert_eq!(Site::one(12, script).code(), 52);
}

/// LYR-02, LYR-05, API-16
#[test]
fn lyr_05_and_api_16_every_toml_is_looked_at() {
    for file in ["a", "launch", "build", "store"] {
        for flag in ["launch", "build", "cache"] {
            let script = format!("echo '{flag} = true' > $1/{file}.toml");
            assert_eq!(Site::one(6, &script).code(), 52, "{file} {flag}");
            assert_eq!(Site::one(12, &script).code(), 52, "{file} {flag}");
        }
    }
    let script = "n='größe v1.2 x'; mkdir \"$1/$n\"; printf '[types]\\nbuild = true' > \"$1/$n.toml\"; mkdir \"$1/$n/bin\"";
    let mut site = Site::one(12, script);
    site.buildpack("acme/b", 12, "", "echo $PATH > path");
    site.run().unwrap();
    let layer = site.path("layers/acme_a/größe v1.2 x/bin");
    assert_eq!(site.text("app/path"), format!("{}:/usr/bin:/bin\n", layer.display()));
}

/// API 0.5 and older have the flags at the top level.
#[test]
fn api_16_flags_of_old_buildpacks() {
    let mut site =
        Site::one(5, "mkdir -p $1/a/bin; printf 'build = true\\n[types]\\nlaunch = true\\n' > $1/a.toml");
    site.buildpack("acme/b", 5, "", "echo $PATH > path");
    site.run().unwrap();
    assert!(site.text("app/path").contains("acme_a/a/bin:"));
    assert!(site.said()[0].contains("`[types]` is not part of Buildpack API 0.5"), "{:?}", site.said());
}

/// ENV-13, ENV-15, ENV-17, ENV-18, ENV-19, ENV-20, ENV-21, ENV-22. The order of `l-2` and
/// `l` is that of their files, as in the reference.
#[test]
fn env_13_to_22_changes_by_build_layers() {
    let script = "test -z \"$FOO\"\nfor l in l l-2; do mkdir -p $1/$l/{bin,env,env.build,env.launch}
        printf '[types]\\nbuild = true' > $1/$l.toml; printf a$l > $1/$l/env/FOO.append
        printf p$l > $1/$l/env.build/FOO.prepend; printf ':' > $1/$l/env/FOO.delim
        printf 'x\\n' > $1/$l/env/NL; printf no > $1/$l/env.launch/LAUNCH; printf u > $1/$l/env/U.override.bak
        printf d$l > $1/$l/env/DEF.default; done
        mkdir -p $1/cached/env; printf no > $1/cached/env/CACHED; printf '[types]\\ncache = true' > $1/cached.toml";
    let mut site = Site::one(12, script);
    site.buildpack("acme/b", 12, "", "env -0 > env");
    site.run().unwrap();
    let env = site.text("app/env");
    let value = |name: &str| env.split('\0').find_map(|entry| entry.strip_prefix(&format!("{name}=")));
    let layers = site.path("layers/acme_a");
    let layers = layers.display();
    assert_eq!(value("PATH").unwrap(), format!("{layers}/l/bin:{layers}/l-2/bin:/usr/bin:/bin"));
    assert_eq!(value("FOO"), Some("plpl-2al-2:al"));
    assert_eq!(value("DEF"), Some("dl-2"));
    assert_eq!(value("NL"), Some("x\n"));
    for name in ["LAUNCH", "U", "CACHED"] {
        assert_eq!(value(name), None, "{name}");
    }
}

/// ENV-25, ENV-26: the directories and files of a layer from the cache count once it is a build
/// layer, those in directories below them do not.
#[test]
fn env_25_and_26_a_restored_layer_changes_the_environment_like_a_new_one() {
    for (claim, path, foo) in [
        ("printf '[types]\\nbuild = true\\ncache = true' > $1/l.toml", "acme_a/l/bin:/usr", "restored"),
        ("printf '[types]\\ncache = true' > $1/l.toml", "/usr", ""),
        ("true", "/usr", ""),
    ] {
        let mut site = Site::one(12, claim);
        site.buildpack("acme/b", 12, "", "echo $PATH > path; echo \"$FOO$BAR\" > foo");
        for name in ["bin", "env/FOO", "env.build/BAR"] {
            fs::create_dir_all(site.path("layers/acme_a/l").join(name)).unwrap();
        }
        fs::write(site.path("layers/acme_a/l/env/FOO/BAR"), "below").unwrap();
        fs::write(site.path("layers/acme_a/l/env/FOO.default"), "restored").unwrap();
        fs::write(site.path("layers/acme_a/l.toml"), "[metadata]\nkept = 1\n").unwrap();
        site.run().unwrap();
        assert_eq!(site.text("app/foo"), format!("{foo}\n"), "{claim}");
        let seen = site.text("app/path");
        let layers = format!("{}/", site.path("layers").display());
        let seen = seen.strip_prefix(&layers).unwrap_or(&seen);
        assert!(seen.starts_with(path), "{claim}: {seen}");
    }
}

#[test]
fn env_24_files_without_suffix_by_api() {
    for minor in [4, 5, 12] {
        let types = if minor < 6 { "build = true" } else { "[types]\\nbuild = true" };
        let script = format!("mkdir -p $1/l/env; printf new > $1/l/env/PATH; printf '{types}' > $1/l.toml");
        let mut site = Site::one(minor, &script);
        site.buildpack("acme/b", 12, "", "echo $PATH > /dev/fd/3");
        // Nothing of `PATH` may be needed by the script itself.
        let file = site.path("buildpacks/acme_b/1.0.0/bin/build");
        fs::write(&file, "#!/bin/bash\necho \"$PATH\" > path\n").unwrap();
        site.run().unwrap();
        let expected = if minor < 5 { "new:/usr/bin:/bin\n" } else { "new\n" };
        assert_eq!(site.text("app/path"), expected, "0.{minor}");
    }
}

const PLAN: &str = "[[entries]]
[[entries.providers]]
id = \"acme/a\"
version = \"1.0.0\"
[[entries.providers]]
id = \"acme/b\"
version = \"2.0.0\"
[[entries.requires]]
name = \"node\"
metadata.version = \"20\"
[[entries.requires]]
name = \"node\"
[[entries]]
[[entries.providers]]
id = \"acme/b\"
version = \"1.0.0\"
[[entries.requires]]
name = \"npm\"
[[entries]]
[[entries.providers]]
id = \"acme/ext\"
version = \"1\"
extension = true
[[entries.providers]]
id = \"acme/a\"
version = \"1.0.0\"
[[entries.requires]]
name = \"curl\"
";

/// UNM-01, UNM-02, UNM-03, UNM-04, UNM-06, UNM-07
#[test]
fn unm_01_to_07_who_is_given_what() {
    let node = "[[entries]]\n  name = \"node\"\n  [entries.metadata]\n    version = \"20\"\n\n[[entries]]\n  name = \"node\"\n";
    let npm = "[[entries]]\n  name = \"npm\"\n";
    for (unmet, expected) in [("", npm.to_owned()), ("[[unmet]]\\nname = \"node\"", format!("{node}\n{npm}"))]
    {
        let script = format!("cp $3 first; echo > $3; printf '{unmet}' > $1/build.toml");
        let mut site = Site::one(12, &script);
        site.plan = PLAN.into();
        site.buildpack("acme/b", 12, "", "cp $3 second");
        site.run().unwrap();
        assert_eq!(site.text("app/first"), node);
        assert_eq!(site.text("app/second"), expected);
    }
}

#[test]
fn unm_05_only_given_names_can_be_unmet() {
    for name in ["npm", "nothing", ""] {
        let mut site = Site::one(12, &format!("printf '[[unmet]]\\nname = \"{name}\"' > $1/build.toml"));
        site.plan = PLAN.into();
        assert_eq!(site.code(), 52, "{name}");
    }
}

/// The table of section 1.1: before API 0.5 the plan file is the answer, and the bill of materials.
#[test]
fn unm_07_answers_of_old_buildpacks() {
    for minor in [2, 4] {
        let answer = "cp $3 first; printf '[[entries]]\\nname = \"npm\"\\nversion = \"7\"' > $3";
        let mut site = Site::one(minor, answer);
        let entry = |name: &str| {
            let provider = |id: &str| format!("[[entries.providers]]\nid = \"{id}\"\nversion = \"1.0.0\"\n");
            let requires = format!("[[entries.requires]]\nname = \"{name}\"\nmetadata.version = \"20\"\n");
            format!("[[entries]]\n{}{}{requires}", provider("acme/a"), provider("acme/b"))
        };
        site.plan = entry("node") + &entry("npm");
        site.buildpack("acme/b", 12, "", "cp $3 second");
        site.run().unwrap();
        assert_eq!(site.text("app/first").contains("\n  version = \"20\""), minor == 2, "0.{minor}");
        let node = "[[entries]]\n  name = \"node\"\n  [entries.metadata]\n    version = \"20\"\n";
        assert_eq!(site.text("app/second"), node);
        assert_eq!(
            site.text("layers/sbom/launch/sbom.legacy.json"),
            "[{\"name\":\"npm\",\"metadata\":{\"version\":\"7\"},\
             \"buildpack\":{\"id\":\"acme/a\",\"version\":\"1.0.0\"}}]\n"
        );
    }
}

/// SBOM-01 to SBOM-07, SBOM-12
#[test]
fn sbom_01_to_07_bills_of_materials_are_copied_to_their_places() {
    let script = "cd $1; for l in la bu ca all no v1.2 bare; do printf \"\\xff$l\" > $l.sbom.cdx.json; done
        echo l > launch.sbom.cdx.json; echo b > build.sbom.cdx.json; echo x > stranger.sbom.other.json
        t() { printf '[types]\\n' > $1.toml; for k in ${@:2}; do echo \"$k = true\" >> $1.toml; done; mkdir $1; }
        t la launch; t bu build; t ca cache; t all launch build cache; t no; t v1.2 launch";
    let mut site = Site::one(7, script);
    site.run().unwrap();
    let files: Vec<String> =
        site.tree("layers/sbom").into_iter().filter(|name| name.contains(".json")).collect();
    let expected = [
        "build/acme_a/bu/sbom.cdx.json",
        "build/acme_a/ca/sbom.cdx.json",
        "build/acme_a/no/sbom.cdx.json",
        "build/acme_a/sbom.cdx.json",
        "build/sbom.legacy.json",
        "cache/acme_a/all/sbom.cdx.json",
        "cache/acme_a/ca/sbom.cdx.json",
        "launch/acme_a/all/sbom.cdx.json",
        "launch/acme_a/la/sbom.cdx.json",
        "launch/acme_a/sbom.cdx.json",
        "launch/acme_a/v1.2/sbom.cdx.json",
        "launch/sbom.legacy.json",
    ];
    assert_eq!(files, expected);
    assert_eq!(fs::read(site.path("layers/sbom/cache/acme_a/all/sbom.cdx.json")).unwrap(), b"\xffall");
    assert_eq!(site.text("layers/sbom/launch/sbom.legacy.json"), "null\n");

    // Before API 0.7 nobody looks at them.
    let mut site = Site::one(6, "echo l > $1/launch.sbom.other.json");
    site.platform_api = 8;
    site.run().unwrap();
    assert_eq!(site.tree("layers/sbom"), Vec::<String>::new());
}

/// API-20
#[test]
fn api_20_old_bills_of_materials_are_warned_of_and_taken() {
    let bom = "printf '[[bom]]\\nname = \"a\"' > $1/launch.toml";
    for (minor, more, warned) in
        [(6, "", false), (7, "", true), (12, "; echo > $1/launch.sbom.cdx.json", false)]
    {
        let mut site = Site::one(minor, &format!("{bom}{more}"));
        site.run().unwrap();
        assert_eq!(site.said().iter().any(|line| line.contains("deprecated")), warned, "0.{minor}");
        assert!(site.text("layers/sbom/launch/sbom.legacy.json").contains("\"name\":\"a\""));
    }
}

/// MET-01, PRC-01, PRC-03, LCH-01, LCH-07, LCH-09
#[test]
fn met_01_what_all_buildpacks_said_of_launching() {
    let launch = |text: &str| format!("cat > $1/launch.toml <<'X'\n{text}\nX");
    let mut site = Site::one(
        8,
        &launch(
            "[[processes]]\ntype = \"web\"\ncommand = \"a b\"\nargs = [\"c\"]\ndefault = true\n[[labels]]\nkey = \"k\"\nvalue = \"1\"\n[[slices]]\npaths = [\"a\"]",
        ),
    );
    site.buildpack("acme/b", 12, "", &launch("[[processes]]\ntype = \"web\"\ncommand = [\"b\"]\n[[labels]]\nkey = \"k\"\nvalue = \"2\"\n[[slices]]\npaths = [\"b\"]"));
    site.buildpack("acme/c", 12, "", "true");
    site.run().unwrap();
    let member = |id: &str, minor: u64| {
        format!("[[buildpacks]]\n  id = \"{id}\"\n  version = \"1.0.0\"\n  api = \"0.{minor}\"\n\n")
    };
    let expected = member("acme/a", 8)
        + &member("acme/b", 12)
        + &member("acme/c", 12)
        + "[[labels]]\n  key = \"k\"\n  value = \"1\"\n\n[[labels]]\n  key = \"k\"\n  value = \"2\"\n\n\
           [[processes]]\n  type = \"web\"\n  command = [\"b\"]\n  direct = true\n  buildpack-id = \"acme/b\"\n\n\
           [[slices]]\n  paths = [\"a\"]\n\n[[slices]]\n  paths = [\"b\"]\n";
    assert_eq!(site.text("layers/config/metadata.toml"), expected);
    let warned =
        |event: &Event| matches!(event, Event::Warning { message } if message.contains("no default process"));
    assert!(site.events.iter().any(warned));
}

/// EXE-02: whatever environment this build is for.
#[test]
fn exe_02_processes_for_every_execution_environment_are_recorded() {
    let process = |name: &str, more: &str| {
        format!("[[processes]]\ntype = \"{name}\"\ncommand = [\"{name}\"]\n{more}\n")
    };
    let text = process("all", "")
        + &process("live", "exec-env = [\"production\"]")
        + &process("test", "exec-env = [\"test\", \"x\"]");
    let mut site = Site::one(12, &format!("cat > $1/launch.toml <<'X'\n{text}X"));
    site.run().unwrap();
    let metadata: toml::Table = site.text("layers/config/metadata.toml").parse().unwrap();
    let recorded: Vec<(&str, String)> = metadata["processes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|process| {
            let environments = process.get("exec-env").map(ToString::to_string).unwrap_or_default();
            (process["type"].as_str().unwrap(), environments)
        })
        .collect();
    let expected = [("all", ""), ("live", "[\"production\"]"), ("test", "[\"test\", \"x\"]")];
    assert_eq!(recorded, expected.map(|(name, list)| (name, list.to_owned())));
}

/// CLI-12, DET-17: a build goes well without them, and does not see them when they are there.
#[test]
fn cli_12_a_buildpack_that_builds_sees_no_credentials() {
    let mut site = Site::one(12, "cat /proc/self/environ /proc/$$/environ > seen");
    site.run().unwrap();
    let seen = site.text("app/seen");
    assert!(seen.contains("PATH=/usr/bin:/bin") && !seen.contains("CANARY"), "{seen}");
}

/// GRP-02: an order that would choose somebody else, or cannot even be read, is not looked at.
#[test]
fn grp_02_the_group_is_what_its_file_says() {
    for order in ["[[order]]\n[[order.group]]\nid = \"acme/b\"\nversion = \"1.0.0\"\n", "= "] {
        let mut site = Site::one(12, "echo a > built");
        let group = site.group.clone();
        site.buildpack("acme/b", 12, "", "echo b > built");
        site.group = group;
        fs::write(site.path("layers/order.toml"), order).unwrap();
        site.run().unwrap();
        assert_eq!(site.text("app/built"), "a\n");
        assert!(!site.path("layers/acme_b").exists());
    }
}

/// API-11, API-13: each file means what the API of its own buildpack says, and what all of them
/// said is written as the platform's API says.
#[test]
fn api_11_and_13_every_buildpack_is_read_by_its_own_api() {
    let mut site = Site::one(
        5,
        "mkdir -p $1/old/bin; echo 'build = true' > $1/old.toml\n\
         printf '[[processes]]\\ntype = \"old\"\\ncommand = \"x y\"\\nargs = [\"z\"]\\n' > $1/launch.toml",
    );
    site.buildpack(
        "acme/b",
        12,
        "",
        "case $PATH in */acme_a/old/bin:*) ;; *) exit 1;; esac; mkdir -p $1/new/bin\n\
         printf '[types]\\nbuild = true' > $1/new.toml\n\
         printf '[[processes]]\\ntype = \"new\"\\ncommand = [\"x y\", \"z\"]\\n' > $1/launch.toml",
    );
    site.buildpack("acme/c", 8, "", "echo $PATH > path; env | grep -c CNB_TARGET_ > targets || true");
    site.run().unwrap();
    let layers = site.path("layers");
    let layers = layers.display();
    assert_eq!(
        site.text("app/path"),
        format!("{layers}/acme_b/new/bin:{layers}/acme_a/old/bin:/usr/bin:/bin\n")
    );
    assert_eq!(site.text("app/targets"), "0\n");
    let processes = |site: &Site| -> Vec<(String, String, bool)> {
        let metadata: toml::Table = site.text("layers/config/metadata.toml").parse().unwrap();
        let processes = metadata["processes"].as_array().unwrap().iter();
        processes
            .map(|process| {
                let args = process.get("args").map(ToString::to_string).unwrap_or_default();
                (process["command"].to_string(), args, process["direct"].as_bool().unwrap())
            })
            .collect()
    };
    let process = |command: &str, args: &str, direct| (command.to_owned(), args.to_owned(), direct);
    let new = processes(&site);
    assert_eq!(new[0], process("[\"x y\", \"z\"]", &new[0].1.clone(), true));
    assert_eq!(new[1], process("[\"x y\"]", "[\"z\"]", false));
    site.platform_api = 9;
    site.run().unwrap();
    let old = processes(&site);
    assert_eq!(old[0], process("\"x y\"", "[\"z\"]", true));
    assert_eq!(old[1], process("\"x y\"", "[\"z\"]", false));
}

/// BLD-07: what is wrong first is what the build fails with, and what came before it was done.
#[test]
fn bld_07_layers_then_the_environment_then_the_other_files() {
    let layer = "printf '[types]\\nbuild = true\\nx = = 1' > $1/l.toml";
    let environment =
        "printf '[types]\\nbuild = true' > $1/v.toml; mkdir -p $1/v/env; ln -s none $1/v/env/FOO";
    let build = "printf '[[bom]]\\nname = \"nobody\"\\nversion = \"1\"' > $1/build.toml";
    let sbom = "echo > $1/launch.sbom.spdx.json";
    let launch = "printf '[[processes]]\\ntype = \"a\"\\ncommand = \"x\"\\n' > $1/launch.toml";
    let steps =
        [("l.toml", layer), ("FOO", environment), ("nobody", build), ("spdx", sbom), ("launch", launch)];
    for (position, (name, _)) in steps.iter().enumerate() {
        let scripts: Vec<&str> = steps[position..].iter().map(|(_, script)| *script).collect();
        let mut site = Site::one(12, &format!("mkdir $1/bare; {}", scripts.join("\n")));
        let error = site.run().unwrap_err();
        assert_eq!(error.code(), 52);
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        assert!(text.contains(name), "step {position}: {text}");
        assert_eq!(site.path("layers/acme_a/bare.ignore").exists(), position > 0, "{name}");
        assert!(!site.path("layers/config/metadata.toml").exists());
    }
}

/// BLD-10: and what a component or the phase made on the way is not there afterwards.
#[test]
fn nothing_is_left_but_what_the_specification_names() {
    let mut site = Site::one(12, "true");
    site.run().unwrap();
    assert_eq!(
        site.tree("layers"),
        [
            "acme_a",
            "config",
            "config/metadata.toml",
            "group.toml",
            "plan.toml",
            "sbom",
            "sbom/build",
            "sbom/build/sbom.legacy.json",
            "sbom/launch",
            "sbom/launch/sbom.legacy.json",
        ]
    );
    let mut site = Site::one(12, "exit 1");
    site.run().unwrap_err();
    assert_eq!(site.tree("layers"), ["acme_a", "group.toml", "plan.toml"]);
}

/// A layer that is a link counts as one, and is put away as a link.
#[test]
fn lyr_06_links_are_never_followed_when_they_are_put_away() {
    let mut site = Site::one(12, "ln -s /usr $1/l; printf '' > $1/l.toml");
    symlink("/nowhere", site.path("layers/dangling")).unwrap();
    site.run().unwrap();
    assert_eq!(fs::read_link(site.path("layers/acme_a/l.ignore")).unwrap(), Path::new("/usr"));
    assert!(Path::new("/usr/bin").exists());
}
