/// Why the CPU copied bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CpuCause {
    /// There is no engine, or the copybreak is `off`.
    NoEngine,
    /// The read was not longer than the copybreak.
    Copybreak,
    /// The engine's ring had no room.
    RingFull,
    /// The engine cannot reach the program's buffer: it is in no mapped arena.
    Unreachable,
    /// The engine failed a short while ago and rests.
    Resting,
    /// The engine was given the copy and did not do it: error, halt or timeout.
    Failed,
}

impl CpuCause {
    /// All causes, in the order of [`Counters::bytes_by_cpu`].
    pub const ALL: [Self; 6] = [
        Self::NoEngine,
        Self::Copybreak,
        Self::RingFull,
        Self::Unreachable,
        Self::Resting,
        Self::Failed,
    ];

    /// A word for it, as outputs print it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoEngine => "no engine",
            Self::Copybreak => "below copybreak",
            Self::RingFull => "ring full",
            Self::Unreachable => "not reachable",
            Self::Resting => "engine resting",
            Self::Failed => "engine failed",
        }
    }
}

/// What the offload did since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes that the engine copied, successfully.
    pub bytes_by_engine: u64,
    /// Bytes that the CPU copied, by cause; index with `CpuCause as usize`.
    pub bytes_by_cpu: [u64; CpuCause::ALL.len()],
    /// Copies issued to the engine.
    pub copies_issued: u64,
    /// Copies that the engine failed or did not finish, done again by the CPU.
    pub copies_repeated: u64,
    /// Times the engine made no progress, or took no copies, and was reset.
    pub engine_resets: u64,
}

impl Counters {
    /// All bytes that the CPU copied.
    #[must_use]
    pub fn bytes_by_cpu_total(&self) -> u64 {
        self.bytes_by_cpu.iter().sum()
    }

    pub(crate) fn count_cpu(&mut self, cause: CpuCause, bytes: usize) {
        self.bytes_by_cpu[cause as usize] += bytes as u64;
    }
}
