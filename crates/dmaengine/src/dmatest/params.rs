use std::time::Duration;

use crate::{ArenaFull, Capabilities, ChannelInfo, OperationKind, SubmitError};

/// What is tested.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Operation {
    /// Copies.
    #[default]
    Memcpy,
    /// Fills with a random pattern of 8 bytes.
    Memset,
    /// Exclusive ors of several sources, and the channel's own check of them.
    Xor,
    /// P and Q of several sources, and the channel's own check of them.
    Pq,
}

impl Operation {
    /// What a channel must be able to do.
    #[must_use]
    pub const fn kind(self) -> OperationKind {
        match self {
            Self::Memcpy => OperationKind::Memcpy,
            Self::Memset => OperationKind::Memset,
            Self::Xor => OperationKind::Xor,
            Self::Pq => OperationKind::Pq,
        }
    }
}

/// How it is tested. The names are Linux's, where it has them, and so are the defaults, but for
/// [`iterations`](Self::iterations).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params {
    /// What is tested (Linux: `dmatest`).
    pub operation: Operation,
    /// Tests per thread; 0, which is Linux's default, for no end ([`run_while`](super::run_while)
    /// only).
    pub iterations: u64,
    /// Operations in flight at a time, each with buffers of its own.
    pub threads_per_chan: usize,
    /// The length of the buffers, in bytes. Operations are of 1 up to this many.
    pub test_buf_size: usize,
    /// The length of every operation, in bytes; 0 for random ones.
    pub transfer_size: usize,
    /// All operations begin at the buffers' first byte, and have their length, unless
    /// `transfer_size` gives another.
    pub norandom: bool,
    /// Places and lengths are multiples of 2 to the power of this, in bytes; `None` for what the
    /// channel needs.
    pub alignment: Option<u8>,
    /// Sources of an exclusive or.
    pub xor_sources: usize,
    /// Sources of P and Q.
    pub pq_sources: usize,
    /// Buffers are neither filled nor checked: the channel's errors still count.
    pub noverify: bool,
    /// Completions are polled for, and not waited for with the channel's event.
    pub polled: bool,
    /// Where the random numbers begin: the same seed makes the same tests. (Linux has no such
    /// parameter.)
    pub seed: u64,
    /// How long an operation may take.
    pub timeout: Duration,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            operation: Operation::Memcpy,
            iterations: 1000,
            threads_per_chan: 1,
            test_buf_size: 16384,
            transfer_size: 0,
            norandom: false,
            alignment: None,
            xor_sources: 3,
            pq_sources: 3,
            noverify: false,
            polled: false,
            seed: 1,
            timeout: Duration::from_secs(3),
        }
    }
}

/// Why nothing was tested.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// A parameter is zero that must not be.
    #[error("{parameter} is zero: use at least 1")]
    Zero {
        /// Its name, as Linux's module has it.
        parameter: &'static str,
    },
    /// Without an end, somebody must break it off.
    #[error("the number of iterations is zero: give one, or use run_while and break it off")]
    Endless,
    /// Operations do not fit their buffers.
    #[error("{transfer_size} bytes do not fit buffers of {test_buf_size}: use larger ones")]
    TransferSize {
        /// The length asked for.
        transfer_size: usize,
        /// The buffers' length.
        test_buf_size: usize,
    },
    /// No aligned place is in the buffers, or buffers cannot begin at one.
    #[error(
        "an alignment of 2^{power} bytes is not possible: use at most 2^12, and no more than the \
         buffer size and the transfer size"
    )]
    Alignment {
        /// The power of two.
        power: u8,
    },
    /// The channel cannot do the operation, or not with as many sources, or not one as long as the
    /// buffers.
    #[error(transparent)]
    Channel(#[from] SubmitError),
    /// The arena has no room for the buffers.
    #[error(transparent)]
    ArenaFull(#[from] ArenaFull),
}

/// Buffers begin at a page, which is aligned enough for all that is asked for.
pub(super) const PAGE: usize = 4096;

impl Params {
    /// The length of the arena that the buffers need.
    #[must_use]
    pub fn arena_len(&self) -> usize {
        let (sources, targets) = self.buffers();
        let each = self.test_buf_size.max(1).saturating_add(PAGE).next_multiple_of(PAGE);
        each.saturating_mul(sources.saturating_add(targets))
            .saturating_mul(self.threads_per_chan.max(1))
    }

    /// How many sources and targets each thread has.
    pub(super) const fn buffers(&self) -> (usize, usize) {
        match self.operation {
            Operation::Memcpy | Operation::Memset => (1, 1),
            Operation::Xor => (self.xor_sources, 1),
            Operation::Pq => (self.pq_sources, 2),
        }
    }

    /// What places and lengths are multiples of on such a channel, in bytes.
    pub(super) const fn alignment(&self, info: &ChannelInfo) -> usize {
        match self.alignment {
            Some(power) => 1 << power,
            None => info.alignment.get(),
        }
    }

    /// Whether the channel itself can check what it has computed.
    pub(super) fn can_check(&self, info: &ChannelInfo) -> bool {
        match self.operation {
            Operation::Memcpy | Operation::Memset => false,
            // Parity is one source more.
            Operation::Xor => {
                info.capabilities.contains(Capabilities::XOR_VAL) && self.xor_sources < info.max_xor
            }
            Operation::Pq => info.capabilities.contains(Capabilities::PQ_VAL),
        }
    }

    /// Whether all of it is possible on such a channel.
    pub(super) fn check(&self, info: &ChannelInfo) -> Result<(), RunError> {
        let Self { test_buf_size, transfer_size, threads_per_chan, timeout, .. } = *self;
        for (parameter, is_zero) in [
            ("test_buf_size", test_buf_size == 0),
            ("threads_per_chan", threads_per_chan == 0),
            ("timeout", timeout.is_zero()),
        ] {
            if is_zero {
                return Err(RunError::Zero { parameter });
            }
        }
        if transfer_size > test_buf_size {
            return Err(RunError::TransferSize { transfer_size, test_buf_size });
        }
        let shortest = if transfer_size == 0 { test_buf_size } else { transfer_size };
        let power = self.alignment.unwrap_or_else(|| info.alignment.trailing_zeros() as u8);
        if power > 12 || 1 << power > shortest {
            return Err(RunError::Alignment { power });
        }
        let kind = self.operation.kind();
        if !info.capabilities.contains(kind.capability()) {
            return Err(SubmitError::Unsupported { operation: kind }.into());
        }
        let (sources, _) = self.buffers();
        let max = match self.operation {
            Operation::Memcpy | Operation::Memset => 1,
            Operation::Xor => info.max_xor,
            Operation::Pq => info.max_pq,
        };
        if sources == 0 || sources > max {
            return Err(SubmitError::SourceCount { sources, max }.into());
        }
        if info.descriptors(shortest) > info.ring_size {
            let max = info.xfercap.get().saturating_mul(info.ring_size);
            return Err(SubmitError::TooLong { len: shortest, max }.into());
        }
        Ok(())
    }
}
