//! Several programs that do the same work in turns: what each took, said at once and kept in a file.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::{failed, median};
use crate::Result;
use crate::workspace;

/// How often memory is looked at: the kernel remembers the peak.
const SAMPLE: Duration = Duration::from_millis(5);
/// Of the clock in which the kernel counts CPU time for `/proc`.
const TICKS_PER_SECOND: u64 = 100;

/// What one run took and left.
#[derive(Debug, Clone, Default)]
pub(super) struct Outcome {
    pub(super) time: Duration,
    /// Of all its processes, in user mode and in the kernel. A machine that is busy with other
    /// things disturbs this less than the time.
    pub(super) cpu: Duration,
    /// Of the process that was started.
    pub(super) peak_bytes: u64,
    /// Whatever else there is to say.
    pub(super) remark: String,
}

/// One who does the work.
pub(super) struct Contestant<'a> {
    pub(super) name: String,
    pub(super) run: Box<dyn Fn() -> Result<Outcome> + 'a>,
}

/// Lines that are printed and added to a file.
pub(super) struct Results {
    file: PathBuf,
}

impl Results {
    /// In `target/bench-<name>.txt`; what was there stays.
    pub(super) fn new(name: &str) -> Result<Self> {
        let results = Self { file: workspace::target().join(format!("bench-{name}.txt")) };
        let model = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = model.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        results.say(&format!("# {name}: {cores} cores of {}", model.map_or("?", |(_, model)| model)))?;
        Ok(results)
    }

    pub(super) fn say(&self, line: &str) -> Result<()> {
        println!("{line}");
        let file = fs::OpenOptions::new().create(true).append(true).open(&self.file);
        file.and_then(|mut file| writeln!(file, "{line}"))
            .map_err(|error| failed("write", &self.file, &error))
    }
}

/// Runs a command to its end.
pub(super) fn measure(command: &mut Command) -> Result<Outcome> {
    let before = cpu_of_children();
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot start `{}`: {error}", command.get_program().display()))?;
    let mut peak_bytes = 0;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(|error| error.to_string())? {
            break status;
        }
        peak_bytes = peak_bytes.max(peak(child.id()));
        sleep(SAMPLE);
    };
    let time = started.elapsed();
    if !status.success() {
        return Err(format!("`{command:?}` failed ({status})"));
    }
    Ok(Outcome { time, cpu: cpu_of_children().saturating_sub(before), peak_bytes, remark: String::new() })
}

/// The most memory that a process has had.
fn peak(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes =
        line.and_then(|line| line.split_whitespace().next()).and_then(|number| number.parse().ok());
    kibibytes.unwrap_or(0_u64) << 10
}

/// CPU time of all processes that were waited for, and theirs.
fn cpu_of_children() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name in the second field may have blanks and parentheses in it.
    let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let ticks: u64 = rest.split(' ').skip(13).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
}

/// One run of each that is not counted, then `runs` of each in turns; then how many times as long as
/// the first the others took.
pub(super) fn compete(
    results: &Results,
    what: &str,
    runs: usize,
    contestants: &[Contestant<'_>],
) -> Result<()> {
    let mut outcomes = vec![Vec::new(); contestants.len()];
    for number in 0..=runs {
        for (contestant, outcomes) in contestants.iter().zip(&mut outcomes) {
            let outcome = (contestant.run)()?;
            let counted = if number == 0 { " (not counted)" } else { "" };
            results.say(&format!("  {what}, {}: {}{counted}", contestant.name, describe(&outcome)))?;
            // The first one fills what the operating system keeps in memory.
            if number > 0 {
                outcomes.push(outcome);
            }
        }
    }
    let mut first = None;
    for (contestant, outcomes) in contestants.iter().zip(&outcomes) {
        let of = |what: fn(&Outcome) -> Duration| outcomes.iter().map(what).collect::<Vec<_>>();
        let (times, cpu) = (of(|outcome| outcome.time), median(of(|outcome| outcome.cpu)));
        let (fastest, slowest) = (times.iter().min().copied(), times.iter().max().copied());
        let time = median(times);
        let peak = outcomes.iter().map(|outcome| outcome.peak_bytes).max().unwrap_or(0);
        let remark = outcomes.first().map_or("", |outcome| outcome.remark.as_str());
        let (first_time, first_cpu) = *first.get_or_insert((time, cpu));
        let ratio = |one: Duration, other: Duration| one.as_secs_f64() / other.as_secs_f64().max(0.01);
        results.say(&format!(
            "{what}, {}: {:.2} s ({:.2}–{:.2} of {runs}), CPU {:.2} s, {} MiB{remark}; {:.2} times the first's time, {:.2} times its CPU",
            contestant.name,
            time.as_secs_f64(),
            fastest.unwrap_or_default().as_secs_f64(),
            slowest.unwrap_or_default().as_secs_f64(),
            cpu.as_secs_f64(),
            peak >> 20,
            ratio(time, first_time),
            ratio(cpu, first_cpu),
        ))?;
    }
    Ok(())
}

/// With the load of the machine, of which a run itself is some.
pub(super) fn describe(outcome: &Outcome) -> String {
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!(
        "{:.2} s, CPU {:.2} s, {} MiB{}, load {}",
        outcome.time.as_secs_f64(),
        outcome.cpu.as_secs_f64(),
        outcome.peak_bytes >> 20,
        outcome.remark,
        load.split(' ').next().unwrap_or("?")
    )
}
