//! What the fuzz target `vfio_user` does with an input: a client's conversation with a server, in
//! which anything may be sent. Afterwards the next client must be served.

use std::{
    fs::File,
    io::{ErrorKind, IoSlice, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{fs::FileExt, net::UnixStream},
    },
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use ioat_model::{
    Config, PAGE, Version,
    config_space::{BUS_MASTER, COMMAND, MEMORY_SPACE},
    registers::CHANNEL_BLOCK,
    vfio_user::Server,
};
use rustix::{
    event::{EventfdFlags, eventfd},
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create},
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
};

/// Pages of the client's memory.
const PAGES: u64 = 8;

/// Runs an input.
pub(crate) fn run(input: &[u8]) {
    let mut input = Input(input);
    let version = Version::ALL[usize::from(input.byte()) % Version::ALL.len()];
    let path = socket_path();
    let config = Config { version, channels: 2, ..Config::default() };
    let server = Server::bind(&path, config).expect("a fresh path");
    let (stop, stopped) = UnixStream::pair().expect("sockets");
    thread::scope(|scope| {
        let server = scope.spawn(|| server.run(stopped.as_fd(), &mut |_| {}));
        let files = Files::new(input.byte());
        let mut client = Client::connect(&path);
        while !input.0.is_empty() {
            if !client.act(&mut input, &files) {
                client = Client::connect(&path);
            }
        }
        drop(client);
        is_served(&path);
        drop(stop);
        server.join().expect("the server does not panic").expect("clients do not end it");
    });
}

/// A client that behaves finds a device.
fn is_served(path: &Path) {
    let client = Client::connect(path);
    client.stream.set_nonblocking(false).expect("a socket");
    let mut stream = &client.stream;
    stream.write_all(&message(1, 0, &[0, 0, 1, 0])).expect("the server reads");
    let mut body = 0_u64.to_le_bytes().to_vec();
    body.extend([0, 0, 0, 0, 1, 0, 0, 0]);
    stream.write_all(&message(9, 0, &body)).expect("the server reads");
    client.stream.shutdown(std::net::Shutdown::Write).expect("a socket");
    let mut replies = Vec::new();
    stream.read_to_end(&mut replies).expect("the server replies");
    // CHANCNT is the last byte of the last reply.
    assert_eq!(replies.last(), Some(&2));
}

/// A path for a socket that no other input has.
fn socket_path() -> PathBuf {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    // Relaxed: only the number matters.
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("ioat-fuzz-{}-{number}", std::process::id()))
}

/// Bytes to be decided by; zeros when they are used up.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    fn word(&mut self) -> u64 {
        let mut word = [0; 8];
        let bytes = self.take(8);
        word[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(word)
    }

    fn take(&mut self, count: usize) -> &[u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// An address or a size: a small number of pages, or anything.
    fn range(&mut self) -> u64 {
        match self.byte() {
            byte @ 0..=0xf7 => u64::from(byte % 32) * PAGE,
            _ => self.word(),
        }
    }
}

/// What a client may send along.
struct Files {
    memory: File,
    eventfd: OwnedFd,
    pipe: (std::io::PipeReader, std::io::PipeWriter),
}

impl Files {
    fn new(how: u8) -> Self {
        let memory = memfd_create("guest", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING);
        let memory = File::from(memory.expect("a memfd"));
        ftruncate(&memory, PAGES * PAGE).expect("a size");
        if how & 1 != 0 {
            fcntl_add_seals(&memory, SealFlags::SHRINK).expect("sealable");
        }
        let eventfd = eventfd(0, EventfdFlags::CLOEXEC).expect("an eventfd");
        Self { memory, eventfd, pipe: std::io::pipe().expect("a pipe") }
    }

    fn choose(&self, which: u8) -> Vec<BorrowedFd<'_>> {
        let (memory, eventfd) = (self.memory.as_fd(), self.eventfd.as_fd());
        match which % 8 {
            0..=2 => Vec::new(),
            3 | 4 => vec![memory],
            5 => vec![eventfd],
            6 => vec![self.pipe.1.as_fd()],
            _ => vec![eventfd; usize::from(which >> 3)],
        }
    }
}

struct Client {
    stream: UnixStream,
}

impl Client {
    fn connect(path: &Path) -> Self {
        let stream = UnixStream::connect(path).expect("the server listens");
        stream.set_nonblocking(true).expect("a socket");
        Self { stream }
    }

    /// Does the next thing; `false` if the connection is over.
    fn act(&mut self, input: &mut Input<'_>, files: &Files) -> bool {
        let sent = match input.byte() % 12 {
            0 => self.send(&message(1, 0, &[0, 0, 1, 0]), &[]),
            1 => {
                let (command, flags) = (input.byte().into(), u32::from(input.byte()) << 4);
                let (which, len) = (input.byte(), input.byte().into());
                let body = input.take(len).to_vec();
                self.send(&message(command, flags, &body), &files.choose(which))
            }
            2 => {
                let (len, which) = (input.byte().into(), input.byte());
                let bytes = input.take(len).to_vec();
                self.send(&bytes, &files.choose(which))
            }
            3 => {
                let mut body = 32_u32.to_le_bytes().to_vec();
                body.extend(u32::from(input.byte() % 5).to_le_bytes());
                let (offset, address, size) = (input.range(), input.range(), input.range());
                for word in [offset, address, size] {
                    body.extend(word.to_le_bytes());
                }
                let which = input.byte();
                self.send(&message(2, 0, &body), &files.choose(which))
            }
            4 => {
                let mut body = 24_u32.to_le_bytes().to_vec();
                body.extend(u32::from(input.byte() % 4).to_le_bytes());
                let (address, size) = (input.range(), input.range());
                for word in [address, size] {
                    body.extend(word.to_le_bytes());
                }
                self.send(&message(3, 0, &body), &[])
            }
            5 => {
                let mut body = 20_u32.to_le_bytes().to_vec();
                for field in [input.byte(), input.byte() % 6, input.byte() % 4, input.byte() % 4] {
                    body.extend(u32::from(field).to_le_bytes());
                }
                let which = input.byte();
                self.send(&message(8, 0, &body), &files.choose(which))
            }
            6 => self.write(7, COMMAND, &(MEMORY_SPACE | BUS_MASTER).to_le_bytes()),
            7 => {
                let register = u64::from(input.byte() % 64) + CHANNEL_BLOCK;
                let len = 1 << (input.byte() % 4);
                let value = if len == 8 { input.range() } else { input.byte().into() };
                self.write(0, register, &value.to_le_bytes()[..len])
            }
            8 => {
                let region = if input.byte() & 1 == 0 { 0 } else { 7 };
                let offset = input.word() % 0x2000;
                let len = input.byte().into();
                let bytes = input.take(len).to_vec();
                self.write(region, offset, &bytes)
            }
            9 => {
                let at = u64::from(input.byte()) * 64 % (PAGES * PAGE);
                for word in 0..8 {
                    let value = if word == 0 { input.word() } else { input.range() };
                    // It may have been truncated.
                    let _ = files.memory.write_at(&value.to_le_bytes(), at + 8 * word);
                }
                true
            }
            10 => {
                // Not if it is sealed.
                let _ = ftruncate(&files.memory, u64::from(input.byte() % 9) * PAGE);
                true
            }
            _ => false,
        };
        sent && self.take_replies()
    }

    fn write(&mut self, region: u32, offset: u64, data: &[u8]) -> bool {
        let mut body = offset.to_le_bytes().to_vec();
        body.extend(region.to_le_bytes());
        body.extend((data.len() as u32).to_le_bytes());
        body.extend_from_slice(data);
        self.send(&message(10, 0, &body), &[])
    }

    /// Sends what it can; `false` if the server does not take it.
    fn send(&mut self, bytes: &[u8], files: &[BorrowedFd<'_>]) -> bool {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(32))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(files)), "they fit");
        }
        sendmsg(&self.stream, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL).is_ok()
    }

    /// Reads what is there; `false` if the server has ended the connection.
    fn take_replies(&mut self) -> bool {
        let mut replies = [0; 4096];
        loop {
            match self.stream.read(&mut replies) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
    }
}

fn message(command: u16, flags: u32, body: &[u8]) -> Vec<u8> {
    let mut message = 7_u16.to_le_bytes().to_vec();
    message.extend(command.to_le_bytes());
    message.extend((16 + body.len() as u32).to_le_bytes());
    message.extend(flags.to_le_bytes());
    message.extend([0; 4]);
    message.extend_from_slice(body);
    message
}
