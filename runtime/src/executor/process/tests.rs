//! Programs of classic buildpacks are shell scripts here.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use std::path::PathBuf;

use super::*;
use crate::cnb::api::ApiVersion;
use crate::cnb::env::Environment;
use crate::cnb::id::{BuildpackRef, ExecEnv};
use crate::cnb::target::Target;
use crate::grant::Grants;
use crate::limits::{CallLimits, LimitKind, Limits};

/// A buildpack that is about to be asked.
struct Bench {
    temp: tempfile::TempDir,
    api: ApiVersion,
    environment: Environment,
    wall: Duration,
}

#[derive(Default)]
struct Log(Vec<String>);

impl LogSink for Log {
    fn line(&mut self, buildpack: &BuildpackRef, line: &str) {
        self.0.push(format!("{buildpack}: {line}"));
    }
}

impl Bench {
    fn new(detect: &str) -> Self {
        let temp = tempfile::tempdir().unwrap();
        for directory in ["app", "scratch", "platform"] {
            std::fs::create_dir(temp.path().join(directory)).unwrap();
        }
        let bench = Self {
            temp,
            api: ApiVersion::zero(12),
            environment: Environment::from([("PATH".into(), "/usr/bin:/bin".into())]),
            wall: Duration::MAX,
        };
        bench.program("one", "detect", detect);
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn program(&self, buildpack: &str, name: &str, script: &str) {
        let directory = self.path(buildpack).join("bin");
        std::fs::create_dir_all(&directory).unwrap();
        let file = directory.join(name);
        std::fs::write(&file, format!("#!/bin/bash\n{script}\n")).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
    }

    fn inputs(&self, buildpack: &str) -> DetectInputs {
        let program = Program::Executables(Executables {
            directory: self.path(buildpack),
            api: self.api,
            app: self.path("app"),
            platform: self.path("platform"),
            sbom_formats: Vec::new(),
            scratch: self.path("scratch"),
        });
        DetectInputs {
            call: CallInputs {
                buildpack: BuildpackRef { id: buildpack.parse().unwrap(), version: "1.0.0".parse().unwrap() },
                program,
                mounts: Vec::new(),
                environment: self.environment.clone(),
                target: Target { os: "linux".into(), arch: "amd64".into(), variant: None, distro: None },
                exec_env: ExecEnv::default(),
                user_env: std::collections::BTreeMap::new(),
                metadata: String::new(),
                grants: Grants::default(),
                limits: CallLimits { cpu: Duration::MAX, wall: self.wall, limits: Limits::default() },
            },
        }
    }

    fn detect_with(&self, cancel: &Cancel) -> (Result<DetectOutputs, GuestFailure>, Vec<String>) {
        let mut log = Log::default();
        let mut results = ProcessExecutor::new(cancel.clone()).detect(&[self.inputs("one")], &mut log);
        (results.remove(0), log.0)
    }

    fn detect(&self) -> (Result<DetectOutputs, GuestFailure>, Vec<String>) {
        self.detect_with(&Cancel::default())
    }
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap().trim().to_owned()
}

/// DET-01, API-15: no shell between, in the app, both arguments, an absolute `$0`, no input.
#[test]
fn det_01_and_api_15_how_detect_is_called() {
    for minor in [2, 7, 12] {
        let mut bench = Bench::new(
            "printf '%s\\n' \"$0\" \"$1\" \"$2\" \"$#\" \"$(cat)\" > called\necho \"$CNB_BUILD_PLAN_PATH\" > variable",
        );
        bench.api = ApiVersion::zero(minor);
        bench.detect().0.unwrap();
        let called = text(&bench.path("app/called"));
        let called: Vec<&str> = called.lines().collect();
        assert_eq!(called[0], bench.path("one/bin/detect").to_str().unwrap());
        assert_eq!(called[1], bench.path("platform").to_str().unwrap());
        assert_eq!(called[3..], ["2"], "0.{minor}");
        let variable = text(&bench.path("app/variable"));
        assert_eq!(variable, if minor < 8 { "" } else { called[2] }, "0.{minor}");
    }
}

#[test]
fn det_02_the_plan_file_is_there_empty_private_and_gone_afterwards() {
    let bench = Bench::new(
        "stat -c '%s %a %U' \"$2\" > plan\nstat -c %a \"$(dirname \"$2\")\" >> plan; whoami >> plan",
    );
    let (result, _) = bench.detect();
    assert_eq!(
        result.unwrap(),
        DetectOutputs::Pass(vec![crate::cnb::build_plan::PlanContribution::default()])
    );
    let seen = text(&bench.path("app/plan"));
    let lines: Vec<&str> = seen.lines().collect();
    assert_eq!(lines[0], format!("0 600 {}", lines[2]));
    assert_eq!(lines[1], "700");
    assert_eq!(std::fs::read_dir(bench.path("scratch")).unwrap().count(), 0);
}

#[test]
fn det_03_exit_statuses() {
    let plan = "[[provides]]\\nname = \"node\"\\n";
    let (result, _) = Bench::new(&format!("printf '{plan}' > \"$2\"")).detect();
    let Ok(DetectOutputs::Pass(alternatives)) = result else { panic!("{result:?}") };
    assert_eq!(alternatives[0].provides, ["node"]);

    let (result, log) = Bench::new("echo no package.json; echo; exit 100").detect();
    assert_eq!(result, Ok(DetectOutputs::Fail { reason: "no package.json".into() }));
    assert_eq!(log, ["one@1.0.0: no package.json", "one@1.0.0: "]);

    for (script, said) in [
        ("exit 3", "exited with status 3"),
        ("kill -9 $$", "ended by signal 9"),
        ("echo = > \"$2\"", "plan file is not valid"),
        ("rm \"$2\"", "plan file cannot be read"),
        ("rm \"$2\"; mkfifo \"$2\"", "plan file cannot be read"),
    ] {
        let (result, _) = Bench::new(script).detect();
        let failure = result.unwrap_err();
        assert!(failure.to_string().contains(said), "{script}: {failure}");
    }
    let bench = Bench::new("");
    std::fs::set_permissions(bench.path("one/bin/detect"), PermissionsExt::from_mode(0o644)).unwrap();
    assert!(matches!(bench.detect().0, Err(GuestFailure::Unloadable { .. })));
    std::fs::remove_file(bench.path("one/bin/detect")).unwrap();
    assert!(matches!(bench.detect().0, Err(GuestFailure::Unloadable { .. })));
}

#[test]
fn det_04_the_plan_is_not_read_after_a_failure() {
    let (result, _) = Bench::new("echo = > \"$2\"; exit 100").detect();
    assert_eq!(result, Ok(DetectOutputs::Fail { reason: "exit status 100".into() }));
}

/// ENV-03: only what the call says, and what a shell sets by itself.
#[test]
fn env_03_nothing_else_gets_into_the_environment() {
    let bench = Bench::new("/usr/bin/env -0 | tr '\\0' '\\n' | cut -d= -f1 | sort > names");
    bench.detect().0.unwrap();
    let names = text(&bench.path("app/names"));
    assert_eq!(names.lines().collect::<Vec<_>>(), ["CNB_BUILD_PLAN_PATH", "PATH", "PWD", "SHLVL", "_"]);
}

#[test]
fn det_05_members_run_at_the_same_time_and_speak_one_after_the_other() {
    // Each waits for the file of the other.
    let bench = Bench::new("echo a; touch one; until test -e two; do sleep 0.01; done; echo b");
    bench.program(
        "two",
        "detect",
        "touch two; echo c; until test -e one; do sleep 0.01; done; echo d; exit 1",
    );
    let mut log = Log::default();
    let calls = [bench.inputs("one"), bench.inputs("two")];
    let results = ProcessExecutor::default().detect(&calls, &mut log);
    assert!(results[0].is_ok() && results[1].is_err());
    assert_eq!(log.0, ["one@1.0.0: a", "one@1.0.0: b", "two@1.0.0: c", "two@1.0.0: d"]);
}

#[test]
fn bld_05_both_streams_keep_their_order_and_cannot_steer_a_terminal() {
    let bench = Bench::new(
        "for i in 1 2 3; do echo out $i; echo err $i >&2; done\nprintf '\\e[31mred\\e[0m\\r\\nup\\e[A\\xff end'",
    );
    let (_, log) = bench.detect();
    let lines: Vec<&str> = log.iter().map(|line| line.strip_prefix("one@1.0.0: ").unwrap()).collect();
    assert_eq!(
        lines,
        ["out 1", "err 1", "out 2", "err 2", "out 3", "err 3", "red", "up\\u{1b}[A\u{fffd} end"]
    );
}

#[test]
fn a_program_that_hangs_is_ended_with_everything_it_started() {
    let mut bench = Bench::new("(sleep 1000; touch late) & echo $! > pid; sleep 1000");
    bench.wall = Duration::from_millis(300);
    let (result, _) = bench.detect();
    assert!(matches!(result, Err(GuestFailure::Limit { limit: LimitKind::Wall, .. })), "{result:?}");
    // It is gone, or nobody has asked how it ended yet; the kernel takes a moment.
    let status = format!("/proc/{}/stat", text(&bench.path("app/pid")));
    let deadline = Instant::now() + Duration::from_secs(20);
    while std::fs::read_to_string(&status).is_ok_and(|state| !state.contains(") Z ")) {
        assert!(Instant::now() < deadline, "it still runs");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_cancelled_program_may_clean_up() {
    let bench = Bench::new("trap 'echo bye > bye; exit 1' TERM\ntouch ready\nwhile :; do sleep 0.01; done");
    let cancel = Cancel::default();
    let (waiter, ready) = (cancel.clone(), bench.path("app/ready"));
    let thread = std::thread::spawn(move || {
        while !ready.exists() {
            std::thread::sleep(Duration::from_millis(5));
        }
        waiter.cancel();
    });
    let started = Instant::now();
    let (result, _) = bench.detect_with(&cancel);
    thread.join().unwrap();
    assert!(matches!(result, Err(GuestFailure::Cancelled { .. })), "{result:?}");
    assert!(started.elapsed() < Duration::from_secs(20));
    assert_eq!(text(&bench.path("app/bye")), "bye");
}

/// Filters of the output go on for a moment after the program that started them.
#[test]
fn what_a_filter_still_prints_is_shown() {
    let (_, log) = Bench::new("exec > >(sleep 0.2; sed 's/^/  /')\necho indented").detect();
    assert_eq!(log, ["one@1.0.0:   indented"]);
}

#[test]
fn what_is_left_running_does_not_hold_up_the_build() {
    let bench = Bench::new("setsid sleep 60 & echo done");
    let started = Instant::now();
    let (result, log) = bench.detect();
    assert!(result.is_ok() && started.elapsed() < Duration::from_secs(30));
    assert_eq!(log, ["one@1.0.0: done"]);
}

/// DET-07: everything beside the app can be changed as before, whatever is above it.
#[test]
fn det_07_the_app_cannot_be_changed_where_nobody_can_write_above_it() {
    let script = "
        try() { if \"${@:2}\" 2> /dev/null; then echo \"$1: done\"; else echo \"$1: refused\"; fi; }
        try read test \"$(cat file)\" = old
        try overwrite sh -c 'echo new > file'
        try append sh -c 'echo new >> file'
        try create touch new
        try remove rm -f file
        try directory mkdir d
        try link ln -s file l
        try away mv file ../beside/file
        try into mv ../beside/theirs theirs
        try beside touch ../beside/new
        try between mv ../beside/new ../other
        try temporary touch $(mktemp -p ../beside)
        try plan sh -c 'echo > \"$0\"' \"$2\"
        try device sh -c 'echo > /dev/null && echo said > /dev/stderr'";
    let bench = Bench::new(script);
    let untouched = |bench: &Bench| {
        std::fs::write(bench.path("app/file"), "old\n").unwrap();
        std::fs::create_dir_all(bench.path("beside")).unwrap();
        std::fs::write(bench.path("other"), "").unwrap();
        std::fs::write(bench.path("beside/theirs"), "").unwrap();
    };
    let detect = |is_writable| {
        untouched(&bench);
        let mut executor = ProcessExecutor { is_writable, ..ProcessExecutor::default() };
        let mut log = Log::default();
        let result = executor.detect(&[bench.inputs("one")], &mut log).remove(0);
        assert!(matches!(result, Ok(DetectOutputs::Pass(_))), "{result:?}");
        let refused =
            log.0.iter().filter_map(|line| line.strip_prefix("one@1.0.0: ")?.strip_suffix(": refused"));
        refused.map(str::to_owned).collect::<Vec<_>>()
    };
    let refused = detect(|_| false);
    assert_eq!(
        refused,
        ["overwrite", "append", "create", "remove", "directory", "link", "away", "into", "between"]
    );
    assert_eq!(text(&bench.path("app/file")), "old");
    assert_eq!(std::fs::read_dir(bench.path("app")).unwrap().count(), 1);
    // This thread and those of other executors are as free as before.
    std::fs::write(bench.path("app/ours"), "").unwrap();
    std::fs::remove_file(bench.path("app/ours")).unwrap();
    // Where files can be made above the app, it cannot be told apart.
    // There the file was removed before it could be moved.
    assert_eq!(detect(|directory| directory.parent().is_none()), ["away"]);
}
