//! The detector from file to file, with shell scripts as buildpacks.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::cancel::Cancel;
use crate::cnb::build_plan::BuildPlan;
use crate::executor::worker::NoCode;
use crate::executor::worker::WorkerCommand;
use crate::fault::Diagnose as _;
use crate::policy::Policy;
use crate::programs::ProgramError;
use crate::sources::Sources;

/// The directories of a platform.
struct Platform {
    temp: tempfile::TempDir,
    inputs: Inputs,
    environment: Vec<(OsString, OsString)>,
    events: Vec<Event>,
}

impl Platform {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let path = |name: &str| temp.path().join(name);
        for directory in ["app", "layers", "platform"] {
            std::fs::create_dir(path(directory)).unwrap();
        }
        let inputs = Inputs {
            api: PlatformApi::NEWEST,
            exec_env: ExecEnv::default(),
            app: path("app"),
            analyzed: path("layers/analyzed.toml"),
            build_config: path("build-config"),
            buildpacks: path("buildpacks"),
            extensions: path("extensions"),
            generated: path("layers/generated"),
            group: path("layers/group.toml"),
            layers: path("layers"),
            order: Some(path("order.toml")),
            plan: path("layers/plan.toml"),
            platform: path("platform"),
            run: path("run.toml"),
            system: path("system.toml"),
        };
        let variable = |name: &str, value: &str| (OsString::from(name), OsString::from(value));
        let environment = vec![variable("PATH", "/usr/bin:/bin"), variable("CNB_REGISTRY_AUTH", "CANARY")];
        Self { temp, inputs, environment, events: Vec::new() }
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.temp.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        if name.contains("/bin/") {
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
        }
    }

    fn read(&self, name: &str) -> String {
        let path = self.temp.path().join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn exists(&self, name: &str) -> bool {
        self.temp.path().join(name).exists()
    }

    /// Installs a buildpack; `$2` is the plan file.
    fn buildpack(&self, id: &str, more: &str, detect: &str) {
        let directory = format!("buildpacks/{}/1", id.replace('/', "_"));
        let toml = format!("api = \"0.10\"\n[buildpack]\nid = \"{id}\"\nversion = \"1\"\n{more}");
        self.write(&format!("{directory}/buildpack.toml"), &toml);
        self.write(&format!("{directory}/bin/build"), "");
        self.write(&format!("{directory}/bin/detect"), &format!("#!/bin/bash\n{detect}\n"));
    }

    /// Installs an extension with these files.
    fn extension(&self, id: &str, files: &[(&str, &str)]) {
        let directory = format!("extensions/{}/1", id.replace('/', "_"));
        let toml = format!("api = \"0.10\"\n[extension]\nid = \"{id}\"\nversion = \"1\"\n");
        self.write(&format!("{directory}/extension.toml"), &toml);
        for (name, text) in files {
            self.write(&format!("{directory}/{name}"), text);
        }
    }

    /// Groups of `order.toml`: `?` behind optional members, `.` before groups of extensions.
    fn order(&self, groups: &[&str]) {
        let mut text = String::new();
        for group in groups {
            let (table, group) = match group.strip_prefix('.') {
                Some(group) => ("order-extensions", group),
                None => ("order", *group),
            };
            writeln!(text, "[[{table}]]").unwrap();
            for name in group.split_whitespace() {
                let (id, optional) = (name.trim_end_matches('?'), name.ends_with('?'));
                writeln!(text, "[[{table}.group]]\nid = \"{id}\"\nversion = \"1\"").unwrap();
                writeln!(text, "optional = {optional}").unwrap();
            }
        }
        self.write("order.toml", &text);
    }

    fn api(&mut self, minor: u64) {
        self.inputs.api = PlatformApi::supported(crate::cnb::api::ApiVersion::zero(minor)).unwrap();
    }

    fn run(&mut self) -> Result<(), DetectorError> {
        self.run_with(Extensions::Generate)
    }

    fn run_with(&mut self, extensions: Extensions) -> Result<(), DetectorError> {
        let events = &mut self.events;
        events.clear();
        run_with(
            &self.inputs,
            &mut Services {
                worker: &WorkerCommand { program: PathBuf::new(), arguments: Vec::new() },
                code: &NoCode,
                policy: &Policy::default(),
                sources: &Sources::default(),
                environment: &self.environment,
                cancel: &Cancel::default(),
                events: &mut |event| events.push(event),
            },
            extensions,
        )
    }

    /// The exit code.
    fn code(&mut self) -> u8 {
        match self.run() {
            Ok(()) => 0,
            Err(error) => ProgramError::from(error).code(),
        }
    }

    /// Who is in `group.toml`.
    fn group(&mut self) -> String {
        self.run().unwrap();
        let group = Group::parse(&self.read("layers/group.toml")).unwrap();
        let extensions = group.extensions.iter().map(|one| format!(".{}", one.id));
        let buildpacks = group.buildpacks.iter().map(|one| one.id.to_string());
        extensions.chain(buildpacks).collect::<Vec<_>>().join(" ")
    }

    fn warnings(&self) -> Vec<&str> {
        let message = |event: &'_ Event| match event {
            Event::Warning { message } => Some(message.clone()),
            _ => None,
        };
        let warnings: Vec<String> = self.events.iter().filter_map(message).collect();
        warnings.leak().iter().map(String::as_str).collect()
    }
}

const PROVIDES_AND_REQUIRES: &str = "printf '[[provides]]\\nname = \"x\"\\n[[requires]]\\nname = \"x\"\\n\
    [requires.metadata]\\nn = 1\\n' > \"$2\"";

/// GRP-01, PLAN-12
#[test]
fn grp_01_and_plan_12_group_and_plan_are_written() {
    let mut platform = Platform::new();
    platform.buildpack("acme/a", "homepage = \"https://example.com\"\n", PROVIDES_AND_REQUIRES);
    platform.buildpack("acme/b", "", "exit 100");
    platform.order(&["acme/b? acme/a"]);
    platform.run().unwrap();
    assert_eq!(
        platform.read("layers/group.toml"),
        "[[group]]\n  id = \"acme/a\"\n  version = \"1\"\n  api = \"0.10\"\n  homepage = \"https://example.com\"\n"
    );
    let plan = BuildPlan::parse(&platform.read("layers/plan.toml")).unwrap();
    let entry = &plan.entries[0];
    assert_eq!(entry.providers[0].buildpack.to_string(), "acme/a@1");
    assert_eq!((entry.requires[0].name.as_str(), entry.requires[0].metadata.as_str()), ("x", "n = 1\n"));
    // Nothing else is left behind.
    let left: Vec<_> = std::fs::read_dir(&platform.inputs.layers)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !["group.toml", "plan.toml"].contains(&name.as_str()))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

/// DET-10, API-05, ORD-10, CLI-14
#[test]
fn det_10_and_cli_14_exit_codes() {
    let mut platform = Platform::new();
    platform.buildpack("pass", "", "");
    platform.buildpack("fail", "", "exit 100");
    platform.buildpack("err", "", "exit 3");
    platform.buildpack("killed", "", "kill -9 $$");
    platform.buildpack("broken-plan", "", "echo = > $2");
    platform.buildpack("broken-plan-fail", "", "echo = > $2; exit 100");
    platform.buildpack("old", "", "");
    platform.write(
        "buildpacks/old/1/buildpack.toml",
        "api = \"0.1\"\n[buildpack]\nid = \"old\"\nversion = \"1\"\n",
    );
    let composite = |id: &str, member: &str| {
        let toml = format!(
            "api = \"0.10\"\n[buildpack]\nid = \"{id}\"\nversion = \"1\"\n[[order]]\n[[order.group]]\n\
             id = \"{member}\"\nversion = \"1\"\n"
        );
        platform.write(&format!("buildpacks/{id}/1/buildpack.toml"), &toml);
    };
    composite("missing-member", "gone");
    composite("old-member", "old");
    composite("cycle", "cycle");
    std::fs::create_dir_all(platform.temp.path().join("buildpacks/no-detect/1")).unwrap();
    platform.write(
        "buildpacks/no-detect/1/buildpack.toml",
        "api = \"0.10\"\n[buildpack]\nid = \"no-detect\"\nversion = \"1\"\n",
    );
    for (groups, code) in [
        (&["pass"][..], 0),
        (&["fail", "fail"], 20),
        // DET-04: what a failing one wrote is not read.
        (&["broken-plan-fail"], 20),
        (&["fail", "err"], 21),
        (&["err", "fail"], 21),
        (&["killed"], 21),
        (&["broken-plan"], 21),
        (&["no-detect"], 21),
        (&["no-detect? pass"], 0),
        (&["err? pass"], 0),
        (&["gone"], 1),
        (&["pass", "gone"], 1),
        (&["missing-member"], 22),
        (&["pass", "missing-member"], 0),
        (&["cycle"], 22),
        (&["pass", "old"], 12),
        (&["pass", "old-member"], 12),
        (&["pass", ".gone"], 1),
        (&[], 20),
    ] {
        platform.order(groups);
        assert_eq!(platform.code(), code, "{groups:?}");
    }
    platform.write("order.toml", "order = 1");
    assert_eq!(platform.code(), 1);
}

#[test]
fn api_05_nothing_is_run_when_an_api_is_not_supported() {
    let mut platform = Platform::new();
    platform.buildpack("a", "", "echo run >> ran");
    platform.buildpack("old", "", "");
    platform.write(
        "buildpacks/old/1/buildpack.toml",
        "api = \"0.13\"\n[buildpack]\nid = \"old\"\nversion = \"1\"\n",
    );
    platform.order(&["a", "old"]);
    assert_eq!(platform.code(), 12);
    assert!(!platform.exists("app/ran") && !platform.exists("layers/group.toml"));
}

#[test]
fn det_06_a_counter_sees_one_run() {
    let mut platform = Platform::new();
    platform.buildpack("a", "", &format!("echo run >> {}/count", platform.temp.path().display()));
    platform.buildpack("b", "", "exit 100");
    platform.order(&["a b", "b a", "a"]);
    assert_eq!(platform.group(), "a");
    assert_eq!(platform.read("count"), "run\n");
}

#[test]
fn ord_15_the_order_is_given_or_in_the_layers_or_in_the_image() {
    let mut platform = Platform::new();
    let of_image = PathBuf::from("/image/order.toml");
    platform.inputs.order = None;
    assert_eq!(order_path(&platform.inputs, &of_image), of_image);
    platform.write("layers/order.toml", "");
    assert_eq!(order_path(&platform.inputs, &of_image), platform.inputs.layers.join("order.toml"));
    platform.inputs.order = Some(PathBuf::from("/given.toml"));
    assert_eq!(order_path(&platform.inputs, &of_image), PathBuf::from("/given.toml"));
    assert_eq!(platform.code(), 1);
}

/// ORD-12, ORD-14, ORD-15
#[test]
fn ord_12_system_buildpacks_stand_around_the_group_from_platform_api_0_15_on() {
    let mut platform = Platform::new();
    for id in ["a", "pre", "post"] {
        platform.buildpack(id, "", "");
    }
    platform.buildpack("optional", "", "exit 100");
    platform.order(&["a"]);
    let entry = |place: &str, id: &str, more: &str| {
        format!("[[system.{place}.buildpacks]]\nid = \"{id}\"\nversion = \"1\"\n{more}")
    };
    let text = entry("pre", "pre", "")
        + &entry("post", "post", "")
        + &entry("post", "optional", "optional = true\n");
    platform.write("system.toml", &text);
    assert_eq!(platform.group(), "pre a post");
    platform.api(14);
    assert_eq!(platform.group(), "a");
    platform.api(15);
    platform.write("system.toml", "system = 1");
    assert_eq!(platform.code(), 1);
}

#[test]
fn det_11_what_members_print_is_told_by_members_once_detection_is_over() {
    let mut platform = Platform::new();
    platform.buildpack("a", "", "echo out; echo err >&2; echo out again");
    platform.buildpack("b", "", "echo no; exit 100");
    platform.buildpack("c", "", "echo oh; exit 1");
    let told = |platform: &Platform| -> Vec<String> {
        let shown = |event: &Event| match event {
            Event::DetectOutput { buildpack, lines, prominent } => {
                Some(format!("{} {} {prominent}", buildpack.id, lines.join(",")))
            }
            Event::Output { .. } => panic!("told twice"),
            Event::GroupChosen { buildpacks, considered } => {
                Some(format!("{} of {considered}", buildpacks.len()))
            }
            _ => None,
        };
        platform.events.iter().filter_map(shown).collect()
    };
    platform.order(&["a b? c?"]);
    platform.run().unwrap();
    assert_eq!(told(&platform), ["a out,err,out again false", "b no false", "c oh true", "1 of 3"]);
    platform.order(&["a b c?"]);
    platform.run().unwrap_err();
    assert_eq!(told(&platform), ["a out,err,out again true", "b no true", "c oh true"]);
}

/// ENV-28: at detect and generate; those of build are tested with the builder.
#[test]
fn env_28_directories_are_absolute() {
    let mut platform = Platform::new();
    let says = "env | grep ^CNB_ > $CNB_PLATFORM_DIR/said-$1-by";
    let says = |who: &str| format!("#!/bin/bash\n{}\n", says.replace("$1-by", who));
    platform.buildpack("acme/a", "", &says("buildpack"));
    platform.extension("acme/x", &[("bin/detect", &says("detect")), ("bin/generate", &says("generate"))]);
    platform.order(&["acme/a", ".acme/x"]);
    platform.run().unwrap();
    for (who, variables) in [
        ("buildpack", &["CNB_BUILDPACK_DIR", "CNB_BUILD_PLAN_PATH", "CNB_PLATFORM_DIR"][..]),
        ("detect", &["CNB_EXTENSION_DIR", "CNB_BUILD_PLAN_PATH", "CNB_PLATFORM_DIR"]),
        ("generate", &["CNB_EXTENSION_DIR", "CNB_BP_PLAN_PATH", "CNB_PLATFORM_DIR", "CNB_OUTPUT_DIR"]),
    ] {
        let said = platform.read(&format!("platform/said-{who}"));
        for variable in variables {
            let value = said.lines().find_map(|line| line.strip_prefix(&format!("{variable}=")));
            assert!(value.is_some_and(|value| value.starts_with('/')), "{who} {variable}: {said}");
        }
        let directories = said.lines().filter(|line| line.contains("_DIR=") || line.contains("_PATH="));
        assert_eq!(directories.count(), variables.len(), "{who}: {said}");
    }
}

/// DET-17, CLI-12
#[test]
fn det_17_credentials_do_not_reach_detect() {
    let mut platform = Platform::new();
    platform.buildpack("a", "", &format!("env > {}/seen", platform.temp.path().display()));
    platform.order(&["a"]);
    platform.run().unwrap();
    let seen = platform.read("seen");
    assert!(!seen.contains("CANARY") && seen.contains("CNB_TARGET_OS=linux\n"), "{seen}");
}

#[test]
fn ana_10_without_analyzed_toml_there_is_a_warning_and_a_malformed_one_is_an_error() {
    let mut platform = Platform::new();
    platform.buildpack("a", "", "");
    platform.order(&["a"]);
    platform.run().unwrap();
    assert!(platform.warnings()[0].contains("analyzed.toml"), "{:?}", platform.warnings());
    platform.write("layers/analyzed.toml", "image = 1");
    assert_eq!(platform.code(), 1);
    platform.write("layers/analyzed.toml", "");
    platform.run().unwrap();
    assert!(platform.warnings().is_empty());
}

#[test]
fn det_14_the_target_of_the_run_image_decides() {
    let mut platform = Platform::new();
    platform.buildpack("other", "[[targets]]\nos = \"linux\"\narch = \"s390x\"\n", "");
    platform.buildpack("any", "", "");
    platform.order(&["other any", "other? any"]);
    assert_eq!(platform.group(), "any");
    platform.write("layers/analyzed.toml", "[run-image.target]\nos = \"linux\"\narch = \"s390x\"\n");
    assert_eq!(platform.group(), "other any");
}

// Image extensions.

const BUILD: &str = "ARG base_image\nFROM ${base_image}\nRUN true\n";

/// EXT-02, EXT-07, EXT-03, UNM-06, EXT-10
#[test]
fn ext_02_and_07_what_an_extension_generates_lies_in_its_directory() {
    let mut platform = Platform::new();
    platform.buildpack("a", "", "printf '[[requires]]\\nname = \"curl\"\\n' > $2");
    let generate = format!(
        "#!/bin/bash\nset -e\ntest \"$PWD\" = {}\nenv > \"$1/../env\"\ncp \"$3\" \"$1/../given\"\n\
         printf '{}' > \"$1/build.Dockerfile\"\necho made it\n",
        platform.inputs.app.display(),
        BUILD.replace('\n', "\\n")
    );
    let detect = "#!/bin/bash\nprintf '[[provides]]\\nname = \"curl\"\\n' > $2\n";
    platform.extension("acme/curl", &[("bin/detect", detect), ("bin/generate", &generate)]);
    platform.order(&["a", ".acme/curl"]);
    assert_eq!(platform.group(), ".acme/curl a");
    assert_eq!(platform.read("layers/generated/acme_curl/build.Dockerfile"), BUILD);
    // EXT-03, UNM-06: it satisfies what it was given, and nobody else gets it.
    let given: toml::Table = platform.read("layers/generated/given").parse().unwrap();
    assert_eq!(given, "[[entries]]\nname = \"curl\"\n".parse().unwrap());
    assert_eq!(platform.read("layers/plan.toml"), "");
    // EXT-10
    assert!(Analyzed::parse(&platform.read("layers/analyzed.toml")).unwrap().extend_build_image);
    let seen = platform.read("layers/generated/env");
    let root = platform.temp.path().display();
    for line in [
        format!("CNB_EXTENSION_DIR={root}/extensions/acme_curl/1"),
        format!("CNB_OUTPUT_DIR={root}/layers/generated/acme_curl"),
        format!("CNB_PLATFORM_DIR={root}/platform"),
        "CNB_TARGET_OS=linux".to_owned(),
    ] {
        assert!(seen.lines().any(|seen| seen == line), "{line} in\n{seen}");
    }
    for absent in ["CNB_BUILDPACK_DIR", "CNB_EXEC_ENV", "CANARY", "CNB_BUILD_PLAN_PATH"] {
        assert!(!seen.contains(absent), "{absent} in\n{seen}");
    }
    assert!(seen.contains("\nCNB_BP_PLAN_PATH=/") || seen.starts_with("CNB_BP_PLAN_PATH=/"), "{seen}");
    assert!(
        platform.events.iter().any(|event| matches!(event, Event::Output { line, .. } if line == "made it"))
    );
}

#[test]
fn ext_07_before_platform_api_0_13_directories_are_by_image() {
    let mut platform = Platform::new();
    platform.buildpack("a", "", "");
    let config = "[[build.args]]\nname = \"x\"\nvalue = \"1\"\n";
    platform.extension(
        "acme/curl",
        &[
            ("generate/build.Dockerfile", BUILD),
            ("generate/run.Dockerfile", "FROM b\n"),
            ("generate/extend-config.toml", config),
        ],
    );
    platform.order(&["a", ".acme/curl"]);
    platform.api(12);
    // CLI-10: experimental before 0.13.
    assert_eq!(platform.code(), 1);
    platform.environment.push(("CNB_EXPERIMENTAL_MODE".into(), "error".into()));
    assert_eq!(platform.code(), 1);
    platform.environment.last_mut().unwrap().1 = "warn".into();
    platform.run().unwrap();
    assert_eq!(platform.read("layers/generated/build/acme_curl/Dockerfile"), BUILD);
    assert_eq!(platform.read("layers/generated/run/acme_curl/Dockerfile"), "FROM b\n");
    assert_eq!(platform.read("layers/generated/build/acme_curl/extend-config.toml"), config);
    assert!(!platform.exists("layers/generated/acme_curl"));
    let files = crate::phase::generate::GeneratedFiles::new(&platform.inputs.generated, platform.inputs.api);
    let read = files.read(&"acme/curl".parse().unwrap(), crate::cnb::dockerfile::DockerfileKind::Run);
    assert_eq!(read.unwrap().unwrap().text, "FROM b\n");
}

/// A platform with one buildpack and three extensions that have these run Dockerfiles.
fn with_run_files(files: [&str; 3]) -> Platform {
    let platform = Platform::new();
    platform.buildpack("a", "", "");
    for (id, text) in ["x", "y", "z"].into_iter().zip(files) {
        let files: &[(&str, &str)] = if text.is_empty() { &[] } else { &[("generate/run.Dockerfile", text)] };
        platform.extension(id, files);
    }
    platform.order(&["a", ".x y z"]);
    platform.write(
        "layers/analyzed.toml",
        "[run-image]\nreference = \"old@sha256:aa\"\nimage = \"old\"\n[run-image.target]\nos = \"linux\"\narch = \"amd64\"\n",
    );
    platform.write("run.toml", "[[images]]\nimage = \"listed\"\n");
    platform
}

/// `image reference extend target` of the run image.
fn run_image(platform: &mut Platform) -> String {
    platform.run().unwrap();
    let run_image = Analyzed::parse(&platform.read("layers/analyzed.toml")).unwrap().run_image.unwrap();
    let (reference, target) = (run_image.reference, run_image.target.is_some());
    format!("{} {reference} {} {target}", run_image.image, run_image.extend)
}

#[test]
fn ext_06_the_last_dockerfile_with_another_base_sets_the_run_image() {
    let extend = "ARG base_image\nFROM ${base_image}\nRUN x\n";
    let mut platform = with_run_files([extend, "FROM listed\n", ""]);
    assert_eq!(run_image(&mut platform), "listed  false false");
    // It is before the switch: it has no effect.
    assert!(platform.exists("layers/generated/x/run.Dockerfile.ignore"));
    assert!(!platform.exists("layers/generated/x/run.Dockerfile"));
    assert!(platform.exists("layers/generated/y/run.Dockerfile"));
    assert!(platform.warnings().is_empty(), "{:?}", platform.warnings());

    let mut platform = with_run_files(["FROM one\n", "FROM listed\n", extend]);
    assert_eq!(run_image(&mut platform), "listed  true false");
    assert!(!platform.exists("layers/generated/z/run.Dockerfile.ignore"));

    let mut platform = with_run_files([extend, "", ""]);
    assert_eq!(run_image(&mut platform), "old old@sha256:aa true true");
    let mut platform = with_run_files(["FROM strange\n", "", ""]);
    assert_eq!(run_image(&mut platform), "strange  false false");
    assert!(platform.warnings()[0].contains("`strange`, which the platform does not list"));
    // The one there is already.
    let mut platform = with_run_files(["FROM old\n", "", ""]);
    assert_eq!(run_image(&mut platform), "old old@sha256:aa false true");
    // QRK-31: what the extension itself has is not touched.
    assert!(platform.exists("extensions/x/1/generate/run.Dockerfile"));
}

#[test]
fn ext_06_before_platform_api_0_12_the_run_image_has_a_reference_only() {
    let mut platform = with_run_files(["FROM other\n", "", ""]);
    platform.api(11);
    platform.environment.push(("CNB_EXPERIMENTAL_MODE".into(), "quiet".into()));
    assert_eq!(run_image(&mut platform), " other false false");
}

/// EXT-02, EXT-04, EXT-05, CLI-14
#[test]
fn ext_02_exit_codes_of_generating() {
    for (file, text, code) in [
        ("bin/generate", "#!/bin/bash\nexit 1\n", 91),
        ("bin/generate", "#!/bin/bash\nkill -9 $$\n", 91),
        ("generate/build.Dockerfile", "FROM debian\n", 92),
        ("generate/run.Dockerfile", "FROM a\nFROM b\n", 92),
        ("generate/extend-config.toml", "[[run.args]]\nname = \"user_id\"\n", 92),
        ("generate/run.Dockerfile", "FROM a\nEXPOSE 80\n", 0),
    ] {
        let mut platform = with_run_files(["", "", ""]);
        platform.extension("x", &[(file, text)]);
        assert_eq!(platform.code(), code, "{text}");
        let warned =
            platform.warnings().iter().any(|text| text.contains("`EXPOSE` in line 2 is not recommended"));
        assert_eq!(warned, code == 0, "{:?}", platform.warnings());
    }
}

#[test]
fn ext_05_contexts_for_both_images_and_for_one_exclude_each_other() {
    let mut platform = with_run_files(["", "", ""]);
    platform.extension("x", &[("generate/context/file", "f"), ("generate/run.Dockerfile", "FROM listed\n")]);
    platform.run().unwrap();
    assert_eq!(platform.read("layers/generated/x/context/file"), "f");
    platform.extension("x", &[("generate/context.run/file", "f")]);
    let error = platform.run().unwrap_err();
    let DetectorError::Generate(error) = error else { panic!("{error:?}") };
    assert_eq!(error.id(), "extension.bad_output");
    assert!(error.to_string().contains("`context.run`"), "{error}");
}

#[test]
fn what_was_generated_before_is_not_taken_for_an_answer() {
    let mut platform = with_run_files(["", "", ""]);
    platform.write("layers/generated/x/run.Dockerfile", "FROM evil\n");
    platform.extension("x", &[("bin/generate", "#!/bin/bash\n")]);
    assert_eq!(run_image(&mut platform), "old old@sha256:aa false true");
}

#[test]
fn a_dockerfile_behind_a_link_is_not_read() {
    let mut platform = with_run_files(["", "", ""]);
    platform.write("secret", "FROM secret\n");
    let link = "#!/bin/bash\nln -s ../../../secret $1/run.Dockerfile\n";
    platform.extension("x", &[("bin/generate", link)]);
    assert_eq!(platform.code(), 92);
}

/// EXT-11, CRE-02
#[test]
fn ext_11_and_cre_02_the_creator_fails_when_an_extension_takes_part() {
    let mut platform = with_run_files(["", "", ""]);
    let error = platform.run_with(Extensions::Refuse).unwrap_err();
    assert_eq!(error.to_string(), "image extension `x@1` takes part, and the creator runs no extensions");
    assert_eq!(ProgramError::from(error).code(), 22);
    assert!(!platform.exists("layers/generated"));
    platform.order(&["a"]);
    platform.run_with(Extensions::Refuse).unwrap();
}
