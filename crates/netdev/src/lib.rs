//! Network links: where frames come from and go to.
//!
//! # Model
//!
//! A [`Link`] is one end of an Ethernet link, used by one thread at a time. Nothing in it waits:
//! the caller receives a batch, transmits what it wants, and then waits on [`Link::event`] and
//! [`Link::poll_timeout`] in its own way.
//!
//! ```text
//!    kernel, or the other end            this crate                        a network stack
//!   ------------------------>  slot of an Arena  --receive-->  PacketBuf, RxInfo
//!   <------------------------       writev       <-transmit--  frame,     TxInfo
//! ```
//!
//! | link | what it is |
//! | --- | --- |
//! | [`Tap`] | a Linux TAP device with the virtio-net header: checksum and TSO offload both ways |
//! | [`WireLink`] | one end of a [`Wire`] in memory, with delay in the caller's time |
//! | [`Faults`] | over any link: loss, duplication, reordering, corruption, from a seed |
//! | [`Capture`] | over any link: writes both directions to a pcap file |
//!
//! # Receive buffers
//!
//! Frames are received into slots of an [`Arena`](dmaengine::Arena), so that an engine can copy
//! out of them. A super-frame of up to 64 KiB takes one large slot. A frame of up to
//! [`SMALL_SLOT_LEN`] bytes is copied to a small slot, as NIC drivers do below their
//! `rx_copybreak`: a short segment must not hold 68 KiB while it waits for its reader. The slot
//! that a [`Tap`] reads into is its own, and is only given away for another: when unread data holds
//! all the rest, longer frames are dropped and counted (`rx_no_buffer`), while acknowledgments,
//! SYNs and FINs pass through it to small slots, so that the host lives on. How much memory there
//! is to share out says [`LinkInfo::receive_memory`].
//!
//! # Offloads
//!
//! A link whose [`LinkInfo`] says so takes frames with a partial checksum and super-frames that it
//! cuts into segments, and delivers such frames. [`RxInfo`] says whether the transport checksum is
//! vouched for; the checksum field of such a frame may hold only the sum of the pseudo-header.
//!
//! # Example
//!
//! ```
//! use std::time::Duration;
//! use dmaengine::Arena;
//! use netdev::{Link, TxInfo, Wire, WireConfig};
//!
//! let config = WireConfig { delay: Duration::from_millis(5), ..WireConfig::default() };
//! let arena = Arena::new(2 * config.arena_len())?;
//! let (mut left, mut right) = Wire::pair(&arena, &config)?;
//!
//! left.transmit(Duration::ZERO, &[0x55; 60], TxInfo::default())?;
//! let due = right.poll_timeout().expect("a frame is under way");
//! assert_eq!(due, Duration::from_millis(5));
//! let received = right.receive(due, 64, &mut |frame, _info| assert_eq!(frame.as_ref(), [0x55; 60]))?;
//! assert_eq!(received, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod buffers;
mod faults;
mod link;
mod offload;
mod pcap;
mod random;
mod statistics;
mod tap;
mod wire;

pub use buffers::{BufferCounts, SMALL_SLOT_LEN};
pub use faults::{FaultStatistics, Faults, FaultsError, Profile};
pub use link::{Link, LinkInfo, ReceiveError, TransmitError};
pub use offload::{Checksum, Gso, PartialChecksum, RxInfo, TxInfo};
pub use pcap::Capture;
pub use statistics::Statistics;
pub use tap::{OpenError, Tap, TapConfig};
pub use wire::{Wire, WireConfig, WireError, WireLink};
