//! The worker program of the tests: nothing but the library's own worker.
//!
//! With `--without-landlock` it plays a kernel that does not have Landlock.

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

fn main() -> std::process::ExitCode {
    if std::env::args().any(|argument| argument == "--without-landlock") {
        hide_landlock();
    }
    wapack_runtime::executor::worker::worker_main()
}

fn hide_landlock() {
    let rules = BTreeMap::from([(libc::SYS_landlock_create_ruleset, Vec::new())]);
    let missing = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    let arch = std::env::consts::ARCH.try_into().expect("an architecture with seccomp");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, missing, arch).expect("a filter");
    let program: BpfProgram = filter.try_into().expect("a program");
    seccompiler::apply_filter(&program).expect("a kernel with seccomp");
}
