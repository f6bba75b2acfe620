use std::{fmt, num::NonZeroUsize};

bitflags::bitflags! {
    /// What a channel can do, with the names of Linux's `enum dma_transaction_type`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Capabilities: u32 {
        /// Copies memory to memory.
        const MEMCPY = 1 << 0;
        /// Copies between lists of pieces.
        const MEMCPY_SG = 1 << 1;
        /// Fills memory with an 8-byte pattern.
        const MEMSET = 1 << 2;
        /// Writes the exclusive or of several sources.
        const XOR = 1 << 3;
        /// Checks that the exclusive or of several sources is zero.
        const XOR_VAL = 1 << 4;
        /// Writes the syndromes P and Q of several sources.
        const PQ = 1 << 5;
        /// Checks the syndromes P and Q of several sources.
        const PQ_VAL = 1 << 6;
        /// Can signal completion through an event ([`crate::DmaChannel::arm`]).
        const INTERRUPT = 1 << 7;
        /// Not handed out by shared look-up; only to a client that asks for it by name.
        const PRIVATE = 1 << 8;
        /// Keeps the order that [`Flags::FENCE`](crate::Flags::FENCE) asks for.
        const FENCE = 1 << 9;
        /// Heeds [`Flags::TO_CACHE`](crate::Flags::TO_CACHE) and
        /// [`Flags::TO_MEMORY`](crate::Flags::TO_MEMORY).
        const CACHE_HINT = 1 << 10;
    }
}

impl Capabilities {
    /// The names, first those of Linux's `quickdata/cap` file in its order, then ours.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        [
            (Self::MEMCPY, "copy"),
            (Self::PQ, "pq"),
            (Self::PQ_VAL, "pq_val"),
            (Self::XOR, "xor"),
            (Self::XOR_VAL, "xor_val"),
            (Self::MEMSET, "fill"),
            (Self::INTERRUPT, "intr"),
            (Self::MEMCPY_SG, "copy_sg"),
            (Self::FENCE, "fence"),
            (Self::CACHE_HINT, "cache_hint"),
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
    /// The most pieces on either side of a scatter-gather copy.
    pub max_sg: usize,
    /// The most sources of an exclusive or.
    pub max_xor: usize,
    /// The most sources of P and Q.
    pub max_pq: usize,
    /// All addresses and lengths must be multiples of it, in bytes: a power of two, 1 for none.
    /// (Linux: `copy_align` and its siblings, as a logarithm.)
    pub alignment: NonZeroUsize,
    /// The NUMA node that the engine is nearest to, if that is known.
    pub numa_node: Option<u32>,
}

impl ChannelInfo {
    /// The properties of a plain channel of process addresses: in order, without a limit on length
    /// or alignment, able to do nothing, with a ring of 1. What differs is set afterwards.
    #[must_use]
    pub fn new(engine: impl Into<String>, kind: Kind) -> Self {
        Self {
            engine: engine.into(),
            kind,
            version: None,
            capabilities: Capabilities::empty(),
            addressing: Addressing::Process,
            ordering: Ordering::InOrder,
            partial_completion: false,
            xfercap: NonZeroUsize::MAX,
            ring_size: 1,
            max_sg: 0,
            max_xor: 0,
            max_pq: 0,
            alignment: NonZeroUsize::MIN,
            numa_node: None,
        }
    }

    /// Descriptors that an operation of `len` bytes takes.
    #[must_use]
    #[inline]
    pub const fn descriptors(&self, len: usize) -> usize {
        // Nearly always one; a division costs more than all other checks together.
        let xfercap = self.xfercap.get();
        if len <= xfercap { (len != 0) as usize } else { len.div_ceil(xfercap) }
    }
}
