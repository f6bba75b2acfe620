//! PCI configuration space, as vfio-pci lets a process have it.

use std::{io, os::fd::AsFd};

use vfio_bindings::bindings::vfio::VFIO_PCI_CONFIG_REGION_INDEX;

use super::ioctl;

/// PCI's COMMAND register. 16 bits.
const COMMAND: u16 = 0x04;
/// [`COMMAND`]: the device answers to its BARs' addresses.
const COMMAND_MEMORY: u16 = 1 << 1;
/// [`COMMAND`]: the device may access memory.
const COMMAND_MASTER: u16 = 1 << 2;

/// Where configuration space is in the function's file.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConfigSpace {
    offset: u64,
    size: u64,
}

impl ConfigSpace {
    pub(super) fn new(device: impl AsFd) -> io::Result<Self> {
        let region = ioctl::region(device, VFIO_PCI_CONFIG_REGION_INDEX)?;
        Ok(Self { offset: region.offset, size: region.size })
    }

    /// Lets the function answer and access memory: bus mastering is off when it was given to us.
    pub(super) fn enable(self, device: impl AsFd) -> io::Result<()> {
        let mut command = [0; 2];
        self.read(&device, COMMAND, &mut command)?;
        let command = u16::from_le_bytes(command) | COMMAND_MEMORY | COMMAND_MASTER;
        self.write(&device, COMMAND, &command.to_le_bytes())
    }

    /// 32 bits; 0 where there is nothing, and if the function has left the bus.
    pub(super) fn read32(self, device: impl AsFd, offset: u16) -> u32 {
        let mut word = [0; 4];
        match self.read(device, offset, &mut word) {
            Ok(()) => u32::from_le_bytes(word),
            Err(_) => 0,
        }
    }

    /// Ignored where there is nothing, and if the function has left the bus.
    pub(super) fn write32(self, device: impl AsFd, offset: u16, value: u32) {
        let _ = self.write(device, offset, &value.to_le_bytes());
    }

    fn read(self, device: impl AsFd, offset: u16, bytes: &mut [u8]) -> io::Result<()> {
        let place = self.place(offset, bytes.len())?;
        let len = bytes.len();
        // The kernel reads registers whole.
        whole(rustix::io::pread(device, bytes, place)?, len)
    }

    fn write(self, device: impl AsFd, offset: u16, bytes: &[u8]) -> io::Result<()> {
        let place = self.place(offset, bytes.len())?;
        whole(rustix::io::pwrite(device, bytes, place)?, bytes.len())
    }

    fn place(self, offset: u16, len: usize) -> io::Result<u64> {
        let end = u64::from(offset) + len as u64;
        if end > self.size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(self.offset + u64::from(offset))
    }
}

fn whole(done: usize, len: usize) -> io::Result<()> {
    if done == len { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Read, os::fd::OwnedFd};

    use rustix::fs::MemfdFlags;

    use super::*;

    /// A file in place of a function's, with 256 bytes of configuration space at 0x1000.
    fn file() -> (OwnedFd, ConfigSpace) {
        let file = rustix::fs::memfd_create("config", MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&file, 0x1100).unwrap();
        (file, ConfigSpace { offset: 0x1000, size: 0x100 })
    }

    #[test]
    fn little_endian_and_no_further_than_the_end() {
        let (file, config) = file();
        config.write32(&file, 0x10, 0x1122_3344);
        assert_eq!(config.read32(&file, 0x10), 0x1122_3344);
        assert_eq!(config.read32(&file, 0x11), 0x0011_2233);
        for offset in [0x100, 0xfd, 0x180, u16::MAX] {
            config.write32(&file, offset, u32::MAX);
            assert_eq!(config.read32(&file, offset), 0, "{offset:#x}");
        }
        let mut bytes = Vec::new();
        File::from(file).read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len(), 0x1100, "nothing was written behind it");
        assert_eq!(bytes[0x1010..0x1014], [0x44, 0x33, 0x22, 0x11]);
    }

    #[test]
    fn enabling_keeps_what_is_set() {
        let (file, config) = file();
        config.write32(&file, COMMAND, 0xffff_0400);
        config.enable(&file).unwrap();
        assert_eq!(config.read32(&file, COMMAND), 0xffff_0406);
    }
}
