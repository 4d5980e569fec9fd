//! What a buildpack may use up, in one struct, with the reason for each number.
//!
//! The operator's policy may set every field; nothing in an app or a buildpack can raise one.

use std::time::Duration;

use serde::{Deserialize, Serialize};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

/// All limits of a build.
///
/// # Units
/// Bytes, counts, and seconds of guest CPU or wall time, as each name says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// A component file. Interpreters compiled to Wasm are 10-40 MiB.
    pub component_bytes: u64,
    /// CPU time of compiling one component; hostile ones take minutes.
    pub compile_cpu_seconds: u64,
    /// Memory of the process that compiles.
    pub compile_memory_bytes: u64,
    /// Native code a component may become.
    pub compile_output_bytes: u64,
    /// CPU time of one `detect` call.
    pub detect_cpu_seconds: u64,
    /// CPU time of one `build` call.
    pub build_cpu_seconds: u64,
    /// Wall time of one `detect` call, time inside the host included.
    pub detect_wall_seconds: u64,
    /// Wall time of one `build` call, time inside the host included.
    pub build_wall_seconds: u64,
    /// Linear memory, summed over all memories of a component. Also bounds how
    /// long one uninterruptible `memory.copy` can take.
    pub memory_bytes: u64,
    /// Table elements, summed over all tables.
    pub table_elements: u64,
    /// Tables of one component.
    pub tables: u64,
    /// Memories of one component.
    pub memories: u64,
    /// Core instances of one component.
    pub instances: u64,
    /// Stack of the guest's code.
    pub stack_bytes: u64,
    /// Bytes that may cross the boundary in one call, directory listings that are
    /// held included. Also bounds what `build` returns with all its SBOMs.
    pub hostcall_bytes: u64,
    /// Live handles of resources.
    pub handles: u64,
    /// Random bytes of one call.
    pub random_bytes: u64,
    /// Apparent size of everything written in one build.
    pub disk_bytes: u64,
    /// Files, directories and links made in one build; a large `node_modules` has 300,000.
    pub disk_entries: u64,
    /// Depth of a path that is made.
    pub path_depth: u64,
    /// Files a guest may hold open.
    pub open_files: u64,
    /// Output of one buildpack; what is past it is dropped with a note.
    pub log_bytes: u64,
    /// One line of output; longer ones are cut.
    pub log_line_bytes: u64,
    /// What `build` and `detect` return, without SBOMs.
    pub result_bytes: u64,
    /// One SBOM; all that is returned at once has to fit in `hostcall_bytes`, too.
    pub sbom_bytes: u64,
    /// Downloads at the same time.
    pub http_connections: u64,
    /// Everything that comes in over the network in one build.
    pub http_total_bytes: u64,
    /// One file of a source.
    pub http_body_bytes: u64,
    /// Redirects on the way to one file.
    pub http_redirects: u64,
    /// From the first packet to a connection, TLS included.
    pub http_connect_seconds: u64,
    /// From a request to the head of its answer.
    pub http_first_byte_seconds: u64,
    /// Between two pieces of a body.
    pub http_idle_seconds: u64,
    /// What a body has to bring in every second, on average over each minute;
    /// no line in use is slower, and who drips could otherwise hold a build for days.
    pub http_least_bytes_per_second: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            component_bytes: 64 * MIB,
            compile_cpu_seconds: 60,
            compile_memory_bytes: 2 * GIB,
            compile_output_bytes: 512 * MIB,
            detect_cpu_seconds: 30,
            build_cpu_seconds: 15 * 60,
            detect_wall_seconds: 60,
            build_wall_seconds: 20 * 60,
            memory_bytes: GIB,
            table_elements: 1_000_000,
            tables: 64,
            memories: 16,
            instances: 256,
            stack_bytes: 512 * KIB,
            hostcall_bytes: 16 * MIB,
            handles: 10_000,
            random_bytes: MIB,
            disk_bytes: 4 * GIB,
            disk_entries: 500_000,
            path_depth: 128,
            open_files: 1024,
            log_bytes: 8 * MIB,
            log_line_bytes: 16 * KIB,
            result_bytes: MIB,
            sbom_bytes: 16 * MIB,
            http_connections: 32,
            http_total_bytes: 8 * GIB,
            http_body_bytes: 2 * GIB,
            http_redirects: 5,
            http_connect_seconds: 10,
            http_first_byte_seconds: 30,
            http_idle_seconds: 30,
            http_least_bytes_per_second: KIB,
        }
    }
}

impl Limits {
    /// What one `detect` call may use.
    #[must_use]
    pub fn for_detect(&self) -> CallLimits {
        CallLimits {
            cpu: Duration::from_secs(self.detect_cpu_seconds),
            wall: Duration::from_secs(self.detect_wall_seconds),
            limits: self.clone(),
        }
    }

    /// What one `build` call may use.
    #[must_use]
    pub fn for_build(&self) -> CallLimits {
        CallLimits {
            cpu: Duration::from_secs(self.build_cpu_seconds),
            wall: Duration::from_secs(self.build_wall_seconds),
            limits: self.clone(),
        }
    }
}

/// A bill of materials of a classic buildpack; it is in memory as a whole.
const CLASSIC_SBOM_BYTES: u64 = 256 * MIB;

impl Limits {
    /// What one call of a classic buildpack may use. Its processes are those of the
    /// platform, which also limits them: time and output are not ours to bound.
    #[must_use]
    pub fn for_executables(&self) -> CallLimits {
        let limits =
            Self { log_bytes: u64::MAX, log_line_bytes: MIB, sbom_bytes: CLASSIC_SBOM_BYTES, ..self.clone() };
        CallLimits { cpu: Duration::MAX, wall: Duration::MAX, limits }
    }
}

/// The limits of one call: those of the build, and the two that depend on which call it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallLimits {
    /// CPU time of the guest's thread.
    pub cpu: Duration,
    /// From the call to its answer.
    pub wall: Duration,
    /// Everything else.
    pub limits: Limits,
}

/// Which limit was hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LimitKind {
    /// CPU time, in milliseconds.
    Cpu,
    /// Wall time, in milliseconds.
    Wall,
    /// Linear memory, in bytes.
    Memory,
    /// Linear memories, by number.
    Memories,
    /// Table elements.
    Tables,
    /// Tables, by number.
    TableCount,
    /// Core instances, by number.
    Instances,
    /// Stack of the guest.
    Stack,
    /// Bytes in one host call.
    HostCall,
    /// Live handles.
    Handles,
    /// Random bytes in one call.
    Random,
    /// Bytes on disk.
    DiskBytes,
    /// Entries on disk.
    DiskEntries,
    /// Size of what the guest returned.
    Result,
}

impl LimitKind {
    /// The stable id.
    #[must_use]
    pub fn id(self) -> &'static str {
        match self {
            Self::Cpu => "guest.cpu_limit",
            Self::Wall => "guest.wall_limit",
            Self::Memory | Self::Memories => "guest.memory_limit",
            Self::Tables | Self::TableCount => "guest.table_limit",
            Self::Instances => "guest.instance_limit",
            Self::Stack => "guest.stack_limit",
            Self::HostCall => "guest.hostcall_limit",
            Self::Handles => "guest.handle_limit",
            Self::Random => "guest.random_limit",
            Self::DiskBytes => "guest.disk_limit",
            Self::DiskEntries => "guest.inode_limit",
            Self::Result => "guest.result_limit",
        }
    }

    /// The field of the policy's `[limits]` table that sets it.
    #[must_use]
    pub fn field(self) -> &'static str {
        match self {
            Self::Cpu => "build_cpu_seconds` or `detect_cpu_seconds",
            Self::Wall => "build_wall_seconds` or `detect_wall_seconds",
            Self::Memory => "memory_bytes",
            Self::Memories => "memories",
            Self::Tables => "table_elements",
            Self::TableCount => "tables",
            Self::Instances => "instances",
            Self::Stack => "stack_bytes",
            Self::HostCall => "hostcall_bytes",
            Self::Handles => "handles",
            Self::Random => "random_bytes",
            Self::DiskBytes => "disk_bytes",
            Self::DiskEntries => "disk_entries",
            Self::Result => "result_bytes",
        }
    }

    /// What happened, as the predicate of "buildpack x …".
    #[must_use]
    pub fn what(self) -> &'static str {
        match self {
            Self::Cpu => "used up its CPU time",
            Self::Wall => "did not end in time",
            Self::Memory => "used up its memory",
            Self::Memories => "has too many memories",
            Self::Tables => "used up its table elements",
            Self::TableCount => "has too many tables",
            Self::Instances => "has too many instances",
            Self::Stack => "overflowed its stack",
            Self::HostCall => "passed too much in one host call",
            Self::Handles => "holds too many handles",
            Self::Random => "asked for too many random bytes at once",
            Self::DiskBytes => "wrote too many bytes",
            Self::DiskEntries => "made too many files",
            Self::Result => "returned too much",
        }
    }

    /// A value of this limit with its unit.
    #[must_use]
    pub fn show(self, value: u64) -> String {
        match self {
            Self::Cpu | Self::Wall => format!("{}.{:03} s", value / 1000, value % 1000),
            Self::Memories
            | Self::Tables
            | Self::TableCount
            | Self::Instances
            | Self::Handles
            | Self::DiskEntries => value.to_string(),
            Self::Memory | Self::Stack | Self::HostCall | Self::Random | Self::DiskBytes | Self::Result => {
                show_bytes(value)
            }
        }
    }

    /// What would help.
    #[must_use]
    pub fn hint(self) -> String {
        format!("the operator raises it with `{}` under `[limits]` in the policy file", self.field())
    }
}

/// Bytes as a person reads them; exact where the unit divides them.
#[must_use]
pub fn show_bytes(bytes: u64) -> String {
    for (unit, name) in [(GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")] {
        if bytes >= unit {
            return if bytes.is_multiple_of(unit) {
                format!("{} {name}", bytes / unit)
            } else {
                format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit)
            };
        }
    }
    format!("{bytes} B")
}
