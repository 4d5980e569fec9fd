//! The worker program of the tests: nothing but the library's own worker.

fn main() -> std::process::ExitCode {
    wapack_runtime::executor::worker::worker_main()
}
