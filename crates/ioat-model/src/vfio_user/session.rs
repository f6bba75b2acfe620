//! One client's requests, answered.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::{
    Event,
    device::Device,
    interrupts,
    memory::Access,
    message::{Bytes, MAX_DATA, MAX_FDS, Request},
    socket::Received,
};
use crate::{PAGE, config_space::CONFIG_SIZE, registers::BAR_SIZE};

/// Regions that VFIO numbers for PCI: six BARs, the expansion ROM, configuration space, VGA.
const REGIONS: u32 = 9;
const BAR_REGION: u32 = 0;
const CONFIG_REGION: u32 = 7;
/// `VFIO_REGION_INFO_FLAG_READ` and `_WRITE`.
const READ_WRITE: u32 = 1 << 0 | 1 << 1;
/// `VFIO_DEVICE_FLAGS_RESET` and `_PCI`.
const DEVICE_FLAGS: u32 = 1 << 0 | 1 << 1;
const DMA_MAP_READ: u32 = 1 << 0;
const DMA_MAP_WRITE: u32 = 1 << 1;
const DMA_UNMAP_ALL: u32 = 1 << 1;
/// Sizes of the structures that replies have, as they name them in `argsz`.
const DEVICE_INFO_SIZE: u32 = 16;
const REGION_INFO_SIZE: u32 = 32;
const IRQ_INFO_SIZE: u32 = 16;

/// A client's requests, from its first message on.
#[derive(Debug)]
pub(super) struct Session<'a> {
    device: &'a Device,
    /// Client and server have agreed on a version.
    agreed: bool,
}

impl<'a> Session<'a> {
    pub(super) const fn new(device: &'a Device) -> Self {
        Self { device, agreed: false }
    }

    /// Does what a message asks for, and returns the body of the reply.
    ///
    /// # Errors
    ///
    /// The error that is the reply.
    pub(super) fn handle(
        &mut self,
        received: Received,
        observer: &mut dyn FnMut(Event),
    ) -> Result<Vec<u8>, Errno> {
        let Received { header, body, files, too_many_files } = received;
        if too_many_files {
            return Err(Errno::INVAL);
        }
        let request = Request::parse(header.command, &body)?;
        // Only these two come with files.
        if !files.is_empty() && !matches!(request, Request::DmaMap { .. } | Request::SetIrqs { .. })
        {
            return Err(Errno::INVAL);
        }
        match request {
            Request::Version { major, minor } => return self.agree(major, minor),
            _ if !self.agreed => return Err(Errno::PROTO),
            _ => {}
        }
        let mut reply = Bytes::default();
        match request {
            Request::Version { .. } => {}
            Request::DmaMap { flags, offset, address, size } => {
                self.map(flags, offset, address, size, files)?;
            }
            Request::DmaUnmap { argsz, flags, address, size } => {
                let removed = self.unmap(flags, address, size)?;
                reply.u32(argsz).u32(flags).u64(address).u64(removed);
            }
            Request::DeviceInfo => {
                reply.u32(DEVICE_INFO_SIZE).u32(DEVICE_FLAGS).u32(REGIONS).u32(interrupts::KINDS);
            }
            Request::RegionInfo { index } => {
                let (flags, size) = match index {
                    BAR_REGION => (READ_WRITE, BAR_SIZE),
                    CONFIG_REGION => (READ_WRITE, CONFIG_SIZE),
                    _ if index < REGIONS => (0, 0),
                    _ => return Err(Errno::INVAL),
                };
                // No capabilities, and nothing to map: every access is a message.
                reply.u32(REGION_INFO_SIZE).u32(flags).u32(index).u32(0).u64(size).u64(0);
            }
            Request::IrqInfo { index } => {
                let (flags, count) = self.device.interrupt_info(index)?;
                reply.u32(IRQ_INFO_SIZE).u32(flags).u32(index).u32(count);
            }
            Request::SetIrqs { flags, index, start, count, data } => {
                self.device.set_interrupts(flags, index, (start, count), data, files)?;
            }
            Request::RegionRead { offset, region, count } => {
                let mut bytes = [0; MAX_DATA];
                let bytes = bytes.get_mut(..count).ok_or(Errno::INVAL)?;
                match region {
                    BAR_REGION => self.device.read_bar(offset, bytes)?,
                    CONFIG_REGION => self.device.read_config(offset, bytes)?,
                    _ => return Err(Errno::INVAL),
                }
                let config = region == CONFIG_REGION;
                observer(Event::Read { config, offset, len: count, value: number(bytes) });
                reply.u64(offset).u32(region).u32(count as u32).bytes(bytes);
            }
            Request::RegionWrite { offset, region, data } => {
                let config = region == CONFIG_REGION;
                observer(Event::Write { config, offset, len: data.len(), value: number(data) });
                match region {
                    BAR_REGION => self.device.write_bar(offset, data)?,
                    CONFIG_REGION => self.device.write_config(offset, data)?,
                    _ => return Err(Errno::INVAL),
                }
                reply.u64(offset).u32(region).u32(data.len() as u32);
            }
            Request::DeviceReset => self.device.reset(),
        }
        Ok(reply.take())
    }

    /// The first message. The server speaks version 0.1, whose minor number says nothing but that a
    /// client with a greater one is welcome too.
    fn agree(&mut self, major: u16, minor: u16) -> Result<Vec<u8>, Errno> {
        if self.agreed || major != 0 {
            return Err(Errno::PROTONOSUPPORT);
        }
        self.agreed = true;
        // `max_dma_maps` is left at its default, 65535: QEMU takes no more, and then maps more.
        let capabilities = format!(
            "{{\"capabilities\":{{\"max_msg_fds\":{MAX_FDS},\"max_data_xfer_size\":{MAX_DATA},\
             \"pgsizes\":{PAGE}}}}}\0"
        );
        let mut reply = Bytes::default();
        reply.u16(0).u16(minor.min(1)).bytes(capabilities.as_bytes());
        Ok(reply.take())
    }

    fn map(
        &self,
        flags: u32,
        offset: u64,
        address: u64,
        size: u64,
        mut files: Vec<OwnedFd>,
    ) -> Result<(), Errno> {
        if flags & !(DMA_MAP_READ | DMA_MAP_WRITE) != 0 || files.len() > 1 {
            return Err(Errno::INVAL);
        }
        let access = Access { read: flags & DMA_MAP_READ != 0, write: flags & DMA_MAP_WRITE != 0 };
        let file = files.pop().map(|file| (file, offset));
        self.device.memory().map(address, size, access, file)
    }

    /// Returns when nothing moves in the memory any more: [`Device::memory`] waits for that.
    fn unmap(&self, flags: u32, address: u64, size: u64) -> Result<u64, Errno> {
        let mut memory = self.device.memory();
        match flags {
            0 => memory.unmap(address, size),
            DMA_UNMAP_ALL if address == 0 && size == 0 => Ok(memory.unmap_all()),
            // Dirty pages are not tracked.
            _ => Err(Errno::INVAL),
        }
    }
}

/// The first eight bytes as a number.
fn number(bytes: &[u8]) -> u64 {
    let mut value = [0; 8];
    value.iter_mut().zip(bytes).for_each(|(value, byte)| *value = *byte);
    u64::from_le_bytes(value)
}
