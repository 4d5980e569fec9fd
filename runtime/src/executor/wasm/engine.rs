//! One way to configure wasmtime, and what a component has to be to get in.
//!
//! Everything that is checked here is checked before any code of the component
//! runs: its start function included.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde::{Deserialize, Serialize};
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;
use wasmtime::{CodeBuilder, Config, Engine, Inlining, Strategy, WasmFeatures};

use crate::limits::Limits;

/// Interfaces of WASI that the linker offers; anything else is refused at load.
const WASI: [&str; 18] = [
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/random",
];
const WASI_RANDOM: [&str; 2] = ["wasi:random/insecure", "wasi:random/insecure-seed"];
const OURS: [&str; 4] = [
    "wapack:buildpack/downloads",
    "wapack:buildpack/files",
    "wapack:buildpack/layers",
    "wapack:buildpack/types",
];
/// The newest WASI we offer; a component may have been built against an older 0.2.
const WASI_VERSION: (u64, u64, u64) = (0, 2, 12);
/// The contract we offer.
const CONTRACT_VERSION: (u64, u64, u64) = (0, 1, 0);

/// The Wasm proposals a component may use: what Rust, Go, C and Python compile to.
const FEATURES: WasmFeatures = WasmFeatures::MUTABLE_GLOBAL
    .union(WasmFeatures::SATURATING_FLOAT_TO_INT)
    .union(WasmFeatures::SIGN_EXTENSION)
    .union(WasmFeatures::REFERENCE_TYPES)
    .union(WasmFeatures::CALL_INDIRECT_OVERLONG)
    .union(WasmFeatures::MULTI_VALUE)
    .union(WasmFeatures::BULK_MEMORY)
    .union(WasmFeatures::BULK_MEMORY_OPT)
    .union(WasmFeatures::SIMD)
    .union(WasmFeatures::FLOATS)
    .union(WasmFeatures::EXTENDED_CONST)
    .union(WasmFeatures::MULTI_MEMORY)
    .union(WasmFeatures::COMPONENT_MODEL);

/// The engine of this process.
///
/// # Errors
/// wasmtime's own, when the machine has none of what it needs.
pub(crate) fn new_engine(limits: &Limits) -> wasmtime::Result<Engine> {
    let stack = usize::try_from(limits.stack_bytes).unwrap_or(512 * 1024);
    let mut config = Config::new();
    // Off first, then what is listed: a new default of wasmtime must not reach guests.
    config.wasm_features(WasmFeatures::all(), false);
    config.wasm_features(FEATURES, true);
    config.strategy(Strategy::Cranelift);
    config.compiler_inlining(Inlining::No);
    config.epoch_interruption(true);
    config.concurrency_support(false);
    config.max_wasm_stack(stack);
    config.async_stack_size(stack + 1536 * 1024);
    // Read by nobody: traps are told by the names of functions, and nothing unwinds
    // through a guest. Both would be loaded and registered for every component.
    config.native_unwind_info(false);
    config.generate_address_map(false);
    // Results must not depend on the CPU a guest happens to run on.
    config.cranelift_nan_canonicalization(true);
    Engine::new(&config)
}

/// What tells compiled code of one engine and machine from another's.
pub(crate) fn engine_key(engine: &Engine) -> String {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    format!("wasmtime-{}-{}-{:016x}", crate::WASMTIME_VERSION, std::env::consts::ARCH, hasher.finish())
}

/// What a component imports and exports, as `interface@version` or function names.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Interface {
    /// Sorted.
    pub imports: Vec<String>,
    /// Sorted.
    pub exports: Vec<String>,
}

/// Why a file is not a buildpack component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct NotLoadable {
    /// The stable id.
    pub id: String,
    /// What it is instead, or what it asks for.
    pub message: String,
    /// What would help.
    pub hint: Option<String>,
}

fn refused(id: &str, message: String, hint: Option<String>) -> NotLoadable {
    NotLoadable { id: id.to_owned(), message, hint }
}

/// Compiles a component to native code for this machine.
///
/// To be called in a process of its own: the input is hostile and compiling is
/// not bounded by anything but the operating system.
///
/// # Errors
/// [`NotLoadable`] when the bytes are no component, or one that cannot be a buildpack.
pub(crate) fn compile(
    engine: &Engine,
    bytes: &[u8],
    limits: &Limits,
) -> Result<(Vec<u8>, Interface), NotLoadable> {
    if bytes.len() as u64 > limits.component_bytes {
        return Err(refused(
            "buildpack.compile_limit",
            format!(
                "the component has {} (limit {})",
                crate::limits::show_bytes(bytes.len() as u64),
                crate::limits::show_bytes(limits.component_bytes)
            ),
            Some(
                "the operator raises it with `component_bytes` under `[limits]` in the policy file"
                    .to_owned(),
            ),
        ));
    }
    check_preamble(bytes)?;
    let invalid = |error: wasmtime::Error| {
        refused(
            "buildpack.not_a_component",
            format!("it is not a valid component: {}", error.root_cause()),
            None,
        )
    };
    let component = CodeBuilder::new(engine)
        .wasm_binary(bytes, None)
        .and_then(|builder| builder.compile_component())
        .map_err(invalid)?;
    let interface = interface(engine, &component);
    check_interface(&interface)?;
    let code = component.serialize().map_err(invalid)?;
    if code.len() as u64 > limits.compile_output_bytes {
        return Err(refused(
            "buildpack.compile_limit",
            format!("the component compiles to {}", crate::limits::show_bytes(code.len() as u64)),
            Some(
                "the operator raises it with `compile_output_bytes` under `[limits]` in the policy file"
                    .to_owned(),
            ),
        ));
    }
    Ok((code, interface))
}

/// Says what a file that is no component is, from its first bytes.
fn check_preamble(bytes: &[u8]) -> Result<(), NotLoadable> {
    let message = match bytes {
        [0, b'a', b's', b'm', 0x0d, 0, 1, 0, ..] => return Ok(()),
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => "it is a core module, not a component",
        [0, b'a', b's', b'm', ..] => "it is WebAssembly of an unknown version",
        [0x7f, b'E', b'L', b'F', ..] => "it is a native program (ELF), not a component",
        [] => "it is empty",
        _ if bytes.starts_with(b"(") => "it is WebAssembly text, not a binary component",
        _ => "it is not WebAssembly",
    };
    let hint = "build it with `cargo build --target wasm32-wasip2`";
    Err(refused("buildpack.not_a_component", message.to_owned(), Some(hint.to_owned())))
}

fn interface(engine: &Engine, component: &Component) -> Interface {
    let component_type = component.component_type();
    let mut imports: Vec<String> = component_type.imports(engine).map(|(name, _)| name.to_owned()).collect();
    let mut exports: Vec<String> = component_type
        .exports(engine)
        .filter(|(_, export)| !matches!(export.ty, ComponentItem::Type(_)))
        .map(|(name, _)| name.to_owned())
        .collect();
    imports.sort();
    exports.sort();
    Interface { imports, exports }
}

/// Refuses imports we do not offer and worlds that are not ours.
fn check_interface(interface: &Interface) -> Result<(), NotLoadable> {
    for import in &interface.imports {
        let (name, version) = import.split_once('@').unwrap_or((import, ""));
        let offered = if OURS.contains(&name) {
            CONTRACT_VERSION
        } else if WASI.contains(&name) || WASI_RANDOM.contains(&name) {
            WASI_VERSION
        } else {
            return Err(unsupported_import(import, name));
        };
        let compatible = parse_version(version).is_some_and(|(major, minor, patch)| {
            (major, minor) == (offered.0, offered.1) && patch <= offered.2
        });
        if !compatible {
            let (major, minor, patch) = offered;
            return Err(refused(
                "buildpack.unsupported_import",
                format!("it imports `{import}`"),
                Some(format!("the nearest version on offer is `{name}@{major}.{minor}.{patch}`")),
            ));
        }
    }
    for wanted in ["detect", "build"] {
        if !interface.exports.iter().any(|export| export == wanted) {
            return Err(refused(
                "buildpack.missing_export",
                format!("it does not export `{wanted}`"),
                Some("a buildpack exports the world `wapack:buildpack/buildpack@0.1.0`; in Rust, `wapack_sdk::export!` does it".to_owned()),
            ));
        }
    }
    Ok(())
}

fn unsupported_import(import: &str, name: &str) -> NotLoadable {
    let hint = if name.starts_with("wasi:sockets/") || name.starts_with("wasi:http/") {
        "a buildpack has no network; it asks for files of a named source with `wapack:buildpack/downloads`"
    } else {
        "a buildpack may import `wasi:cli`, `wasi:clocks`, `wasi:filesystem`, `wasi:io`, `wasi:random` and `wapack:buildpack`"
    };
    refused(
        "buildpack.unsupported_import",
        format!("it imports `{import}`, which is not granted"),
        Some(hint.to_owned()),
    )
}

fn parse_version(version: &str) -> Option<(u64, u64, u64)> {
    let mut parts = version.split('.').map(|part| part.parse().ok());
    match (parts.next()?, parts.next()?, parts.next()?, parts.next()) {
        (Some(major), Some(minor), Some(patch), None) => Some((major, minor, patch)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(imports: &[&str], exports: &[&str]) -> Result<(), String> {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        check_interface(&Interface { imports: names(imports), exports: names(exports) })
            .map_err(|error| format!("{}: {error}", error.id))
    }

    #[test]
    fn g21_imports_outside_the_world_are_named() {
        assert_eq!(
            check(&["wasi:io/poll@0.2.3", "wapack:buildpack/files@0.1.0"], &["build", "detect"]),
            Ok(())
        );
        assert_eq!(
            check(&["wasi:sockets/tcp@0.2.6"], &["build", "detect"]).unwrap_err(),
            "buildpack.unsupported_import: it imports `wasi:sockets/tcp@0.2.6`, which is not granted"
        );
        for import in
            ["wasi:io/poll@0.3.0", "wasi:io/poll@0.2.99", "wasi:io/poll", "wapack:buildpack/files@0.2.0"]
        {
            assert_eq!(
                check(&[import], &["build", "detect"]).unwrap_err(),
                format!("buildpack.unsupported_import: it imports `{import}`")
            );
        }
        assert_eq!(
            check(&[], &["detect"]).unwrap_err(),
            "buildpack.missing_export: it does not export `build`"
        );
    }

    #[test]
    fn g22_what_is_no_component_is_named_by_its_first_bytes() {
        let engine = new_engine(&Limits::default()).unwrap();
        for (bytes, expected) in [
            (&b""[..], "it is empty"),
            (b"\0asm\x01\0\0\0", "it is a core module, not a component"),
            (b"\x7fELF\x02", "it is a native program (ELF), not a component"),
            (b"(component)", "it is WebAssembly text, not a binary component"),
            (b"#!/bin/sh\n", "it is not WebAssembly"),
        ] {
            let error = compile(&engine, bytes, &Limits::default()).unwrap_err();
            assert_eq!((error.id.as_str(), error.message.as_str()), ("buildpack.not_a_component", expected));
        }
    }

    /// G26: the list is golden; a change here is a decision.
    #[test]
    fn g26_the_proposals_a_guest_may_use() {
        let names: Vec<String> = FEATURES.iter_names().map(|(name, _)| name.to_owned()).collect();
        assert_eq!(
            names.join(" "),
            "MUTABLE_GLOBAL SATURATING_FLOAT_TO_INT SIGN_EXTENSION REFERENCE_TYPES MULTI_VALUE BULK_MEMORY SIMD \
             FLOATS MULTI_MEMORY EXTENDED_CONST COMPONENT_MODEL"
        );
    }
}
