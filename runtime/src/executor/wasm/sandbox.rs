//! What a cell holds: the only file that decides clocks, randomness, environment
//! and which WASI interfaces exist for a guest.
//!
//! The context of `wasmtime-wasi` is built from nothing and never inherits; its
//! own file system and its sockets are not linked at all.

use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::ChaCha20Rng;
use wasmtime::component::Linker;
use wasmtime_wasi::cli::{WasiCli, WasiCliView as _};
use wasmtime_wasi::clocks::{HostMonotonicClock, HostWallClock, WasiClocks, WasiClocksView as _};
use wasmtime_wasi::p2::bindings::{cli, clocks, io, random};
use wasmtime_wasi::random::{WasiRandom, WasiRandomView as _};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder};

use super::cell::Cell;
use super::log::GuestLog;
use super::wasi::CONSTANT_TIME;
use crate::executor::CallInputs;
use crate::grant::Grant;

/// How fine a guest may measure time: enough to wait, too coarse to spy.
const CLOCK_RESOLUTION: Duration = Duration::from_millis(10);
/// The seed of every build's random numbers. Not secret: guests that need real
/// randomness have to be granted it.
const SEED: u64 = 0x7761_7061_636b;

/// Everything of WASI that a guest may import, but for the file system.
pub(super) fn add_wasi(linker: &mut Linker<Cell>) -> wasmtime::Result<()> {
    use wasmtime_wasi::WasiView as _;

    struct HasIo;
    impl wasmtime::component::HasData for HasIo {
        type Data<'a> = &'a mut wasmtime::component::ResourceTable;
    }
    io::error::add_to_linker::<Cell, HasIo>(linker, |cell| cell.ctx().table)?;
    io::poll::add_to_linker::<Cell, HasIo>(linker, |cell| cell.ctx().table)?;
    io::streams::add_to_linker::<Cell, HasIo>(linker, |cell| cell.ctx().table)?;
    clocks::wall_clock::add_to_linker::<Cell, WasiClocks>(linker, Cell::clocks)?;
    clocks::monotonic_clock::add_to_linker::<Cell, WasiClocks>(linker, Cell::clocks)?;
    random::random::add_to_linker::<Cell, WasiRandom>(linker, Cell::random)?;
    random::insecure::add_to_linker::<Cell, WasiRandom>(linker, Cell::random)?;
    random::insecure_seed::add_to_linker::<Cell, WasiRandom>(linker, Cell::random)?;
    cli::environment::add_to_linker::<Cell, WasiCli>(linker, Cell::cli)?;
    cli::exit::add_to_linker::<Cell, WasiCli>(linker, Cell::cli)?;
    cli::stdin::add_to_linker::<Cell, WasiCli>(linker, Cell::cli)?;
    cli::stdout::add_to_linker::<Cell, WasiCli>(linker, Cell::cli)?;
    cli::stderr::add_to_linker::<Cell, WasiCli>(linker, Cell::cli)?;
    cli::terminal_input::add_to_linker::<Cell, WasiCli>(linker, Cell::cli)?;
    cli::terminal_output::add_to_linker::<Cell, WasiCli>(linker, Cell::cli)?;
    cli::terminal_stdin::add_to_linker::<Cell, WasiCli>(linker, Cell::cli)?;
    cli::terminal_stdout::add_to_linker::<Cell, WasiCli>(linker, Cell::cli)?;
    cli::terminal_stderr::add_to_linker::<Cell, WasiCli>(linker, Cell::cli)
}

/// The context of one call: its environment and output, and as much time and
/// randomness as was granted.
pub(super) fn wasi(call: &CallInputs, log: &GuestLog) -> WasiCtx {
    let mut builder = WasiCtxBuilder::new();
    for (name, value) in &call.environment {
        // WASI has text only; half a value would be worse than none.
        if let Some(value) = value.to_str() {
            builder.env(name, value);
        }
    }
    builder
        .arg(call.buildpack.id.as_str())
        .stdout(log.clone())
        .stderr(log.clone())
        .max_random_size(call.limits.limits.random_bytes)
        .monotonic_clock(CoarseClock(std::time::Instant::now()));
    if !call.grants.allows(&Grant::Clock) {
        builder.wall_clock(ConstantClock);
    }
    if !call.grants.allows(&Grant::Random) {
        builder
            .secure_random(ChaCha20Rng::seed_from_u64(SEED))
            .insecure_random(ChaCha20Rng::seed_from_u64(SEED))
            .insecure_random_seed(u128::from(SEED));
    }
    builder.build()
}

/// A wall clock that shows the time of every file in the image.
struct ConstantClock;

impl HostWallClock for ConstantClock {
    fn resolution(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn now(&self) -> Duration {
        Duration::from_secs(CONSTANT_TIME)
    }
}

/// Time since the call began, in coarse steps.
struct CoarseClock(std::time::Instant);

impl HostMonotonicClock for CoarseClock {
    fn resolution(&self) -> u64 {
        nanoseconds(CLOCK_RESOLUTION)
    }

    fn now(&self) -> u64 {
        let elapsed = nanoseconds(self.0.elapsed());
        elapsed - elapsed % nanoseconds(CLOCK_RESOLUTION)
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
