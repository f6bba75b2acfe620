//! Sockets over a TCP/IP stack in this process, whose receive buffers are filled by a DMA engine.
//!
//! # Model
//!
//! A [`Stack`] is a *shard*: one link, one protocol stack, at most one engine channel, one lock.
//! [`TcpListener`] and [`TcpStream`] are the calls of [`std::net`], over it.
//!
//! Nothing happens behind a program that is in a call: **the thread inside the call drives the
//! stack itself**. It reads packets from the link, processes them, issues copies into its own
//! buffer (and other threads' posted buffers), acknowledges, and blocks in one `poll(2)` on the link
//! and the engine when there is nothing to do. So no wake-up lies on the path of the data. One
//! thread drives at a time; others that wait are woken when something happened to their socket, and
//! one of them takes over when the driver leaves its call. A background thread serves packets and
//! timers only while no program thread does.
//!
//! A program receives in one of three ways:
//!
//! | way | calls | the buffer |
//! | --- | --- | --- |
//! | a thread waits for each stream | [`TcpStream::recv`] and [`Read`](std::io::Read) | borrowed for the call; filled as packets come (early copy) |
//! | one thread waits for many | [`Poller`], then calls that [never wait](TcpStream::set_nonblocking) | borrowed for the call; filled from what is queued |
//! | buffers ahead of the data | [`ReceiveRing`], blocking or async | owned; filled as packets come, whatever the program does meanwhile |
//!
//! What calls return is what the kernel's would, with each flag of `recv(2)` ([`RecvFlags`]): the
//! same scripts of calls run against both in this crate's tests.
//!
//! A receive call lends its buffer ([`dmaengine::lend`]) and never returns while a copy into it is
//! in flight: not on success, not on a timeout, not on an error. If an engine cannot be stopped the
//! process aborts; the alternative is memory that changes after the call returned.

#![forbid(unsafe_code)]

mod background;
mod config;
mod core;
mod driver;
mod errno;
mod interrupt;
mod listener;
mod patience;
mod poll_set;
mod poller;
mod pollers;
mod receive_ring;
mod stack;
mod stream;
mod tasks;

pub use config::{Config, StartError};
pub use interrupt::Interrupter;
pub use listener::{Incoming, TcpListener};
pub use netdma::{Copybreak, RecvFlags};
pub use netstack::PollFlags;
pub use poll_set::{PollEvent, Trigger};
pub use poller::{PollEvents, Pollable, Poller};
pub use receive_ring::{ReceiveRing, Received, Recv};
pub use stack::{Policy, Stack, Statistics};
pub use stream::{SendFlags, TcpStream};
