//! `acceptance-build JOB`: one build in a process of its own, on `scratch`.
//!
//! Takes a [`Job`] as JSON and prints each event as a line of JSON; the last
//! line is the digest or the error.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::process::ExitCode;

use acceptance::{Job, Surroundings, amd64, build};
use wapack_runtime::cancel::Cancel;
use wapack_runtime::event::Event;
use wapack_runtime::fault::Diagnose;
use wapack_runtime::phase::export::{Base, LauncherMode, RunImage};
use wapack_runtime::policy::{Policy, PolicyPaths};

fn main() -> ExitCode {
    let job = std::env::args().nth(1).expect("a job");
    let job: Job = serde_json::from_str(&job).expect("a job as JSON");
    let surroundings = Surroundings {
        policy: &Policy::load(&PolicyPaths::default()).expect("the defaults").0,
        cancel: &Cancel::default(),
        launcher_mode: LauncherMode::Auto,
        run_image: &RunImage { base: Base::Scratch(amd64()), name: String::new(), mirrors: vec![] },
    };
    let mut print = |event: Event| println!("{}", serde_json::to_string(&event).expect("an event as JSON"));
    match build(&job, surroundings, &mut print) {
        Ok(exported) => {
            println!("{}", serde_json::json!({ "digest": exported.digest.to_string() }));
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{}", serde_json::json!({ "error": error.id(), "message": error.to_string() }));
            ExitCode::FAILURE
        }
    }
}
