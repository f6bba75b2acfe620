//! What accompanies a frame.

/// Whether somebody has checked a received frame's transport checksum already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// Nobody has: the stack does.
    Unverified,
    /// The link vouches for it: it was checked in hardware, or the frame never left this machine.
    Verified,
}

/// What the link says about a received frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RxMeta {
    /// The state of its transport checksum.
    pub checksum: Checksum,
}

/// A checksum that the link has to complete: the field holds the sum of the pseudo-header; the
/// link adds everything from `start` to the end of the frame, and stores the complement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartialChecksum {
    /// Where summing starts, in bytes from the Ethernet header on.
    pub start: usize,
    /// Where the 16-bit field is, in bytes from `start` on.
    pub offset: usize,
}

/// A TCP super-frame: the link cuts its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// Payload bytes of each segment; the last may have fewer.
    pub segment_size: usize,
    /// Ethernet, IP and TCP headers together, in bytes.
    pub header_len: usize,
}

/// What the link must do with a frame to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TxMeta {
    /// The frame's length in bytes.
    pub len: usize,
    /// Complete this checksum; `None`: all checksums are complete.
    pub checksum: Option<PartialChecksum>,
    /// Cut it into segments; `None`: it is one frame.
    pub gso: Option<Gso>,
}
