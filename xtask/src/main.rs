//! The one list of this repository's commands.
//!
//! Each command sets up what it needs first, says what it does, and does
//! nothing twice: a second run takes seconds. Plain Rust, so that a fresh
//! machine needs nothing but a Rust toolchain to begin with. It knows the
//! repository's folders by convention and, but for [`inventory`], no buildpack by
//! name; it must not know what is inside the crates it builds.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a tool for the terminal")]

mod archive;
mod base;
mod bench;
mod checks;
mod command;
mod conformance;
mod demo;
mod embed;
mod inventory;
mod lifecycle;
mod setup;
mod workspace;

use std::process::ExitCode;

/// A sentence about what went wrong and what would help.
type Result<T> = std::result::Result<T, String>;

const USAGE: &str = "\
cargo xtask COMMAND [ARGUMENTS]

  demo       build the sample website into an image, and start it where crun or runc is installed
  test       run every test; further arguments go to `cargo test`
  check      formatting, clippy, rustdoc, the conformance page, dependency rules (cargo deny)
  setup      install what the other commands need (they do this themselves)
  embed      build the buildpacks, web server and launcher that become part of `wapack`
  lifecycle  build the static `wapack`, and pack it as the lifecycle of a builder, in `target/lifecycle`
  guests     build the test guests of `tests/guests` as components
  bench      run the benchmarks; `bench node`, `bench detect`, `bench launcher` and `bench lifecycle` only one of them, other arguments go to `cargo bench`
  base       make a small Debian to build upon, in `target/base`
  bless      rewrite the snapshots and golden files that tests compare with
  conformance  write `docs/conformance.md` from the names of the tests; `--check` says whether it is stale
  inventory  rewrite the list of Node.js releases; arguments are files like `SHASUMS256.txt` to take hashes from
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (name, rest) =
        arguments.split_first().map_or(("help", &[][..]), |(name, rest)| (name.as_str(), rest));
    let takes_arguments = matches!(name, "test" | "bench" | "conformance" | "inventory");
    if !takes_arguments && !rest.is_empty() {
        eprintln!("error: `{name}` takes no arguments\n\n{USAGE}");
        return ExitCode::from(2);
    }
    let result = match name {
        "demo" => demo::run(),
        "test" => checks::test(rest),
        "check" => checks::check(),
        "setup" => setup::everything(),
        "embed" => embed::run(),
        "lifecycle" => lifecycle::run(),
        "guests" => checks::guests(),
        "bench" => bench::run(rest),
        "base" => base::run_command(),
        "bless" => checks::bless(),
        "conformance" => conformance::run(rest),
        "inventory" => inventory::run(rest),
        "help" | "--help" | "-h" => {
            print!("{USAGE}");
            Ok(())
        }
        unknown => {
            eprintln!("error: there is no command `{unknown}`\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}
