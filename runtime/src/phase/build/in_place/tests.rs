//! A component that is a function here, and a classic buildpack after it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::PathBuf;

use super::*;
use crate::cancel::Cancel;
use crate::catalog::{Buildpack, BuildpackKind};
use crate::cnb::build_plan::BuildPlan;
use crate::cnb::buildpack_toml::BuildpackDescriptor;
use crate::cnb::id::ExecEnv;
use crate::cnb::launch::{Label, Process, Slice};
use crate::cnb::layer::{EnvironmentOperation, EnvironmentScope};
use crate::cnb::sbom::SbomFormat;
use crate::cnb::target::Target;
use crate::event::Event;
use crate::executor::by_kind::ByKind;
use crate::executor::process::ProcessExecutor;
use crate::executor::{
    AppLink, BuildHost, BuildInputs, DetectInputs, DetectOutputs, Executor, GuestFailure, LayerContents,
    LogSink, OpenedLayer, StoreOutput,
};
use crate::oci::encoder::Encoding;
use crate::phase::build::{BuildPhaseRequest, build};
use crate::phase::values::{Built, Restored};
use crate::policy::Policy;
use crate::sources::Sources;
use crate::workspace::{Places, Surroundings, Workspace};

type Script<'a> = &'a mut dyn FnMut(&BuildInputs, &mut dyn BuildHost) -> BuildOutputs;

struct Component<'a>(Script<'a>);

impl Executor for Component<'_> {
    fn detect(
        &mut self,
        _: &[DetectInputs],
        _: &mut dyn LogSink,
    ) -> Vec<Result<DetectOutputs, GuestFailure>> {
        Vec::new()
    }

    fn build(&mut self, call: &BuildInputs, host: &mut dyn BuildHost) -> Result<BuildOutputs, GuestFailure> {
        Ok((self.0)(call, host))
    }
}

struct Site {
    temp: tempfile::TempDir,
    builds: u32,
}

const TYPES: LayerTypes = LayerTypes { launch: true, build: true, cache: true };

impl Site {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        for name in ["app", "layers", "platform", "classic/bin"] {
            std::fs::create_dir_all(temp.path().join(name)).unwrap();
        }
        let program = temp.path().join("classic/bin/build");
        std::fs::write(
            &program,
            "#!/bin/bash\nset -e\nprintf '%s\\n' \"$FOO\" \"$PATH\" > ../seen\ncp $3 ../plan\n",
        )
        .unwrap();
        std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { temp, builds: 0 }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn buildpack(&self, id: &str, kind: BuildpackKind) -> Buildpack {
        let text = format!("api = \"0.10\"\n[buildpack]\nid = \"{id}\"\nversion = \"1.0.0\"\n");
        let descriptor = BuildpackDescriptor::parse(&text).unwrap();
        Buildpack {
            reference: descriptor.reference.clone(),
            descriptor,
            directory: self.path("classic"),
            kind,
        }
    }

    fn build(&mut self, script: Script<'_>) -> Built {
        self.builds += 1;
        let work = self.path("layers").join(format!("~{}", self.builds));
        std::fs::create_dir(&work).unwrap();
        let text = |name: &str| self.path(name).to_str().unwrap().to_owned();
        let places = Places {
            app: text("app"),
            layers: text("layers"),
            platform: text("platform"),
            buildpacks: text("buildpacks"),
        };
        let inherited = [("PATH".to_owned(), "/usr/bin:/bin".into())].into();
        let surroundings = Surroundings { inherited, ..Surroundings::default() };
        let mut workspace = Workspace::in_place(&work, places, surroundings).unwrap();
        let component = BuildpackKind::Component { path: "/x".into(), digest: "sha256:0".into() };
        let group = [self.buildpack("acme/w", component), self.buildpack("acme/c", BuildpackKind::Classic)];
        let plan = "[[entries]]\n[[entries.providers]]\nid = \"acme/w\"\nversion = \"1.0.0\"\n\
                    [[entries.providers]]\nid = \"acme/c\"\nversion = \"1.0.0\"\n[[entries.requires]]\nname = \"a\"\n";
        let policy = Policy::default();
        let request = BuildPhaseRequest {
            policy: &policy,
            limits: &policy.limits,
            target: &Target { os: "linux".into(), arch: "amd64".into(), variant: None, distro: None },
            exec_env: &ExecEnv::default(),
            user_env: &BTreeMap::new(),
            sources: &Sources::default(),
            encoding: Encoding::default(),
            cancel: &Cancel::default(),
        };
        let outcome = build(
            &request,
            &group.iter().collect::<Vec<_>>(),
            &BuildPlan::parse(plan).unwrap(),
            Restored::default(),
            &mut workspace,
            &mut ByKind { components: &mut Component(script), executables: &mut ProcessExecutor::default() },
            &mut |_: Event| {},
        );
        let built = outcome.unwrap().built;
        std::fs::remove_dir_all(&work).unwrap();
        built
    }

    /// What the restorer leaves of a cached layer: metadata without types, and contents.
    fn restore(&self, name: &str) {
        let file = self.path("layers/acme_w").join(format!("{name}.toml"));
        let mut table: Table = std::fs::read_to_string(&file).unwrap().parse().unwrap();
        assert!(table.remove("types").is_some());
        std::fs::write(file, table.to_string()).unwrap();
    }

    fn names(&self, directory: &str) -> BTreeSet<String> {
        let entries = std::fs::read_dir(self.path(directory)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn change(operation: EnvironmentOperation, value: &str) -> EnvironmentChange {
    EnvironmentChange {
        name: "FOO".into(),
        scope: EnvironmentScope::All,
        operation,
        value: value.into(),
        delimiter: "-".into(),
    }
}

fn layer(contents: LayerContents) -> LayerOutput {
    LayerOutput {
        name: "deps".parse().unwrap(),
        types: TYPES,
        cache_key: "k1".into(),
        contents,
        metadata: "n = 1\n".into(),
        environment: vec![change(EnvironmentOperation::Override, "of the component")],
        sboms: vec![Sbom { format: SbomFormat::CycloneDx, content: b"{}".to_vec() }],
    }
}

fn open(host: &mut dyn BuildHost, key: &str) -> OpenedLayer {
    host.open_layer(&"deps".parse().unwrap(), TYPES, key).unwrap()
}

fn first_build(site: &mut Site) -> Built {
    site.build(&mut |_, host| {
        let OpenedLayer::Empty { directory } = open(host, "k1") else { panic!("nothing was restored") };
        std::fs::create_dir(directory.join("bin")).unwrap();
        std::fs::write(directory.join("bin/tool"), "first").unwrap();
        BuildOutputs {
            layers: vec![layer(LayerContents::Written)],
            unmet: vec!["a".into()],
            store: StoreOutput::Replaced("s = 1\n".into()),
            launch_sboms: vec![Sbom { format: SbomFormat::Spdx, content: b"spdx".to_vec() }],
            app_links: vec![AppLink {
                path: "sub/modules".into(),
                layer: "deps".parse().unwrap(),
                target: "bin".into(),
            }],
            ..BuildOutputs::default()
        }
    })
}

/// WSM-01, WSM-04: everything is where a classic buildpack would have left it, and flows to one.
#[test]
fn wsm_01_and_04_records_of_a_component_become_files() {
    let mut site = Site::new();
    first_build(&mut site);
    let expected =
        ["build.toml", "deps", "deps.sbom.cdx.json", "deps.toml", "launch.sbom.spdx.json", "store.toml"];
    assert_eq!(site.names("layers/acme_w"), expected.map(str::to_owned).into());
    assert_eq!(site.text("layers/acme_w/deps/bin/tool"), "first");
    assert_eq!(site.text("layers/acme_w/deps/env/FOO.override"), "of the component");
    assert_eq!(site.text("layers/acme_w/build.toml"), "[[unmet]]\n  name = \"a\"\n");
    assert_eq!(site.text("layers/acme_w/store.toml"), "[metadata]\ns = 1\n");
    let file = LayerToml::parse(&site.text("layers/acme_w/deps.toml"), API).unwrap();
    assert_eq!(file.types, TYPES);
    let directory = site.path("layers/acme_w/deps/bin");
    assert_eq!(site.text("seen"), format!("of the component\n{}:/usr/bin:/bin\n", directory.display()));
    assert_eq!(site.text("plan"), "[[entries]]\n  name = \"a\"\n");
    assert_eq!(std::fs::read_link(site.path("app/sub/modules")).unwrap(), directory);
}

/// WSM-03, WSM-04, WSM-06: what a component gives back is what the same things would be if a
/// classic buildpack had written them, and is read by the same code.
#[test]
fn wsm_03_all_a_classic_buildpack_can_write_a_component_can_give_back() {
    let mut site = Site::new();
    let scopes = [
        EnvironmentScope::All,
        EnvironmentScope::Build,
        EnvironmentScope::Launch,
        EnvironmentScope::Process("web".parse().unwrap()),
    ];
    let operations = [
        EnvironmentOperation::Append,
        EnvironmentOperation::Default,
        EnvironmentOperation::Override,
        EnvironmentOperation::Prepend,
    ];
    let mut environment = Vec::new();
    for scope in &scopes {
        environment.extend(operations.map(|operation| EnvironmentChange {
            name: format!("V{operation:?}"),
            scope: scope.clone(),
            operation,
            value: format!("{scope:?}\n").into(),
            delimiter: if joins(operation) { ":" } else { "" }.into(),
        }));
    }
    environment.sort();
    let sbom = |format| Sbom { format, content: format!("{format:?}").into_bytes() };
    let process = Process {
        process_type: "web".parse().unwrap(),
        command: vec!["run".into(), "a b".into()],
        args: Some(vec!["-v".into()]),
        direct: true,
        default: true,
        working_directory: Some("sub".into()),
        exec_envs: vec!["test".parse().unwrap()],
    };
    let outputs = BuildOutputs {
        layers: vec![LayerOutput {
            environment: environment.clone(),
            sboms: SbomFormat::ALL.map(sbom).to_vec(),
            ..layer(LayerContents::Written)
        }],
        processes: vec![process],
        slices: vec![Slice { paths: vec!["a/*".into()] }, Slice { paths: vec!["b".into()] }],
        labels: vec![Label { key: "k".into(), value: "v".into() }],
        unmet: vec!["a".into()],
        store: StoreOutput::Replaced("s = 1\n".into()),
        launch_sboms: SbomFormat::ALL.map(sbom).to_vec(),
        build_sboms: SbomFormat::ALL.map(sbom).to_vec(),
        ..BuildOutputs::default()
    };
    let returned = outputs.clone();
    site.build(&mut |_, host| {
        let OpenedLayer::Empty { directory } = open(host, "k1") else { panic!("nothing was restored") };
        // Programs that run before the app, and scripts of its shell, are files of the layer.
        for (name, mode) in [("exec.d/first", 0o755), ("exec.d/web/second", 0o755), ("profile.d/p.sh", 0o644)]
        {
            let file = directory.join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(&file, name).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        returned.clone()
    });

    let directory = site.path("layers/acme_w");
    let media_types: Vec<String> =
        SbomFormat::ALL.iter().map(|format| format.media_type().to_owned()).collect();
    let rules = layers::Rules { api: API, sbom_formats: &media_types, sbom_bytes: 1 << 20 };
    let mut read = layers::read(&directory, rules).unwrap();
    let sboms = layers::read_sboms(&directory, rules, &mut read.layers).unwrap();
    let [found] = &read.layers[..] else { panic!("{:?}", read.layers) };
    let sent = &outputs.layers[0];
    assert_eq!((found.name.as_str(), found.types, &found.sboms), ("deps", sent.types, &sent.sboms));
    assert_eq!(comparable(&found.environment), comparable(&environment));
    assert_eq!(found.metadata.parse::<Table>().unwrap()["n"].as_integer(), Some(1));
    assert_eq!((sboms.launch, sboms.build), (outputs.launch_sboms, outputs.build_sboms));
    let launch = launch_toml::LaunchToml::parse(&site.text("layers/acme_w/launch.toml"), API).unwrap();
    assert_eq!(launch.processes, outputs.processes);
    assert_eq!((launch.slices, launch.labels), (outputs.slices, outputs.labels));
    assert_eq!(build_toml::BuildToml::parse(&site.text("layers/acme_w/build.toml")).unwrap().unmet, ["a"]);
    assert_eq!(store_toml::parse(&site.text("layers/acme_w/store.toml")).unwrap(), "s = 1\n");

    // Modes of what the host writes are the host's.
    let mode =
        |name: &str| directory.join("deps").join(name).metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!([mode("exec.d/web/second"), mode("profile.d/p.sh")], [0o755, 0o644]);
    assert_eq!([mode("env"), mode("env.launch/web"), mode("env/VAppend.append")], [0o755, 0o755, 0o644]);
}

#[test]
fn what_was_restored_is_used_when_the_key_fits() {
    let mut site = Site::new();
    first_build(&mut site);
    site.restore("deps");
    let built = site.build(&mut |inputs, host| {
        // Nobody but us sees what we noted.
        assert_eq!(inputs.restored[0].metadata, "n = 1\n");
        assert_eq!((inputs.restored[0].types, inputs.restored[0].cache_key.as_str()), (TYPES, "k1"));
        assert_eq!(inputs.store.as_deref(), Some("s = 1\n"));
        let OpenedLayer::Restored { tree } = open(host, "k1") else { panic!("it was restored") };
        assert_eq!(std::fs::read_to_string(tree.join("bin/tool")).unwrap(), "first");
        BuildOutputs { layers: vec![layer(LayerContents::Restored)], ..BuildOutputs::default() }
    });
    assert_eq!(site.text("layers/acme_w/deps/bin/tool"), "first");
    assert_eq!(site.text("layers/acme_w/store.toml"), "[metadata]\ns = 1\n");
    // Met this time.
    assert_eq!(site.text("plan"), "");
    assert_eq!(built.layers[0].metadata, "n = 1\n");

    site.restore("deps");
    site.build(&mut |_, host| {
        assert!(matches!(open(host, "k1"), OpenedLayer::Restored { .. }));
        let upper = host.update_layer(&"deps".parse().unwrap()).unwrap();
        std::fs::write(upper.join("more"), "second").unwrap();
        let contents = LayerContents::Updated { hidden: vec!["bin".into()] };
        BuildOutputs { layers: vec![layer(contents)], ..BuildOutputs::default() }
    });
    assert_eq!(site.names("layers/acme_w/deps"), ["env", "more"].map(str::to_owned).into());
}

#[test]
fn what_does_not_fit_is_gone() {
    let mut site = Site::new();
    first_build(&mut site);
    site.restore("deps");
    let directory = site.path("layers/acme_w");
    std::fs::write(directory.join("stranger.toml"), "[metadata]\na = 1\n").unwrap();
    std::fs::create_dir_all(directory.join("stranger/x")).unwrap();
    std::fs::write(directory.join("damaged.toml"), "=").unwrap();
    site.build(&mut |inputs, host| {
        assert_eq!(inputs.restored.len(), 1);
        assert!(matches!(open(host, "k2"), OpenedLayer::Empty { .. }));
        BuildOutputs { store: StoreOutput::Cleared, ..BuildOutputs::default() }
    });
    assert_eq!(site.names("layers/acme_w"), BTreeSet::new());
}

#[test]
fn links_into_layers_never_go_through_links_of_the_app() {
    let temp = tempfile::tempdir().unwrap();
    let (app, outside) = (temp.path().join("app"), temp.path().join("outside"));
    std::fs::create_dir_all(outside.join("modules")).unwrap();
    std::fs::create_dir_all(app.join("here/modules/old")).unwrap();
    symlink(&outside, app.join("sub")).unwrap();
    link(&app, "sub/modules", Path::new("/layers/x")).unwrap_err();
    assert!(outside.join("modules").is_dir());
    link(&app, "here/modules", Path::new("/layers/x")).unwrap();
    link(&app, "here/modules", Path::new("/layers/y")).unwrap();
    assert_eq!(std::fs::read_link(app.join("here/modules")).unwrap(), Path::new("/layers/y"));
}
