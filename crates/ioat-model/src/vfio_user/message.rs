//! The protocol's messages: bytes in, requests out, and replies as bytes.
//!
//! Nothing here trusts a length. The layout is that of version 0.1, as QEMU and libvfio-user speak
//! it: little endian, a header of 16 bytes, then the structure of the `ioctl` that the command is
//! named after.

use rustix::io::Errno;

/// Size of the header that every message begins with.
pub(super) const HEADER_SIZE: usize = 16;
/// The most bytes of a region in one message, which the client is told as `max_data_xfer_size`.
/// The largest region is BAR 0.
pub(super) const MAX_DATA: usize = 16 << 10;
/// The longest message that is read. A longer one ends the connection: what follows it in the
/// stream would have to be read to get at the next.
pub(super) const MAX_MESSAGE: usize = 64 << 10;
/// The most file descriptors that are taken with one message; the client is told.
pub(super) const MAX_FDS: usize = 16;

const REPLY: u32 = 1;
const TYPE: u32 = 0xf;
const NO_REPLY: u32 = 1 << 4;
const ERROR: u32 = 1 << 5;

const VERSION: u16 = 1;
const DMA_MAP: u16 = 2;
const DMA_UNMAP: u16 = 3;
const DEVICE_GET_INFO: u16 = 4;
const DEVICE_GET_REGION_INFO: u16 = 5;
const DEVICE_GET_IRQ_INFO: u16 = 7;
const DEVICE_SET_IRQS: u16 = 8;
const REGION_READ: u16 = 9;
const REGION_WRITE: u16 = 10;
const DEVICE_RESET: u16 = 13;

/// Why the rest of a stream has no meaning any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FramingError {
    /// Shorter than its own header, or longer than [`MAX_MESSAGE`].
    #[error("a message of {0} bytes, where {HEADER_SIZE} to {MAX_MESSAGE} are possible")]
    Size(u32),
    /// Not a command. The server asks nothing, so there is nothing to reply to.
    #[error("message type {0}, where a command was expected")]
    Type(u32),
}

/// What a message begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    id: u16,
    pub(super) command: u16,
    /// Bytes that follow the header.
    pub(super) body: usize,
    pub(super) no_reply: bool,
}

impl Header {
    pub(super) fn parse(bytes: [u8; HEADER_SIZE]) -> Result<Self, FramingError> {
        let [i0, i1, c0, c1, s0, s1, s2, s3, f0, f1, f2, f3, ..] = bytes;
        let size = u32::from_le_bytes([s0, s1, s2, s3]);
        let flags = u32::from_le_bytes([f0, f1, f2, f3]);
        if flags & TYPE != 0 {
            return Err(FramingError::Type(flags & TYPE));
        }
        let body = (size as usize).checked_sub(HEADER_SIZE);
        let body = body.filter(|body| *body <= MAX_MESSAGE - HEADER_SIZE);
        Ok(Self {
            id: u16::from_le_bytes([i0, i1]),
            command: u16::from_le_bytes([c0, c1]),
            body: body.ok_or(FramingError::Size(size))?,
            no_reply: flags & NO_REPLY != 0,
        })
    }

    /// The reply to this message.
    pub(super) fn reply(self, outcome: Result<Vec<u8>, Errno>) -> Vec<u8> {
        let (flags, errno, body) = match outcome {
            Ok(body) => (REPLY, 0, body),
            Err(errno) => (REPLY | ERROR, errno.raw_os_error().unsigned_abs(), Vec::new()),
        };
        let size = (HEADER_SIZE + body.len()) as u32;
        let mut reply = Bytes::default();
        reply.u16(self.id).u16(self.command).u32(size).u32(flags).u32(errno).bytes(&body);
        reply.0
    }
}

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request<'a> {
    /// The first message: the version that the client proposes.
    Version {
        major: u16,
        minor: u16,
    },
    DmaMap {
        flags: u32,
        /// Offset in the file that came with the message.
        offset: u64,
        address: u64,
        size: u64,
    },
    DmaUnmap {
        argsz: u32,
        flags: u32,
        address: u64,
        size: u64,
    },
    DeviceInfo,
    RegionInfo {
        index: u32,
    },
    IrqInfo {
        index: u32,
    },
    SetIrqs {
        flags: u32,
        index: u32,
        start: u32,
        count: u32,
        data: &'a [u8],
    },
    RegionRead {
        offset: u64,
        region: u32,
        count: usize,
    },
    RegionWrite {
        offset: u64,
        region: u32,
        data: &'a [u8],
    },
    DeviceReset,
}

impl<'a> Request<'a> {
    /// Reads the body of a message.
    ///
    /// # Errors
    ///
    /// What to reply: `ENOSYS` to a command that this server does not have (there are some that are
    /// optional), `EINVAL` to a body that is too short or contradicts itself.
    pub(super) fn parse(command: u16, body: &'a [u8]) -> Result<Self, Errno> {
        let mut fields = Fields(body);
        Ok(match command {
            // What follows is JSON with the client's capabilities. All of them say what a server may
            // send, and this one sends no more than replies.
            VERSION => Self::Version { major: fields.u16()?, minor: fields.u16()? },
            DMA_MAP => {
                let _argsz = fields.u32()?;
                Self::DmaMap {
                    flags: fields.u32()?,
                    offset: fields.u64()?,
                    address: fields.u64()?,
                    size: fields.u64()?,
                }
            }
            DMA_UNMAP => Self::DmaUnmap {
                argsz: fields.u32()?,
                flags: fields.u32()?,
                address: fields.u64()?,
                size: fields.u64()?,
            },
            // Of the information requests the client need fill in only the index.
            DEVICE_GET_INFO => Self::DeviceInfo,
            DEVICE_GET_REGION_INFO => Self::RegionInfo { index: fields.skip(8)?.u32()? },
            DEVICE_GET_IRQ_INFO => Self::IrqInfo { index: fields.skip(8)?.u32()? },
            DEVICE_SET_IRQS => {
                let _argsz = fields.u32()?;
                Self::SetIrqs {
                    flags: fields.u32()?,
                    index: fields.u32()?,
                    start: fields.u32()?,
                    count: fields.u32()?,
                    data: fields.0,
                }
            }
            REGION_READ => {
                let (offset, region, count) = fields.access()?;
                Self::RegionRead { offset, region, count }
            }
            REGION_WRITE => {
                let (offset, region, count) = fields.access()?;
                if fields.0.len() != count {
                    return Err(Errno::INVAL);
                }
                Self::RegionWrite { offset, region, data: fields.0 }
            }
            DEVICE_RESET => Self::DeviceReset,
            _ => return Err(Errno::NOSYS),
        })
    }
}

/// Little-endian numbers at the front of a message. All of them fail with `EINVAL` at its end.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn skip(&mut self, count: usize) -> Result<&mut Self, Errno> {
        self.0 = self.0.get(count..).ok_or(Errno::INVAL)?;
        Ok(self)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Errno> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Errno::INVAL)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u16(&mut self) -> Result<u16, Errno> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, Errno> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Errno> {
        self.take().map(u64::from_le_bytes)
    }

    /// Offset, region and count of a region access.
    fn access(&mut self) -> Result<(u64, u32, usize), Errno> {
        let (offset, region, count) = (self.u64()?, self.u32()?, self.u32()? as usize);
        if count > MAX_DATA {
            return Err(Errno::INVAL);
        }
        Ok((offset, region, count))
    }
}

/// A message in the making.
#[derive(Debug, Default)]
pub(super) struct Bytes(Vec<u8>);

impl Bytes {
    pub(super) fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(super) fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(super) fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}
