//! A Linux TAP device: one end of an Ethernet link whose other end is a network interface.

use std::{
    fs::{File, OpenOptions},
    io::{self, IoSlice, IoSliceMut},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::OpenOptionsExt,
    },
    time::Duration,
};

use dmaengine::{Arena, ArenaFull, PacketBuf, PacketBufMut};
use rustix::io::Errno;

mod header;
mod ioctl;

use self::header::{HEADER_LEN, VirtioNetHeader};
use crate::{
    BufferCounts, Link, LinkInfo, ReceiveError, RxInfo, Statistics, TransmitError, TxInfo,
    buffers::Buffers,
    offload::{ETHERNET_HEADER_LEN, MAX_SUPER_FRAME_LEN, VLAN_TAG_LEN},
};

const DEVICE: &str = "/dev/net/tun";

/// The longest MTU of a TAP (Linux: `tun_net_init` sets `max_mtu` to 65,535 less the header).
const MTU_MAX: usize = u16::MAX as usize - ETHERNET_HEADER_LEN;

/// How to open a [`Tap`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapConfig {
    /// The interface's name, at most 15 bytes. With a `%d` in it the kernel picks a number. An
    /// interface of this name is attached to if it is a persistent TAP that nobody uses (`ip tuntap
    /// add mode tap name NAME`); otherwise it is made, and vanishes with the [`Tap`].
    pub name: String,
    /// Whether checksum and segmentation offload are negotiated, in both directions.
    pub offload: bool,
    /// Receive buffers.
    pub buffers: BufferCounts,
}

impl TapConfig {
    /// A TAP of this name with all offloads and the default number of buffers.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), offload: true, buffers: BufferCounts::default() }
    }

    /// The bytes of arena memory that [`Tap::open`] takes at most.
    #[must_use]
    pub fn arena_len(&self) -> usize {
        let frame_max = if self.offload {
            MAX_SUPER_FRAME_LEN
        } else {
            MTU_MAX + ETHERNET_HEADER_LEN + VLAN_TAG_LEN
        };
        self.buffers.with_spare(frame_max).arena_len(frame_max)
    }
}

/// Why a TAP could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no `/dev/net/tun`, or no driver behind it.
    #[error("this system has no {DEVICE}: load the driver (modprobe tun)")]
    NoDriver,
    /// This user may not open `/dev/net/tun`.
    #[error("{DEVICE} is closed to this user: run as root, or open it to all (chmod 666 {DEVICE})")]
    DeviceForbidden,
    /// This user may not make the interface, nor use one of that name.
    #[error(
        "no right to use the interface {name}: make it for this user as root \
         (ip tuntap add mode tap user USER name {name}), or run with CAP_NET_ADMIN"
    )]
    Forbidden {
        /// The interface's name.
        name: String,
    },
    /// Another program has the interface open.
    #[error("the interface {name} is in use by another program: stop it, or take another name")]
    Busy {
        /// The interface's name.
        name: String,
    },
    /// An interface of that name exists and is not a TAP with one queue.
    #[error("{name} exists and is not a TAP with one queue: take another name")]
    NotATap {
        /// The interface's name.
        name: String,
    },
    /// No interface can have that name.
    #[error(
        "\"{name}\" cannot name an interface: 1 to {max} bytes, without slash, colon or space",
        max = ioctl::NAME_MAX
    )]
    BadName {
        /// The name.
        name: String,
    },
    /// The arena has no room for the receive buffers.
    #[error("no receive buffers for {name}, which take {needed} bytes: {source}")]
    Buffers {
        /// The interface's name.
        name: String,
        /// What the buffers take, in bytes.
        needed: usize,
        /// What the arena said.
        source: ArenaFull,
    },
    /// The operating system refused for another reason.
    #[error("opening the TAP {name} failed: {source}")]
    Os {
        /// The interface's name.
        name: String,
        /// What the system said.
        source: io::Error,
    },
}

/// This program's end of a TAP.
///
/// The other end is an interface of the network namespace in which the opening thread was. Somebody
/// must set it up and give it an address (`ip link set`, `ip address add`).
#[derive(Debug)]
pub struct Tap {
    device: File,
    info: LinkInfo,
    persistent: bool,
    buffers: Buffers,
    /// The slot that the next frame is read into. It is given away only in exchange for another;
    /// so frames that a small slot can take are received even if no other is left.
    slot: PacketBufMut,
    statistics: Statistics,
}

/// What one read gave.
enum Read {
    Frame(PacketBuf, RxInfo),
    Dropped,
    Empty,
}

impl Tap {
    /// Opens the TAP, with its receive buffers in `arena` (see [`TapConfig::arena_len`]).
    ///
    /// # Errors
    ///
    /// See [`OpenError`]. An interface that was made vanishes again.
    pub fn open(arena: &Arena, config: &TapConfig) -> Result<Self, OpenError> {
        let name = &config.name;
        check_name(name)?;
        let device = open_device(name)?;
        let os = |source| OpenError::Os { name: name.clone(), source };

        let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        let name = ioctl::set_interface(device.as_fd(), name, flags).map_err(|source| {
            let name = name.clone();
            match Errno::from_io_error(&source) {
                Some(Errno::PERM | Errno::ACCESS) => OpenError::Forbidden { name },
                Some(Errno::BUSY) => OpenError::Busy { name },
                Some(Errno::INVAL) => OpenError::NotATap { name },
                _ => OpenError::Os { name, source },
            }
        })?;
        // Both outlive the descriptor on a persistent TAP, so they are always set.
        ioctl::set_header_len(device.as_fd(), HEADER_LEN).map_err(os)?;
        let offload = if config.offload {
            libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN
        } else {
            0
        };
        ioctl::set_offload(device.as_fd(), offload).map_err(os)?;

        let persistent =
            ioctl::interface_flags(device.as_fd()).map_err(os)? & libc::IFF_PERSIST != 0;
        let mac = neighbour(ioctl::hardware_address(device.as_fd()).map_err(os)?);
        let mtu = interface_mtu(&name).map_err(os)?;
        let mut info = LinkInfo {
            name,
            mac,
            mtu,
            checksum_offload: config.offload,
            tso_max: config.offload.then_some(MAX_SUPER_FRAME_LEN),
            receive_memory: 0,
        };
        let frame_max = info.frame_max();
        info.receive_memory = config.buffers.receive_memory(frame_max);
        let counts = config.buffers.with_spare(frame_max);
        let buffers = Buffers::new(arena, frame_max, counts).map_err(|source| {
            let needed = counts.arena_len(frame_max);
            OpenError::Buffers { name: info.name.clone(), needed, source }
        })?;
        let slot = buffers.take().expect("the spare slot was counted in");
        let statistics = Statistics::default();
        Ok(Self { device, info, persistent, buffers, slot, statistics })
    }

    /// Whether the interface was there before and stays when this value is dropped.
    #[must_use]
    pub const fn is_persistent(&self) -> bool {
        self.persistent
    }

    /// Reads one frame.
    fn read(&mut self) -> Result<Read, ReceiveError> {
        let Self { device, slot, buffers, statistics, .. } = self;
        let mut header = [0; HEADER_LEN];
        let space = slot.as_mut();
        let space_len = space.len();
        let parts = &mut [IoSliceMut::new(&mut header), IoSliceMut::new(space)];
        let read = loop {
            match rustix::io::readv(&*device, parts) {
                Err(Errno::INTR) => {}
                read => break read,
            }
        };
        let read_len = match read {
            Ok(read_len) => read_len,
            Err(Errno::AGAIN) => return Ok(Read::Empty),
            // `tun_chr_read_iter`: the interface is gone.
            Err(Errno::BADFD) => return Err(ReceiveError::Gone),
            Err(errno) => return Err(ReceiveError::Os(errno.into())),
        };
        let len = read_len.saturating_sub(HEADER_LEN);
        let dropped_for = if len < ETHERNET_HEADER_LEN {
            &mut statistics.rx_too_short
        } else if len >= space_len {
            // The kernel cuts off what does not fit, and no whole frame fills a slot.
            &mut statistics.rx_truncated
        } else if let Ok(info) = VirtioNetHeader::from_bytes(header).rx_info(len) {
            if let Some(copy) = buffers.copybreak(&slot.as_mut()[..len]) {
                statistics.count_received(len);
                statistics.rx_copied += 1;
                return Ok(Read::Frame(copy, info));
            }
            if let Some(next) = buffers.take() {
                statistics.count_received(len);
                return Ok(Read::Frame(std::mem::replace(slot, next).freeze(len), info));
            }
            &mut statistics.rx_no_buffer
        } else {
            &mut statistics.rx_bad_offload
        };
        *dropped_for += 1;
        Ok(Read::Dropped)
    }

    fn write(&self, frame: &[u8], info: TxInfo) -> Result<(), TransmitError> {
        info.check(frame, &self.info)?;
        let header = VirtioNetHeader::for_frame(frame, info)?.to_bytes();
        let parts = [IoSlice::new(&header), IoSlice::new(frame)];
        loop {
            return match rustix::io::writev(&self.device, &parts) {
                Ok(_all) => Ok(()),
                Err(Errno::INTR) => continue,
                // NOBUFS: memory is short in the kernel, which passes.
                Err(Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM) => Err(TransmitError::Full),
                // `tun_get_user`: the interface is not up.
                Err(Errno::IO) => Err(TransmitError::Down),
                Err(Errno::BADFD) => Err(TransmitError::Gone),
                // The kernel found the offsets to contradict the packet.
                Err(Errno::INVAL) => Err(TransmitError::BadOffload),
                Err(errno) => Err(TransmitError::Os(errno.into())),
            };
        }
    }
}

impl Link for Tap {
    fn info(&self) -> &LinkInfo {
        &self.info
    }

    fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    fn receive(
        &mut self,
        _now: Duration,
        max: usize,
        each: &mut dyn FnMut(PacketBuf, RxInfo),
    ) -> Result<usize, ReceiveError> {
        let mut received = 0;
        for _ in 0..max {
            match self.read() {
                Ok(Read::Frame(frame, info)) => {
                    received += 1;
                    each(frame, info);
                }
                Ok(Read::Dropped) => {}
                Ok(Read::Empty) => break,
                // The next call meets the error again.
                Err(_) if received > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(received)
    }

    fn transmit(
        &mut self,
        _now: Duration,
        frame: &[u8],
        info: TxInfo,
    ) -> Result<(), TransmitError> {
        let outcome = self.write(frame, info);
        self.statistics.count_transmitted(frame.len(), &outcome);
        outcome
    }

    fn event(&self) -> Option<BorrowedFd<'_>> {
        Some(self.device.as_fd())
    }

    fn poll_timeout(&self) -> Option<Duration> {
        None
    }
}

/// Refuses what Linux's `dev_valid_name` refuses.
fn check_name(name: &str) -> Result<(), OpenError> {
    let valid = (1..=ioctl::NAME_MAX).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.bytes().any(|b| b == b'/' || b == b':' || b == 0 || b.is_ascii_whitespace());
    if valid { Ok(()) } else { Err(OpenError::BadName { name: name.to_owned() }) }
}

fn open_device(name: &str) -> Result<File, OpenError> {
    OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(DEVICE).map_err(
        |source| match Errno::from_io_error(&source) {
            Some(Errno::NOENT | Errno::NODEV | Errno::NXIO) => OpenError::NoDriver,
            Some(Errno::ACCESS | Errno::PERM) => OpenError::DeviceForbidden,
            _ => OpenError::Os { name: name.to_owned(), source },
        },
    )
}

fn interface_mtu(name: &str) -> io::Result<usize> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    ioctl::mtu(socket.as_fd(), name)
}

/// An address for this end: unlike the kernel's, and the same whenever the TAP is opened again, so
/// that the kernel's neighbour entry stays right. Unicast and locally administered (IEEE 802).
const fn neighbour([first, rest @ .., last]: [u8; 6]) -> [u8; 6] {
    let [a, b, c, d] = rest;
    [(first | 0x02) & !0x01, a, b, c, d, last ^ 0x01]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_before_the_kernel_truncates_them() {
        for name in ["", "sixteen-bytes-ab", "a/b", "a b", "a:b", "..", "a\0b"] {
            assert!(matches!(check_name(name), Err(OpenError::BadName { .. })), "{name:?}");
        }
        for name in ["ioat0", "fifteen-bytes-a", "ioat%d"] {
            assert!(check_name(name).is_ok(), "{name:?}");
        }
    }

    #[test]
    fn our_address_is_unicast_and_not_the_kernels() {
        let kernel = [0x02, 1, 2, 3, 4, 0xff];
        assert_eq!(neighbour(kernel), [0x02, 1, 2, 3, 4, 0xfe]);
        assert_eq!(neighbour([0x01, 0, 0, 0, 0, 0])[0], 0x02);
    }
}
