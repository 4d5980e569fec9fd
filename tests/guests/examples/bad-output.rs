//! Returns what the SDK would not: one wrong thing, chosen by `KIND`.
#![cfg(target_family = "wasm")]
#![expect(
    unsafe_code,
    clippy::print_stdout,
    clippy::same_length_and_capacity,
    reason = "generated bindings; a guest's log"
)]

use bindings::wapack::buildpack::layers;
use bindings::wapack::buildpack::types::{
    AppLink, BuildContext, BuildOutcome, DetectContext, DetectOutcome, EnvironmentChange,
    EnvironmentOperation, EnvironmentScope, Failure, Label, Layer, LayerTypes, Process, Sbom, SbomFormat,
    Slice,
};

mod bindings {
    wit_bindgen::generate!({ path: "../../wit", world: "buildpack" });
}

struct Guest;

fn layer(name: &str) -> Layer {
    Layer { name: name.into(), metadata: String::new(), environment: vec![], sboms: vec![] }
}

fn process(process_type: &str, command: &[&str], default: bool) -> Process {
    Process {
        process_type: process_type.into(),
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        args: vec![],
        default,
        working_directory: None,
        exec_envs: vec![],
    }
}

fn link(path: &str, layer: &str, target: &str) -> AppLink {
    AppLink { path: path.into(), layer: layer.into(), target: target.into() }
}

fn variable(name: &str, value: &str, process: &str) -> EnvironmentChange {
    EnvironmentChange {
        name: name.into(),
        scope: EnvironmentScope::Process(process.into()),
        operation: EnvironmentOperation::Override,
        value: value.into(),
        delimiter: String::new(),
    }
}

impl bindings::Guest for Guest {
    fn detect(_: DetectContext) -> Result<DetectOutcome, Failure> {
        Ok(DetectOutcome::Pass(vec![]))
    }

    fn build(context: BuildContext) -> Result<BuildOutcome, Failure> {
        let mut out = BuildOutcome {
            layers: vec![],
            processes: vec![],
            slices: vec![],
            labels: vec![],
            app_links: vec![],
            unmet: vec![],
            store: None,
            launch_sboms: vec![],
            build_sboms: vec![],
        };
        let kind = context.user_env.iter().find(|variable| variable.name == "KIND");
        // A layer that is fine, to hang wrong things on.
        let _ = layers::open("fine", LayerTypes::LAUNCH, "key");
        let mut fine = layer("fine");
        match kind.map_or("", |variable| variable.value.as_str()) {
            "layer-outside" => out.layers.push(layer("../x")),
            "layer-not-opened" => out.layers.push(layer("never")),
            "layer-twice" => out.layers.extend([fine, layer("fine")]),
            "layer-metadata" => out.layers.push(Layer { metadata: "not = [toml".into(), ..fine }),
            "env-name" => {
                fine.environment.push(variable("A=B", "x", "web"));
                out.layers.push(fine);
            }
            "env-name-path" => {
                fine.environment.push(variable("../../x", "x", "web"));
                out.layers.push(fine);
            }
            "env-value" => {
                fine.environment.push(variable("A", "nul \0", "web"));
                out.layers.push(fine);
            }
            "env-process" => {
                fine.environment.push(variable("A", "x", "../x"));
                out.layers.push(fine);
            }
            "process-type" => out.processes.push(process("we b/..", &["x"], false)),
            "process-empty" => out.processes.push(process("web", &[], false)),
            "process-nul" => out.processes.push(process("web", &["a\0b"], false)),
            "process-twice" => {
                out.processes.extend([process("web", &["a"], false), process("web", &["b"], false)]);
            }
            "two-defaults" => out.processes.extend([process("a", &["a"], true), process("b", &["b"], true)]),
            "link-path" => {
                out.app_links.push(link("../x", "fine", "x"));
                out.layers.push(fine);
            }
            "link-absolute" => {
                out.app_links.push(link("/etc/x", "fine", "x"));
                out.layers.push(fine);
            }
            "link-target" => {
                out.app_links.push(link("x", "fine", "../../x"));
                out.layers.push(fine);
            }
            "link-layer" => out.app_links.push(link("x", "never", "x")),
            "slice-outside" => out.slices.push(Slice { paths: vec!["../../etc/*".into()] }),
            "label-empty" => out.labels.push(Label { key: String::new(), value: "x".into() }),
            "unmet-unknown" => out.unmet.push("never asked for".into()),
            "store" => out.store = Some("= =".into()),
            "sbom" => {
                out.launch_sboms.push(Sbom { format: SbomFormat::Cyclonedx, content: "not json".into() });
            }
            other => println!("unknown kind `{other}`"),
        }
        Ok(out)
    }
}

bindings::export!(Guest with_types_in bindings);
