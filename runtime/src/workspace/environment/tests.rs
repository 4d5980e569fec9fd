use std::fs;
use std::path::PathBuf;

use super::*;
use crate::cnb::buildpack_toml::BuildpackDescriptor;
use crate::cnb::env::LayerRoots;
use crate::cnb::layer::EnvironmentOperation;
use crate::cnb::target::Distro;
use crate::grant::{Grant, Grants};
use crate::workspace::Places;

struct Bench {
    temp: tempfile::TempDir,
    host: Vec<(OsString, OsString)>,
    target: Target,
}

impl Bench {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        for directory in ["work", "platform/env", "build-config/env", "layers", "app"] {
            fs::create_dir_all(temp.path().join(directory)).unwrap();
        }
        let target = Target { os: "linux".into(), arch: "arm64".into(), variant: None, distro: None };
        Self { temp, host: vec![("PATH".into(), "/usr/bin".into())], target }
    }

    fn path(&self, name: &str) -> String {
        self.temp.path().join(name).to_str().unwrap().to_owned()
    }

    fn file(self, name: &str, text: impl AsRef<[u8]>) -> Self {
        fs::write(self.path(name), text).unwrap();
        self
    }

    fn workspace(&self) -> Workspace {
        let places = Places {
            app: self.path("app"),
            layers: self.path("layers"),
            platform: self.path("platform"),
            buildpacks: self.path("buildpacks"),
        };
        let (platform, config) = (PathBuf::from(&places.platform), self.path("build-config"));
        let surroundings = Surroundings::of_program(&self.host, &platform, config.as_ref()).unwrap();
        Workspace::in_place(self.path("work").as_ref(), places, surroundings).unwrap()
    }

    /// The environment of a classic buildpack, after `layers`.
    fn build(&self, descriptor: &str, layers: &[LayerEnvironment<'_>]) -> Environment {
        let workspace = self.workspace();
        let mut carried = workspace.before_layers();
        carried.add(layers);
        let buildpack = buildpack(descriptor, BuildpackKind::Classic);
        let mut environment = workspace.environment(&buildpack, &self.target, &ExecEnv::default(), &carried);
        workspace.add_build_variables(&buildpack, &mut environment);
        fs::remove_dir_all(self.path("work")).unwrap();
        fs::create_dir(self.path("work")).unwrap();
        environment
    }
}

fn buildpack(text: &str, kind: BuildpackKind) -> Buildpack {
    let text = format!("{text}\nid = \"acme/a\"\nversion = \"1.0.0\"\n");
    let descriptor = BuildpackDescriptor::parse(&text).unwrap();
    Buildpack { reference: descriptor.reference.clone(), descriptor, directory: "/cnb/a".into(), kind }
}

const NEWEST: &str = "api = \"0.12\"\n[buildpack]";

fn change(operation: EnvironmentOperation, name: &str, value: &str) -> EnvironmentChange {
    let name = name.to_owned();
    EnvironmentChange {
        name,
        scope: EnvironmentScope::All,
        operation,
        value: value.into(),
        delimiter: ":".into(),
    }
}

fn layer(changes: &[EnvironmentChange]) -> LayerEnvironment<'_> {
    let roots = LayerRoots { bin: true, ..LayerRoots::default() };
    LayerEnvironment { directory: "/layers/x/l".into(), roots, changes }
}

/// ENV-01, ENV-03, ENV-04, ENV-05
#[test]
fn env_01_only_the_listed_variables_are_passed_on() {
    let mut bench = Bench::new();
    let listed = [
        "CNB_STACK_ID",
        "HOSTNAME",
        "HOME",
        "HTTPS_PROXY",
        "https_proxy",
        "HTTP_PROXY",
        "http_proxy",
        "NO_PROXY",
        "no_proxy",
        "PATH",
        "LD_LIBRARY_PATH",
        "LIBRARY_PATH",
        "CPATH",
        "PKG_CONFIG_PATH",
    ];
    let others = [
        "USER",
        "CNB_PLATFORM_API",
        "CNB_REGISTRY_AUTH",
        "DOCKER_CONFIG",
        "SERVICE_BINDING_ROOT",
        "CNB_APP_DIR",
        "path",
        "BP_DEBUG",
    ];
    bench.host =
        listed.iter().chain(&others).map(|name| ((*name).into(), format!("of {name}").into())).collect();
    let environment = bench.build("api = \"0.2\"\n[buildpack]\nclear-env = true", &[]);
    let mut expected = listed;
    expected.sort_unstable();
    assert_eq!(environment.keys().collect::<Vec<_>>(), expected);
    assert!(environment.iter().all(|(name, value)| **value == *format!("of {name}")));
}

#[test]
fn env_01_and_02_the_steps_in_their_order_and_none_folded_into_the_next() {
    let bench = Bench::new()
        .file("platform/env/PATH", "/user")
        .file("platform/env/BP_X", "user")
        .file("build-config/env/PATH.append", "/operator")
        .file("build-config/env/PATH.delim", ":")
        .file("build-config/env/BP_X.override", "operator");
    let changes = [change(EnvironmentOperation::Override, "BP_X", "layer")];
    let environment = bench.build(NEWEST, &[layer(&changes)]);
    assert_eq!(environment["PATH"], "/user:/layers/x/l/bin:/usr/bin:/operator");
    assert_eq!(environment["BP_X"], "operator");

    let workspace = bench.workspace();
    let buildpack = buildpack(NEWEST, BuildpackKind::Classic);
    let mut carried = workspace.before_layers();
    let first = workspace.environment(&buildpack, &bench.target, &ExecEnv::default(), &carried);
    carried.add(&[]);
    let second = workspace.environment(&buildpack, &bench.target, &ExecEnv::default(), &carried);
    assert_eq!(first["PATH"], "/user:/usr/bin:/operator");
    assert_eq!(first, second);
}

/// ENV-06
#[test]
fn env_06_values_need_not_be_text() {
    let bench = Bench::new().file("platform/env/BYTES", b"\xff\xfe").file("platform/env/bytes", "other");
    let environment = bench.build(NEWEST, &[]);
    assert_eq!(environment["BYTES"].as_encoded_bytes(), b"\xff\xfe");
    assert_eq!(environment["bytes"], "other");
}

/// ENV-08, ENV-09
#[test]
fn env_08_and_09_what_the_user_sets() {
    let mut bench = Bench::new()
        .file("platform/env/FOO.append", "x\n")
        .file("platform/env/HOME", "/home/other")
        .file("platform/env/CPATH", "/user")
        .file("platform/env/LD_LIBRARY_PATH", "/user")
        .file("platform/env/PATH", "/user");
    bench.host.push(("HOME".into(), "/home/cnb".into()));
    bench.host.push(("LD_LIBRARY_PATH".into(), "".into()));
    let environment = bench.build(NEWEST, &[]);
    assert_eq!(environment["FOO.append"], "x\n");
    assert_eq!(environment["HOME"], "/home/other");
    assert_eq!(environment["CPATH"], "/user");
    assert_eq!(environment["LD_LIBRARY_PATH"], "/user");
    assert_eq!(environment["PATH"], "/user:/usr/bin");
}

#[test]
fn env_10_and_11_clear_env_is_for_the_user_and_not_for_the_operator() {
    let bench = Bench::new()
        .file("platform/env/BP_X", "user")
        .file("build-config/env/BP_X", "operator's default")
        .file("build-config/env/BP_Y", "operator's default");
    let environment = bench.build(&format!("{NEWEST}\nclear-env = true"), &[]);
    assert_eq!(environment["BP_X"], "operator's default");
    let environment = bench.build(NEWEST, &[]);
    assert_eq!(environment["BP_X"], "user");
    assert_eq!(environment["BP_Y"], "operator's default");
    assert_eq!(environment["CNB_PLATFORM_DIR"], *bench.path("platform"));
    assert!(PathBuf::from(bench.path("platform/env/BP_X")).exists());
}

/// ENV-27, API-21: and the table of section 4.4.
#[test]
fn env_27_and_api_21_variables_of_the_specification_by_api() {
    let mut bench = Bench::new();
    for name in ["CNB_BUILDPACK_DIR", "CNB_LAYERS_DIR", "CNB_EXEC_ENV", "CNB_TARGET_OS"] {
        bench = bench.file(&format!("platform/env/{name}"), "user");
        bench = bench.file(&format!("build-config/env/{name}.override"), "operator");
    }
    bench.target.variant = Some("v8".into());
    bench.target.distro = Some(Distro { name: "debian".into(), version: String::new() });
    let layers = bench.path("layers/acme_a");
    let platform = bench.path("platform");
    for minor in 2..=12 {
        let environment = bench.build(&format!("api = \"0.{minor}\"\n[buildpack]"), &[]);
        let expected = [
            (3, "CNB_BUILDPACK_DIR", Some("/cnb/a")),
            (8, "CNB_PLATFORM_DIR", Some(platform.as_str())),
            (8, "CNB_LAYERS_DIR", Some(&layers)),
            (10, "CNB_TARGET_OS", Some("linux")),
            (10, "CNB_TARGET_ARCH", Some("arm64")),
            (10, "CNB_TARGET_ARCH_VARIANT", Some("v8")),
            (10, "CNB_TARGET_DISTRO_NAME", Some("debian")),
            (10, "CNB_TARGET_DISTRO_VERSION", None),
            (12, "CNB_EXEC_ENV", Some("production")),
        ];
        for (since, name, value) in expected {
            let found = environment.get(name).map(|value| value.to_str().unwrap());
            let found = found.filter(|value| *value != "operator");
            assert_eq!(found, value.filter(|_| minor >= since), "{name} at 0.{minor}");
        }
    }
}

/// ENV-07: of our own there is nothing below it, for no kind of buildpack and no call.
#[test]
fn env_07_below_cnb_are_the_variables_of_the_specification_only() {
    let mut bench = Bench::new();
    bench.host.push(("CNB_STACK_ID".into(), "stack".into()));
    bench.host.push(("CNB_OTHER".into(), "x".into()));
    bench.target.variant = Some("v8".into());
    bench.target.distro = Some(Distro { name: "debian".into(), version: "12".into() });
    let of_specification = [
        "CNB_BUILDPACK_DIR",
        "CNB_EXEC_ENV",
        "CNB_LAYERS_DIR",
        "CNB_PLATFORM_DIR",
        "CNB_TARGET_ARCH",
        "CNB_TARGET_ARCH_VARIANT",
        "CNB_TARGET_DISTRO_NAME",
        "CNB_TARGET_DISTRO_VERSION",
        "CNB_TARGET_OS",
    ];
    let ours = |environment: Environment| -> Vec<String> {
        environment.into_keys().filter(|name| name.starts_with("CNB_")).collect()
    };
    let workspace = bench.workspace();
    for kind in [BuildpackKind::Classic, BuildpackKind::Component { path: "/x".into(), digest: "d".into() }] {
        let mut expected: Vec<&str> = of_specification.to_vec();
        if kind == BuildpackKind::Classic {
            expected.insert(7, "CNB_STACK_ID");
            expected.sort_unstable();
        }
        let buildpack = buildpack(NEWEST, kind);
        let carried = workspace.before_layers();
        let mut environment = workspace.environment(&buildpack, &bench.target, &ExecEnv::default(), &carried);
        workspace.add_build_variables(&buildpack, &mut environment);
        assert_eq!(ours(environment), expected);
    }
}

/// TGT-10: of what is not known, or known to be empty, there is no variable; system and
/// architecture are always there.
#[test]
fn tgt_10_buildpacks_are_told_what_is_known_of_the_target() {
    let mut bench = Bench::new();
    let targets = |bench: &Bench, minor: u64| -> Vec<String> {
        let environment = bench.build(&format!("api = \"0.{minor}\"\n[buildpack]"), &[]);
        let of_target = environment.into_iter().filter_map(|(name, value)| {
            let name = name.strip_prefix("CNB_TARGET_")?;
            Some(format!("{name}={}", value.to_str().unwrap()))
        });
        of_target.collect()
    };
    let always = ["ARCH=arm64", "OS=linux"];
    assert_eq!(targets(&bench, 9), [""; 0]);
    assert_eq!(targets(&bench, 10), always);
    bench.target.variant = Some(String::new());
    bench.target.distro = Some(Distro::default());
    assert_eq!(targets(&bench, 12), always);
    bench.target.variant = Some("v8".into());
    bench.target.distro = Some(Distro { name: "debian".into(), version: "12".into() });
    assert_eq!(
        targets(&bench, 10),
        ["ARCH=arm64", "ARCH_VARIANT=v8", "DISTRO_NAME=debian", "DISTRO_VERSION=12", "OS=linux"]
    );
}

/// WSM-07: the same, whichever version its descriptor names.
#[test]
fn wsm_07_a_component_has_the_environment_of_the_newest_api() {
    let bench = Bench::new();
    let workspace = bench.workspace();
    let component = || BuildpackKind::Component { path: "/x".into(), digest: "sha256:0".into() };
    let of = |minor: u64, kind: BuildpackKind| {
        let buildpack = buildpack(&format!("api = \"0.{minor}\"\n[buildpack]"), kind);
        let carried = workspace.before_layers();
        let mut environment = workspace.environment(&buildpack, &bench.target, &ExecEnv::default(), &carried);
        workspace.add_build_variables(&buildpack, &mut environment);
        environment
    };
    let newest = of(12, component());
    for minor in [2, 7, 9, 10] {
        assert_eq!(of(minor, component()), newest, "0.{minor}");
    }
    let names: Vec<&String> = newest.keys().collect();
    let mut classic = of(12, BuildpackKind::Classic);
    classic.remove("PATH");
    assert_eq!(names, classic.keys().collect::<Vec<_>>());
}

/// ENV-30; components have nothing of the host, whatever it sets.
#[test]
fn env_30_nothing_of_layers_at_detect_and_nothing_of_the_host_for_components() {
    let bench = Bench::new().file("platform/env/BP_X", "user").file("build-config/env/BP_Y", "operator");
    let workspace = bench.workspace();
    let component = BuildpackKind::Component { path: "/x".into(), digest: "sha256:0".into() };
    let names = |buildpack: &Buildpack, carried: &Carried| {
        let environment = workspace.environment(buildpack, &bench.target, &ExecEnv::default(), carried);
        environment.into_keys().filter(|name| !name.starts_with("CNB_")).collect::<Vec<_>>()
    };
    let before = workspace.before_layers();
    assert_eq!(names(&buildpack(NEWEST, BuildpackKind::Classic), &before), ["BP_X", "BP_Y", "PATH"]);
    assert_eq!(names(&buildpack(NEWEST, component.clone()), &before), ["BP_X", "BP_Y"]);
    let mut carried = before;
    carried.add(&[layer(&[])]);
    let environment =
        workspace.environment(&buildpack(NEWEST, component), &bench.target, &ExecEnv::default(), &carried);
    assert_eq!(environment["PATH"], "/layers/x/l/bin");
}

/// A platform's bindings are there for executables as ever, and for components that were granted them.
#[test]
fn components_see_the_platforms_bindings_only_when_granted() {
    let bench = Bench::new();
    let mut workspace = bench.workspace();
    let component = BuildpackKind::Component { path: PathBuf::new(), digest: String::new() };
    let buildpack = buildpack(NEWEST, component);
    let mut hidden = |grants: &[Grant]| {
        let grants = Grants(grants.iter().cloned().collect());
        let mounts = workspace.mounts(&buildpack, &grants, true).unwrap();
        let platform = workspace.places.platform.clone();
        mounts.into_iter().find(|mount| mount.guest_path == platform).unwrap().hidden
    };
    assert_eq!(hidden(&[]), ["bindings"]);
    assert_eq!(hidden(&[Grant::Bindings]), Vec::<String>::new());
}
