//! A client that sends what it is told, right or wrong.

use std::{
    fs::File,
    io::{IoSlice, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{fs::FileExt, net::UnixStream},
    },
    path::Path,
    time::{Duration, Instant},
};

use ioat_model::{
    PAGE,
    config_space::{BUS_MASTER, COMMAND, MEMORY_SPACE},
    registers::{CHANNEL_BLOCK, channel::*},
};
use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create},
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
};

/// Long enough for anything that happens at all.
pub(crate) const SOON: Duration = Duration::from_secs(30);

pub(crate) const VERSION: u16 = 1;
pub(crate) const DMA_MAP: u16 = 2;
pub(crate) const DMA_UNMAP: u16 = 3;
pub(crate) const DEVICE_GET_INFO: u16 = 4;
pub(crate) const DEVICE_GET_REGION_INFO: u16 = 5;
pub(crate) const DEVICE_GET_IRQ_INFO: u16 = 7;
pub(crate) const DEVICE_SET_IRQS: u16 = 8;
pub(crate) const REGION_READ: u16 = 9;
pub(crate) const REGION_WRITE: u16 = 10;
pub(crate) const DEVICE_RESET: u16 = 13;

pub(crate) const NO_REPLY: u32 = 1 << 4;
const REPLY: u32 = 1;
const ERROR: u32 = 1 << 5;

pub(crate) const BAR: u32 = 0;
pub(crate) const CONFIG: u32 = 7;

pub(crate) const READ: u32 = 1;
pub(crate) const WRITE: u32 = 2;

/// The number of an error, as a reply has it.
pub(crate) type Refused = i32;

/// Puts numbers of any width one after the other.
#[macro_export]
macro_rules! bytes {
    ($($value:expr),* $(,)?) => {{
        #[allow(unused_mut)]
        let mut bytes: Vec<u8> = Vec::new();
        $(bytes.extend_from_slice(&$value.to_le_bytes());)*
        bytes
    }};
}

pub(crate) struct Client {
    pub(crate) stream: UnixStream,
    id: u16,
}

impl Client {
    pub(crate) fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).expect("the server listens");
        stream.set_read_timeout(Some(SOON)).expect("a valid time");
        stream.set_write_timeout(Some(SOON)).expect("a valid time");
        Self { stream, id: 0 }
    }

    /// A message as it should be.
    pub(crate) fn message(&mut self, command: u16, flags: u32, body: &[u8]) -> Vec<u8> {
        self.id = self.id.wrapping_add(1);
        let size = 16 + body.len() as u32;
        let mut message = bytes![self.id, command, size, flags, 0_u32];
        message.extend_from_slice(body);
        message
    }

    /// Sends bytes, with files on the first of them.
    pub(crate) fn send(&self, bytes: &[u8], files: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(files)), "they fit");
        }
        let sent =
            sendmsg(&self.stream, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL);
        let sent = sent.expect("the server takes it");
        (&self.stream).write_all(&bytes[sent..]).expect("the server takes it");
    }

    /// The next reply: id, command and what it says.
    pub(crate) fn reply(&self) -> (u16, u16, Result<Vec<u8>, Refused>) {
        let mut header = [0; 16];
        (&self.stream).read_exact(&mut header).expect("a reply");
        let [i0, i1, c0, c1, s0, s1, s2, s3, f0, f1, f2, f3, e0, e1, e2, e3] = header;
        let flags = u32::from_le_bytes([f0, f1, f2, f3]);
        let errno = i32::from_le_bytes([e0, e1, e2, e3]);
        let mut body = vec![0; u32::from_le_bytes([s0, s1, s2, s3]) as usize - 16];
        (&self.stream).read_exact(&mut body).expect("the rest of the reply");
        let outcome = match flags {
            REPLY if errno == 0 => Ok(body),
            flags if flags == REPLY | ERROR && errno > 0 && body.is_empty() => Err(errno),
            flags => panic!("flags {flags:#x}, error {errno}, and {} bytes", body.len()),
        };
        (u16::from_le_bytes([i0, i1]), u16::from_le_bytes([c0, c1]), outcome)
    }

    /// Sends a request with files and returns what the reply says.
    pub(crate) fn request_with(
        &mut self,
        command: u16,
        body: &[u8],
        files: &[BorrowedFd<'_>],
    ) -> Result<Vec<u8>, Refused> {
        let message = self.message(command, 0, body);
        self.send(&message, files);
        let (id, replied, outcome) = self.reply();
        assert_eq!((id, replied), (self.id, command), "the reply is to the request");
        outcome
    }

    pub(crate) fn request(&mut self, command: u16, body: &[u8]) -> Result<Vec<u8>, Refused> {
        self.request_with(command, body, &[])
    }

    /// Agrees on the version.
    pub(crate) fn agree(&mut self) {
        let mut body = bytes![0_u16, 1_u16];
        body.extend_from_slice(b"{\"capabilities\":{\"max_msg_fds\":8}}\0");
        self.request(VERSION, &body).expect("version 0.1 is spoken");
    }

    /// Whether the server has closed the connection.
    pub(crate) fn is_closed(&self) -> bool {
        let mut byte = [0];
        match (&self.stream).read(&mut byte) {
            Ok(count) => count == 0,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => true,
            Err(error) => panic!("neither closed nor answered: {error}"),
        }
    }

    pub(crate) fn map(
        &mut self,
        (address, size): (u64, u64),
        access: u32,
        file: Option<(BorrowedFd<'_>, u64)>,
    ) -> Result<(), Refused> {
        let offset = file.map_or(0, |(_, offset)| offset);
        let body = bytes![32_u32, access, offset, address, size];
        let files: Vec<_> = file.map(|(file, _)| file).into_iter().collect();
        self.request_with(DMA_MAP, &body, &files).map(|body| assert!(body.is_empty()))
    }

    /// The size that was unmapped.
    pub(crate) fn unmap(&mut self, address: u64, size: u64) -> Result<u64, Refused> {
        self.unmap_with(0, address, size)
    }

    pub(crate) fn unmap_with(
        &mut self,
        flags: u32,
        address: u64,
        size: u64,
    ) -> Result<u64, Refused> {
        let reply = self.request(DMA_UNMAP, &bytes![24_u32, flags, address, size])?;
        let (first, removed) = reply.split_at(16);
        assert_eq!(first, bytes![24_u32, flags, address]);
        Ok(u64::from_le_bytes(removed.try_into().expect("eight bytes")))
    }

    pub(crate) fn read(
        &mut self,
        region: u32,
        offset: u64,
        count: u32,
    ) -> Result<Vec<u8>, Refused> {
        let body = bytes![offset, region, count];
        let reply = self.request(REGION_READ, &body)?;
        let (first, data) = reply.split_at(16);
        assert_eq!((first, data.len()), (&body[..], count as usize));
        Ok(data.to_vec())
    }

    pub(crate) fn write(&mut self, region: u32, offset: u64, data: &[u8]) -> Result<(), Refused> {
        let mut body = bytes![offset, region, data.len() as u32];
        body.extend_from_slice(data);
        let reply = self.request(REGION_WRITE, &body)?;
        assert_eq!(reply, &body[..16]);
        Ok(())
    }

    // What drivers do.

    /// Lets the device reach memory.
    pub(crate) fn enable(&mut self) {
        self.write(CONFIG, COMMAND, &(MEMORY_SPACE | BUS_MASTER).to_le_bytes()).expect("writable");
    }

    pub(crate) fn read_channel(&mut self, channel: u64, register: u64, len: u32) -> u64 {
        let data = self.read(BAR, CHANNEL_BLOCK * (channel + 1) + register, len);
        let mut value = [0; 8];
        value[..len as usize].copy_from_slice(&data.expect("a register"));
        u64::from_le_bytes(value)
    }

    pub(crate) fn write_channel(&mut self, channel: u64, register: u64, data: &[u8]) {
        self.write(BAR, CHANNEL_BLOCK * (channel + 1) + register, data).expect("a register");
    }

    /// Starts a chain of descriptors, on a channel that is not at work.
    pub(crate) fn start(&mut self, channel: u64, chain: u64, count: u16) {
        if self.read_channel(channel, CHANSTS, 8) & 7 == DONE {
            // Where another chain has ended, a new one is taken only after that.
            self.write_channel(channel, CHANCMD, &[0x04]);
        }
        self.write_channel(channel, CHAINADDR, &(chain as u32).to_le_bytes());
        self.write_channel(channel, CHAINADDR + 4, &((chain >> 32) as u32).to_le_bytes());
        self.write_channel(channel, DMACOUNT, &count.to_le_bytes());
    }

    /// Waits until a channel has nothing to do any more; the state it is in, and CHANERR.
    pub(crate) fn finish(&mut self, channel: u64) -> (u64, u32) {
        let deadline = Instant::now() + SOON;
        loop {
            let state = self.read_channel(channel, CHANSTS, 8) & 7;
            if state != 0 {
                return (state, self.read_channel(channel, CHANERR, 4) as u32);
            }
            assert!(Instant::now() < deadline, "channel {channel} is still at work");
        }
    }
}

/// States of a channel.
pub(crate) const DONE: u64 = 1;
pub(crate) const HALTED: u64 = 3;

/// Memory of a guest: a memfd.
pub(crate) struct Guest {
    file: File,
}

impl Guest {
    pub(crate) fn new(pages: u64) -> Self {
        let file = memfd_create("guest", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING);
        let file = file.expect("a memfd");
        ftruncate(&file, pages * PAGE).expect("a size");
        Self { file: File::from(file) }
    }

    /// As QEMU has it: the file cannot change its size any more.
    pub(crate) fn sealed(pages: u64) -> Self {
        let guest = Self::new(pages);
        fcntl_add_seals(&guest.file, SealFlags::SHRINK | SealFlags::GROW).expect("sealable");
        guest
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    pub(crate) fn truncate(&self, pages: u64) {
        ftruncate(&self.file, pages * PAGE).expect("not sealed");
    }

    pub(crate) fn bytes(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, offset).expect("within the file");
        bytes
    }

    pub(crate) fn store(&self, offset: u64, bytes: &[u8]) {
        self.file.write_all_at(bytes, offset).expect("within the file");
    }

    pub(crate) fn words(&self, offset: u64, words: &[u64]) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.store(offset, &bytes);
    }

    /// Writes a descriptor that copies.
    pub(crate) fn copy(
        &self,
        at: u64,
        control: u64,
        (source, target): (u64, u64),
        len: u32,
        next: u64,
    ) {
        self.words(at, &[u64::from(len) | control << 32, source, target, next, 0, 0, 0, 0]);
    }
}

/// Bytes that tell their place.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 251) as u8).collect()
}

/// A file that is no memory.
pub(crate) fn pipe() -> (OwnedFd, OwnedFd) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    (reader.into(), writer.into())
}
