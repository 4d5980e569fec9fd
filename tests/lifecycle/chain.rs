//! Whole builds: each phase by itself, and all in one.

use std::os::unix::fs::MetadataExt as _;

use super::fixture::{IMAGE, Lifecycle, Platform, USER, is_root};
use crate::image::tools::skip;

/// Writes a layer of each kind, and says whether the cached one was there.
const BUILD: &str = r#"
layers=$1
if [ -f "$layers/kept/made" ]; then echo "kept was here"; else echo "kept is new"; mkdir -p "$layers/kept"; echo made > "$layers/kept/made"; fi
printf '[types]\ncache = true\nbuild = true\n[metadata]\nkey = "one"\n' > "$layers/kept.toml"
if [ -f "$layers/app.toml" ]; then echo "metadata of app: $(grep -o "key = .*" "$layers/app.toml")"; fi
mkdir -p "$layers/app/env.launch"
echo library > "$layers/app/library"
printf value > "$layers/app/env.launch/ACME.default"
printf '[types]\nlaunch = true\n[metadata]\nkey = "two"\n' > "$layers/app.toml"
cat > "$layers/launch.toml" <<'TOML'
[[labels]]
key = "acme.label"
value = "labelled"
[[processes]]
type = "web"
command = ["cat"]
args = ["hello.txt"]
default = true
TOML
echo "warned" >&2
"#;

const DETECT: &str = r#"
cat > "$2" <<'TOML'
[[provides]]
name = "thing"
[[requires]]
name = "thing"
TOML
"#;

fn platform(lifecycle: Lifecycle, api: &str) -> Platform {
    let platform = Platform::new(lifecycle, api);
    platform.buildpack("one", "0.10", DETECT, BUILD);
    platform.buildpack("absent", "0.10", "exit 100", "exit 1");
    platform.order(&["absent?", "one"]);
    platform
}

pub(super) fn example(lifecycle: Lifecycle, api: &str) -> Platform {
    platform(lifecycle, api)
}

#[test]
fn five_programs_make_an_image_and_use_it_the_next_time() {
    for api in ["0.15", "0.12"] {
        let platform = platform(Lifecycle::ours(), api);
        let ended = platform.build();
        assert!(
            ended[1].stdout.contains("1 of 2 buildpacks participating\nacme/one 1.0.0\n"),
            "{}",
            ended[1].said()
        );
        assert!(!ended[1].said().contains("===>"), "headings are the creator's");
        assert!(ended[3].said().contains("kept is new"), "{}", ended[3].said());
        let image = platform.image();
        let configuration = image.configuration();
        assert_eq!(configuration["config"]["Labels"]["acme.label"], "labelled");
        assert_eq!(configuration["config"]["Entrypoint"], serde_json::json!(["/cnb/process/web"]));
        let files = image.files();
        let ending =
            |end: &str| files.iter().find(|(name, _)| name.ends_with(end)).map(|(_, text)| text.as_str());
        assert_eq!(ending("/acme_one/app/library"), Some("library\n"));
        assert_eq!(ending("/app/hello.txt"), Some("hello\n"));
        assert_eq!(ending("/acme_one/kept/made"), None, "a layer for later builds is not in the image");
        let first = image.digest();

        // The directory of layers is a volume of its own for each build.
        std::fs::remove_dir_all(platform.path("layers")).unwrap();
        std::fs::create_dir(platform.path("layers")).unwrap();
        let ended = platform.build();
        assert!(ended[3].said().contains("kept was here"), "{}", ended[3].said());
        assert!(ended[3].said().contains("metadata of app: key = \"two\""), "{}", ended[3].said());
        assert!(ended[4].stdout.contains("Reusing layer 'acme/one:app'"), "{}", ended[4].said());
        assert_eq!(platform.image().digest(), first);
    }
}

/// CRE-01: the same image as from the programs one by one.
#[test]
fn cre_01_the_creator_is_all_phases_in_one() {
    let apart = platform(Lifecycle::ours(), "0.12");
    apart.build();
    let together = platform(Lifecycle::ours(), "0.12");
    let launcher = together.launcher();
    let mut arguments: Vec<&str> = launcher.iter().map(String::as_str).collect();
    arguments.push(IMAGE);
    let ended = together.run("creator", &arguments);
    let ended = ended.succeeded();
    let headings: Vec<&str> = ended.stdout.lines().filter(|line| line.starts_with("===> ")).collect();
    assert_eq!(
        headings,
        ["===> ANALYZING", "===> DETECTING", "===> RESTORING", "===> BUILDING", "===> EXPORTING"]
    );
    for file in ["layers/group.toml", "layers/plan.toml"] {
        assert_eq!(together.toml(file), apart.toml(file), "{file}");
    }
    for file in ["layers/analyzed.toml", "layers/config/metadata.toml", "layers/report.toml"] {
        assert!(together.path(file).is_file(), "{file}");
    }
    let diff_ids = |platform: &Platform| platform.image().configuration()["rootfs"]["diff_ids"].clone();
    // The app's directory has another name in each; its layers are the last three but one.
    assert_eq!(diff_ids(&together).as_array().unwrap().len(), diff_ids(&apart).as_array().unwrap().len());
}

/// CLI-11: root gives the volumes away and goes on as the user.
#[test]
fn cli_11_root_becomes_the_user_of_the_build() {
    if !is_root() {
        skip("not run as root, so nobody can become another");
        return;
    }
    let platform = platform(Lifecycle::ours(), "0.12");
    for name in ["layers", "cache"] {
        std::os::unix::fs::chown(platform.path(name), Some(0), Some(0)).unwrap();
    }
    std::fs::write(platform.path("layers/left"), "").unwrap();
    super::fixture::give(&platform.path("layout"));
    platform.run_as_we_are("analyzer", &[IMAGE]).succeeded();
    for name in ["layers", "layers/left", "layers/analyzed.toml"] {
        let found = std::fs::symlink_metadata(platform.path(name)).unwrap();
        assert_eq!((found.uid(), found.gid()), (USER, USER), "{name}");
    }
}

/// CLI-11: as platforms leave them, volumes are the user's with files of root's in them.
#[test]
fn cli_11_files_of_root_in_a_volume_of_the_user_are_left_alone() {
    if !is_root() {
        return skip("not run as root, so there are no files of root's");
    }
    let platform = platform(Lifecycle::ours(), "0.12");
    for name in ["app", "cache", "layers", "layout"] {
        super::fixture::give(&platform.path(name));
    }
    std::fs::write(platform.path("layers/project-metadata.toml"), "").unwrap();
    platform.run_as_we_are("analyzer", &[IMAGE]).succeeded();
    let launcher = platform.launcher();
    let mut arguments: Vec<&str> = launcher.iter().map(String::as_str).collect();
    arguments.push(IMAGE);
    platform.run_as_we_are("creator", &arguments).succeeded();
    assert_eq!(std::fs::metadata(platform.path("layers/project-metadata.toml")).unwrap().uid(), 0);
}

/// CLI-14: what buildpacks do decides about codes of detector and builder.
#[test]
fn cli_14_codes_say_which_phase_failed_and_who() {
    let code = |detect: &str, build: &str, program: &str| {
        let platform = Platform::new(Lifecycle::ours(), "0.12");
        platform.buildpack("one", "0.10", detect, build);
        platform.order(&["one"]);
        platform.run("analyzer", &[IMAGE]).succeeded();
        let ended = platform.run("detector", &[]);
        if program == "detector" { ended.code } else { platform.run(program, &[]).code }
    };
    assert_eq!(code("exit 100", "", "detector"), 20);
    assert_eq!(code("exit 1", "", "detector"), 21);
    assert_eq!(code("exit 0", "exit 7", "builder"), 51);
    assert_eq!(code("exit 0", "printf 'launch = true' > $1/x.toml", "builder"), 52);
    let platform = Platform::new(Lifecycle::ours(), "0.12");
    platform.buildpack("one", "0.99", "", "");
    platform.order(&["one"]);
    platform.run("analyzer", &[IMAGE]).succeeded();
    assert_eq!(platform.run("detector", &[]).code, 12);
}

/// DET-17: what signs in to image stores is not in a buildpack's environment.
#[test]
fn det_17_credentials_do_not_reach_buildpacks() {
    let mut platform = Platform::new(Lifecycle::ours(), "0.12");
    platform.buildpack("one", "0.10", "env > /proc/self/fd/1; exit 1", "");
    platform.order(&["one"]);
    platform.set("CNB_REGISTRY_AUTH", "{\"registry.example\": \"Basic CANARY\"}");
    platform.set("DOCKER_CONFIG", "/CANARY");
    platform.set("CANARY_TOKEN", "CANARY");
    platform.run("analyzer", &[IMAGE]).succeeded();
    let ended = platform.run("detector", &[]);
    assert!(ended.said().contains("CNB_BUILDPACK_DIR="), "{}", ended.said());
    assert!(!ended.said().contains("CANARY"), "{}", ended.said());
}
