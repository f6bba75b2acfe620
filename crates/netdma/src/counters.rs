use std::time::Duration;

use dmaengine::FallbackCause;

/// Why the CPU copied bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CpuCause {
    /// There is no engine.
    NoEngine,
    /// The policy is not to use it: the copybreak is `off`.
    Policy,
    /// The read was not longer than the copybreak.
    Copybreak,
    /// The call only looked ([`RecvFlags::PEEK`](crate::RecvFlags::PEEK)).
    Peek,
    /// The engine had enough to do: the CPU copied its share of a read, so that both ended together.
    Shared,
    /// The engine's ring had no room.
    RingFull,
    /// The engine cannot copy so much at once, or to such an address.
    Unsupported,
    /// The engine cannot reach the program's buffer: it is in no mapped arena.
    Unreachable,
    /// The engine failed a short while ago and rests.
    Resting,
    /// The engine was given the copy and did not do it: error, halt or timeout; or it was down.
    Failed,
}

impl CpuCause {
    /// All causes, in the order of [`Counters::bytes_by_cpu`].
    pub const ALL: [Self; 10] = [
        Self::NoEngine,
        Self::Policy,
        Self::Copybreak,
        Self::Peek,
        Self::Shared,
        Self::RingFull,
        Self::Unsupported,
        Self::Unreachable,
        Self::Resting,
        Self::Failed,
    ];

    /// A word for it, as outputs print it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoEngine => "no engine",
            Self::Policy => "policy",
            Self::Copybreak => "below copybreak",
            Self::Peek => "peek",
            Self::Shared => "shared with the engine",
            Self::RingFull => "ring full",
            Self::Unsupported => "not supported",
            Self::Unreachable => "not reachable",
            Self::Resting => "engine resting",
            Self::Failed => "engine failed",
        }
    }
}

impl From<FallbackCause> for CpuCause {
    fn from(cause: FallbackCause) -> Self {
        match cause {
            FallbackCause::RingFull => Self::RingFull,
            FallbackCause::Unsupported => Self::Unsupported,
            FallbackCause::Unreachable => Self::Unreachable,
            FallbackCause::Resting => Self::Resting,
            FallbackCause::Failed | FallbackCause::TimedOut => Self::Failed,
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
    /// Copies that the engine did, successfully.
    pub copies_by_engine: u64,
    /// Copies that the engine failed or did not finish, or was down for, tried again by the CPU.
    pub copies_repeated: u64,
    /// Copies, by engine or CPU, for calls that waited for what was copied: they ran before the
    /// program did, beside the processing of the next packets.
    pub early_copies: u64,
    /// Calls that had all they wanted, but for copies in flight.
    pub waits: u64,
    /// How long these took, all together.
    pub wait_time: Duration,
    /// Times the engine made no progress, or took no copies, and was reset.
    pub engine_resets: u64,
}

impl Counters {
    /// All bytes that the CPU copied.
    #[must_use]
    pub fn bytes_by_cpu_total(&self) -> u64 {
        self.bytes_by_cpu.iter().sum()
    }

    /// A copy of `bytes` has ended, by the engine or, for this cause, by the CPU below it.
    pub(crate) fn count_end(&mut self, fallback: Option<FallbackCause>, bytes: usize) {
        let Some(cause) = fallback.map(CpuCause::from) else {
            self.copies_by_engine += 1;
            self.bytes_by_engine += bytes as u64;
            return;
        };
        self.copies_repeated += u64::from(cause == CpuCause::Failed);
        self.count_cpu(cause, bytes);
    }

    pub(crate) fn count_cpu(&mut self, cause: CpuCause, bytes: usize) {
        self.bytes_by_cpu[cause as usize] += bytes as u64;
    }
}
