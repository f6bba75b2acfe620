//! Ethernet, ARP, IPv4, ICMP and TCP as a state machine.
//!
//! # Model
//!
//! A [`Stack`] is one host on one link. It does no I/O, has no clock and no threads: its caller
//! gives it frames and the time, and takes frames, deadlines and events from it. Given the same
//! calls it does the same, always.
//!
//! ```text
//!              receive(now, frame)                    poll_event()
//!    link  ------------------------>            ------------------------>  program
//!                                      Stack     accept, connect, send,
//!          <------------------------            <------------------------
//!          poll_transmit(now, frame)             take, release, close
//!
//!                 poll_timeout() -> deadline,  handle_timeout(now)
//! ```
//!
//! The caller's loop is always the same. After any batch of calls that put something in
//! ([`receive`](Stack::receive), [`handle_timeout`](Stack::handle_timeout), any socket call):
//!
//! 1. [`poll_event`](Stack::poll_event) until `None`, and tell the programs that wait;
//! 2. [`poll_transmit`](Stack::poll_transmit) until `None`, and send the frames;
//! 3. [`poll_timeout`](Stack::poll_timeout): wait for frames until then at most.
//!
//! Acknowledgments are decided in step 2. So a batch of frames is acknowledged once, and a program
//! that takes bytes or answers in step 1 opens the window, or carries the acknowledgment, with the
//! same frame.
//!
//! # Received bytes are never copied
//!
//! A frame is a [`PacketBuffer`] of the caller's. What TCP accepts in order stays in it:
//! [`take`](Stack::take) hands out [`Segment`]s, which are a buffer and a range. Taking moves
//! TCP's `copied_seq`; but the memory stays charged to the socket's receive buffer until
//! [`release`](Stack::release), because somebody (a copy engine, say) may still be reading it.
//! Only then does the offered window open.
//!
//! # Super-frames
//!
//! A link that cuts ([`LinkCapabilities::tso_max`]) or glues together segments passes up to 64 KiB
//! as one frame, both ways. Headers are processed, windows and losses accounted, and bytes copied
//! once per super-frame.
//!
//! # Hostile input
//!
//! No frame makes the stack panic, and each one is counted: as accepted, or under the reason for
//! which it was dropped ([`DropReason`]). All state that a peer can create is bounded: half-open
//! connections, out-of-order data, neighbours, replies, TIME-WAIT. Tables are keyed with a secret
//! ([`Config::seed`]).
//!
//! # Example
//!
//! ```
//! use netstack::{
//!     Config, Instant, Ipv4Cidr, LinkCapabilities, MacAddress, PacketBuffer, Stack, TcpConfig,
//! };
//! use std::{net::{Ipv4Addr, SocketAddrV4}, rc::Rc};
//!
//! #[derive(Clone)]
//! struct Frame(Rc<[u8]>);
//! impl AsRef<[u8]> for Frame {
//!     fn as_ref(&self) -> &[u8] { &self.0 }
//! }
//! impl PacketBuffer for Frame {
//!     fn truesize(&self) -> usize { self.0.len() }
//! }
//!
//! let address = Ipv4Addr::new(10, 0, 0, 1);
//! let mut stack = Stack::<Frame>::new(Config {
//!     mac: MacAddress([2, 0, 0, 0, 0, 1]),
//!     address: Ipv4Cidr { address, prefix_len: 24 },
//!     gateway: None,
//!     link: LinkCapabilities::default(),
//!     tcp: TcpConfig::default(),
//!     seed: [7; 16], // from the operating system's random source
//! })?;
//! let now = Instant::ZERO;
//! let socket = stack.connect(now, SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 80))?;
//!
//! // The first frame asks who has the peer's address.
//! let mut frame = vec![0; stack.max_frame_len()];
//! let sent = stack.poll_transmit(now, &mut frame).expect("an ARP request");
//! assert_eq!(frame[12..14], [0x08, 0x06]);
//! assert_eq!(sent.len, 42);
//! assert!(stack.poll_timeout().is_some());
//! # let _ = socket;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod buffer;
mod charge;
mod config;
mod event;
mod meta;
mod slab;
mod stack;
mod statistics;
mod tcp;
mod time;
mod wire;

pub use buffer::{PacketBuffer, Segment};
pub use charge::Charge;
pub use config::{
    Config, ConfigError, Ipv4Cidr, LinkCapabilities, MacAddress, ParseCidrError, TcpConfig,
};
pub use event::{Event, ListenerId, PollFlags, Readiness, SocketId};
pub use meta::{Checksum, Gso, PartialChecksum, RxMeta, TxMeta};
pub use stack::Stack;
pub use statistics::{DropReason, Drops, Statistics, TcpStatistics};
pub use tcp::{
    ConnectError, ConnectState, ConnectionError, ListenError, ReceiveStatus, SendError, TcpInfo,
    TcpState, UrgentError,
};
pub use time::Instant;
