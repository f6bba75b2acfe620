use std::{fmt, num::NonZeroUsize};

bitflags::bitflags! {
    /// What a channel can do, with the names of Linux's `enum dma_transaction_type`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Capabilities: u32 {
        /// Copies memory to memory.
        const MEMCPY = 1 << 0;
        /// Fills memory with an 8-byte pattern.
        const MEMSET = 1 << 1;
        /// Can signal completion through an event ([`crate::DmaChannel::arm`]).
        const INTERRUPT = 1 << 2;
        /// Not handed out by shared look-up; only to a client that asks for it by name.
        const PRIVATE = 1 << 3;
    }
}

impl Capabilities {
    /// The names as Linux's `quickdata/cap` file prints them, in its order.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        [
            (Self::MEMCPY, "copy"),
            (Self::MEMSET, "fill"),
            (Self::INTERRUPT, "intr"),
            (Self::PRIVATE, "private"),
        ]
        .into_iter()
        .filter_map(move |(bit, name)| self.contains(bit).then_some(name))
    }
}

/// What moves the bytes. Every figure names it: a model's or a thread's speed is not hardware's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The calling thread.
    Cpu,
    /// Other threads of this process.
    Software,
    /// A device model: the driver is real, the device is not.
    Model,
    /// A physical engine.
    Hardware,
}

impl Kind {
    /// The word that every output uses.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Software => "software",
            Self::Model => "model",
            Self::Hardware => "hardware",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Which addresses an engine takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Addressing {
    /// Process addresses: all memory of this process is reachable (threads, shared virtual memory).
    Process,
    /// IOVAs: only arenas that were mapped for the device are reachable.
    Iova,
}

/// Whether operations of one channel end in the order of their submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ordering {
    /// The end of one implies the end of all before it.
    InOrder,
    /// Ends are independent of each other (Linux: `DMA_COMPLETION_NO_ORDER`).
    OutOfOrder,
}

/// The fixed properties of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelInfo {
    /// The engine's name as `--engine` takes it: `cpu`, `threads`, `ioat-model`, `ioat:ADDRESS`.
    pub engine: String,
    /// What moves the bytes.
    pub kind: Kind,
    /// The hardware's version, such as `3.2`, for engines that have one.
    pub version: Option<String>,
    /// What it can do.
    pub capabilities: Capabilities,
    /// Which addresses it takes.
    pub addressing: Addressing,
    /// In which order operations end.
    pub ordering: Ordering,
    /// Whether [`crate::Completion::bytes`] of a failed copy may be other than 0 (DSA's
    /// `bytes_completed`).
    pub partial_completion: bool,
    /// The most bytes that one descriptor moves (I/OAT: XFERCAP). Longer operations take
    /// `len.div_ceil(xfercap)` descriptors.
    pub xfercap: NonZeroUsize,
    /// The most descriptors that can be submitted and not yet reported.
    pub ring_size: usize,
}

impl ChannelInfo {
    /// Descriptors that an operation of `len` bytes takes.
    #[must_use]
    pub const fn descriptors(&self, len: usize) -> usize {
        len.div_ceil(self.xfercap.get())
    }
}
