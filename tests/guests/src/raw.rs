//! Components that Rust cannot express, encoded from text: what happens before
//! the first function runs, more memories and tables than a compiler makes, and
//! worlds that are not ours. Native only; the tests load the bytes.

use wasm_encoder::{
    ComponentExportKind, ComponentInstanceSection, ComponentSection, ComponentSectionId, Encode,
};
use wit_component::{ComponentEncoder, StringEncoding, dummy_module, embed_component_metadata};
use wit_parser::{ManglingAndAbi, Resolve};

/// A component by name, and the threat it is about.
#[derive(Debug)]
pub struct RawGuest {
    /// Its name, in the manner of the files in `examples/`.
    pub name: &'static str,
    /// The bytes to load.
    pub bytes: Vec<u8>,
}

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// The text of the contract, as it is in `wit/`.
const CONTRACT: &str = include_str!("../../../wit/buildpack.wit");

/// All of them.
///
/// # Errors
/// When the contract or one of the texts does not parse: a defect of this file.
pub fn all() -> Outcome<Vec<RawGuest>> {
    let loops = "(func $start (loop br 0)) (start $start)";
    let guest = |name, bytes: Outcome<Vec<u8>>| bytes.map(|bytes| RawGuest { name, bytes });
    Ok(vec![
        // G1: the start function runs while the component is instantiated.
        guest("spin-in-start", component(&buildpack_module(loops)))?,
        guest("spin-in-realloc", component(&module_with_realloc("(loop br 0) unreachable", "")))?,
        guest("trap-in-start", component(&buildpack_module("(func $start unreachable) (start $start)")))?,
        // G4: each is within a limit per item, all together are not.
        guest("huge-memory", component(&module(65_535, "i32.const 1024", "")))?,
        guest("many-memories", many("(memory 16384)", 100))?,
        guest("many-instances", many("(memory 1)", 900))?,
        guest("huge-tables", component(&buildpack_module(&"(table 9000000 funcref)".repeat(100))))?,
        guest("many-tables", many("(table 1 funcref)", 900))?,
        guest("grow-table", component(&buildpack_module(GROW_TABLE)))?,
        guest("multi-memory", component(&buildpack_module("(memory 1) (memory 1)")))?,
        // G6, in the start function.
        guest("recurse-in-start", component(&buildpack_module("(func $start call $start) (start $start)")))?,
        // G21: refused before any code runs.
        guest("core-module", Ok(wat::parse_str(buildpack_module(loops))?))?,
        guest("empty-component", Ok(wat::parse_str("(component)")?))?,
        guest("no-build", of_altered("  export build:", "  import build:"))?,
        guest("newer-contract", of_altered("buildpack@0.1.0", "buildpack@0.2.0"))?,
        guest("newer-patch", of_altered("buildpack@0.1.0", "buildpack@0.1.7"))?,
        guest("mistyped-export", of_altered("exec-env: string", "exec-env: u32"))?,
        guest("unknown-import", with_import("import acme: interface { call: func(); }"))?,
        guest("unknown-function", with_import("import launch-missiles: func();"))?,
    ])
}

/// A table that is grown until it cannot be.
const GROW_TABLE: &str = "(table $t 0 funcref)
    (func $start (loop
        (br_if 0 (i32.ne (table.grow $t (ref.null func) (i32.const 100000)) (i32.const -1)))))
    (start $start)";

/// A component of the contract with one more import.
fn with_import(import: &str) -> Outcome<Vec<u8>> {
    of_altered("  import files;", &format!("  import files;\n  {import}"))
}

/// A core module that is a buildpack, with `more` in it. Its functions trap.
fn buildpack_module(more: &str) -> String {
    module(1, "i32.const 1024", more)
}

fn module_with_realloc(realloc: &str, more: &str) -> String {
    module(1, realloc, more)
}

fn module(pages: u32, realloc: &str, more: &str) -> String {
    format!(
        r#"(module
            (memory (export "memory") {pages})
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) {realloc})
            (func (export "detect") (param i32) (result i32) unreachable)
            (func (export "build") (param i32) (result i32) unreachable)
            {more})"#
    )
}

/// Makes a component of a core module that has the exports of the contract.
fn component(module: &str) -> Outcome<Vec<u8>> {
    encode(wat::parse_str(module)?, CONTRACT)
}

/// A component of the contract with `new` for `old`, whose functions trap.
fn of_altered(old: &str, new: &str) -> Outcome<Vec<u8>> {
    if !CONTRACT.contains(old) {
        return Err(format!("the contract has no `{old}`").into());
    }
    let contract = CONTRACT.replace(old, new);
    let mut resolve = Resolve::default();
    let package = resolve.push_str("buildpack.wit", &contract)?;
    let world = resolve.select_world(&[package], Some("buildpack"))?;
    encode(dummy_module(&resolve, world, ManglingAndAbi::Standard32), &contract)
}

fn encode(mut module: Vec<u8>, contract: &str) -> Outcome<Vec<u8>> {
    let mut resolve = Resolve::default();
    let package = resolve.push_str("buildpack.wit", contract)?;
    let world = resolve.select_world(&[package], Some("buildpack"))?;
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    Ok(ComponentEncoder::default().module(&module)?.encode()?)
}

/// A buildpack that also holds `count` instances of a core module with `item`
/// in it, made before the first call.
fn many(item: &str, count: usize) -> Outcome<Vec<u8>> {
    let instances = "(core instance (instantiate $m))".repeat(count);
    let inner = wat::parse_str(format!("(component (core module $m {item}) {instances})"))?;
    let mut bytes = component(&buildpack_module(""))?;
    // A component is a row of sections: two more at its end hold the other one and make it.
    ComponentSectionId::Component.encode(&mut bytes);
    inner.encode(&mut bytes);
    let mut instance = ComponentInstanceSection::new();
    instance.instantiate(0, std::iter::empty::<(&str, ComponentExportKind, u32)>());
    instance.append_to_component(&mut bytes);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_component_is_a_valid_one() {
        for guest in all().unwrap() {
            let valid = wasmparser::Validator::new().validate_all(&guest.bytes).map(drop);
            assert!(valid.is_ok(), "{}: {valid:?}", guest.name);
        }
    }

    #[test]
    fn names_are_used_once() {
        let mut names: Vec<_> = all().unwrap().iter().map(|guest| guest.name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
