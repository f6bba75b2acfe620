//! Guest memory: sixteen pages in a row, each with an access of its own, and a record of writes.

use ioat_model::{Memory, MemoryError, MoveError};

pub(crate) const PAGE: u64 = 4096;
pub(crate) const PAGES: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    None,
    ReadOnly,
    ReadWrite,
    /// It is there and fails.
    Broken,
}

pub(crate) struct Guest {
    pub(crate) base: u64,
    pub(crate) access: [Access; PAGES],
    bytes: Vec<u8>,
    /// Addresses and lengths, since [`take_writes`](Self::take_writes).
    writes: Vec<(u64, u64)>,
    /// Words read at once, with their address.
    pub(crate) reads: Vec<(u64, Vec<u64>)>,
}

impl Guest {
    pub(crate) fn new(base: u64, access: [Access; PAGES]) -> Self {
        let bytes = vec![0; PAGES * PAGE as usize];
        Self { base, access, bytes, writes: Vec::new(), reads: Vec::new() }
    }

    pub(crate) fn take_writes(&mut self) -> Vec<(u64, u64)> {
        std::mem::take(&mut self.writes)
    }

    /// What the driver writes; it may write anywhere in its own memory.
    pub(crate) fn poke(&mut self, address: u64, bytes: &[u8]) {
        for (index, byte) in bytes.iter().enumerate() {
            let at = address.wrapping_add(index as u64).wrapping_sub(self.base);
            if let Some(place) = usize::try_from(at).ok().and_then(|at| self.bytes.get_mut(at)) {
                *place = *byte;
            }
        }
    }

    /// Where the bytes are, if all of them may be accessed. Else what is wrong with the first that
    /// may not.
    fn place(&self, address: u64, len: u64, write: bool) -> Result<usize, MemoryError> {
        for offset in 0..len {
            let at = address.checked_add(offset).ok_or(MemoryError::Address)?;
            let at = at.checked_sub(self.base).ok_or(MemoryError::Address)?;
            match self.access.get((at / PAGE) as usize).copied() {
                None | Some(Access::None) => return Err(MemoryError::Address),
                Some(Access::Broken) => return Err(MemoryError::Data),
                Some(Access::ReadOnly) if write => return Err(MemoryError::Address),
                Some(Access::ReadOnly | Access::ReadWrite) => {}
            }
        }
        Ok(address.wrapping_sub(self.base) as usize)
    }
}

impl Memory for Guest {
    fn read(&mut self, address: u64, words: &mut [u64]) -> Result<(), MemoryError> {
        assert!(address.is_multiple_of(8), "words are aligned: {address:#x}");
        let at = self.place(address, words.len() as u64 * 8, false)?;
        for (word, bytes) in words.iter_mut().zip(self.bytes[at..].chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().expect("8 bytes"));
        }
        self.reads.push((address, words.to_vec()));
        Ok(())
    }

    fn write(&mut self, address: u64, word: u64) -> Result<(), MemoryError> {
        assert!(address.is_multiple_of(8), "words are aligned: {address:#x}");
        self.write_bytes(address, &word.to_le_bytes())
    }

    fn read_bytes(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), MemoryError> {
        let at = self.place(address, bytes.len() as u64, false)?;
        bytes.copy_from_slice(&self.bytes[at..at + bytes.len()]);
        Ok(())
    }

    fn write_bytes(&mut self, address: u64, bytes: &[u8]) -> Result<(), MemoryError> {
        let at = self.place(address, bytes.len() as u64, true)?;
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self.writes.push((address, bytes.len() as u64));
        Ok(())
    }

    fn copy(&mut self, source: u64, target: u64, len: u32) -> Result<(), MoveError> {
        let from = self.place(source, len.into(), false).map_err(MoveError::Source)?;
        let to = self.place(target, len.into(), true).map_err(MoveError::Target)?;
        self.bytes.copy_within(from..from + len as usize, to);
        self.writes.push((target, len.into()));
        Ok(())
    }

    fn fill(&mut self, target: u64, pattern: u64, len: u32) -> Result<(), MemoryError> {
        let at = self.place(target, len.into(), true)?;
        let pattern = pattern.to_le_bytes();
        for (index, byte) in self.bytes[at..at + len as usize].iter_mut().enumerate() {
            *byte = pattern[index % 8];
        }
        self.writes.push((target, len.into()));
        Ok(())
    }
}
