/// What a link has counted since it was opened. Every frame that is dropped has a reason here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Frames delivered; a super-frame is one.
    pub rx_frames: u64,
    /// Their bytes, from the Ethernet header on.
    pub rx_bytes: u64,
    /// Those of them that were copied to a small slot.
    pub rx_copied: u64,
    /// Dropped: shorter than an Ethernet header.
    pub rx_too_short: u64,
    /// Dropped: longer than a receive buffer.
    pub rx_truncated: u64,
    /// Dropped: an offload that was never negotiated, or offsets outside the frame.
    pub rx_bad_offload: u64,
    /// Dropped: all receive buffers are in use, but for the one that short frames pass through.
    pub rx_no_buffer: u64,
    /// Frames transmitted; a super-frame is one.
    pub tx_frames: u64,
    /// Their bytes, from the Ethernet header on.
    pub tx_bytes: u64,
    /// Refused: the queue was full.
    pub tx_full: u64,
    /// Refused: malformed, too long, or in need of an offload that the link lacks.
    pub tx_invalid: u64,
    /// Refused: the link was down, deleted, or the operating system failed.
    pub tx_failed: u64,
}

impl Statistics {
    pub(crate) fn count_received(&mut self, len: usize) {
        self.rx_frames += 1;
        self.rx_bytes += len as u64;
    }

    /// Counts the outcome of a transmission of `len` bytes.
    pub(crate) fn count_transmitted(
        &mut self,
        len: usize,
        outcome: &Result<(), crate::TransmitError>,
    ) {
        use crate::TransmitError as E;
        match outcome {
            Ok(()) => {
                self.tx_frames += 1;
                self.tx_bytes += len as u64;
            }
            Err(E::Full) => self.tx_full += 1,
            Err(E::TooShort { .. } | E::TooLong { .. } | E::Unsupported | E::BadOffload) => {
                self.tx_invalid += 1;
            }
            Err(E::Down | E::Gone | E::Os(_)) => self.tx_failed += 1,
        }
    }
}
