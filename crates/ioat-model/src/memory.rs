//! How the device reaches memory.

use crate::registers::ChanErr;

/// Why an access did not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum MemoryError {
    /// No memory is mapped there, or not with the needed permission.
    #[error("no memory is mapped at this address")]
    Address,
    /// The memory is there and failed (an uncorrectable error).
    #[error("the memory failed")]
    Data,
}

/// Which side of a move failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum MoveError {
    /// Reading the source.
    #[error("reading the source: {0}")]
    Source(MemoryError),
    /// Writing the target.
    #[error("writing the target: {0}")]
    Target(MemoryError),
}

impl From<MoveError> for ChanErr {
    fn from(error: MoveError) -> Self {
        match error {
            MoveError::Source(MemoryError::Address) => Self::SOURCE_ADDRESS,
            MoveError::Source(MemoryError::Data) => Self::READ_DATA,
            MoveError::Target(MemoryError::Address) => Self::DESTINATION_ADDRESS,
            MoveError::Target(MemoryError::Data) => Self::WRITE_DATA,
        }
    }
}

/// Memory as the device addresses it (bus addresses, behind the IOMMU if there is one).
pub trait Memory {
    /// Reads 64-bit words from `address`, a multiple of 8, each of them at once.
    ///
    /// # Errors
    ///
    /// [`MemoryError`]; `words` may then be partly filled.
    fn read(&mut self, address: u64, words: &mut [u64]) -> Result<(), MemoryError>;

    /// Writes one 64-bit word to `address`, a multiple of 8, at once and after everything written
    /// before.
    ///
    /// # Errors
    ///
    /// [`MemoryError`]; nothing was written.
    fn write(&mut self, address: u64, word: u64) -> Result<(), MemoryError>;

    /// Reads bytes from `address` on.
    ///
    /// # Errors
    ///
    /// [`MemoryError`]; `bytes` may then be partly filled.
    fn read_bytes(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), MemoryError>;

    /// Writes bytes from `address` on.
    ///
    /// # Errors
    ///
    /// [`MemoryError`]; a part may have been written.
    fn write_bytes(&mut self, address: u64, bytes: &[u8]) -> Result<(), MemoryError>;

    /// Copies `len` bytes. If the two overlap, which bytes the target gets is unspecified.
    ///
    /// # Errors
    ///
    /// [`MoveError`]; a part of the target may have been written.
    fn copy(&mut self, source: u64, target: u64, len: u32) -> Result<(), MoveError>;

    /// Repeats `pattern`, lowest byte first, over `len` bytes; the last repetition may be cut.
    ///
    /// # Errors
    ///
    /// [`MemoryError`]; a part of the target may have been written.
    fn fill(&mut self, target: u64, pattern: u64, len: u32) -> Result<(), MemoryError>;
}
