//! The I/OAT driver (Intel `QuickData`, version 3.2) for user space.
//!
//! # Model
//!
//! A device has up to four channels, each with a ring of 64-byte descriptors in memory. The driver
//! writes descriptors, then the count of them to DMACOUNT: the doorbell. The device processes them
//! in order and writes the *completion word*, the address of the last completed descriptor together
//! with the channel's state, in one 64-bit write. So a poll is one load from cached memory.
//!
//! ```text
//!      submit       issue_pending                    poll
//!       |                |                             |
//!       v                v                             v
//!   descriptors --> DMACOUNT --> device --> completion word --> operations end, in order
//!                                  | halts
//!                                  +--> CHANERR --> reset --> a new chain
//! ```
//!
//! A descriptor that fails halts the channel. [`poll`](dmaengine::DmaChannel::poll) then reads the
//! reason from CHANERR, resets the channel and starts it again: operations before the failed one have
//! succeeded, it has its own [`Status`](dmaengine::Status), those behind it are aborted. The reset is
//! also the proof that the device is idle, which stands before any memory goes back to its owner.
//!
//! # From operations to descriptors
//!
//! A copy or a fill takes a descriptor per XFERCAP bytes, a scatter-gather copy one for each piece in
//! which neither side's list has a border. The last one asks for the completion word, unless the
//! operation came with [`NO_STATUS`](dmaengine::Flags::NO_STATUS); the last one that a doorbell
//! issues always does. None of them is part of the ring before all are written.
//!
//! The hardware's fence is a bit of the descriptor *before*: it ends before the next begins. An
//! operation with [`FENCE`](dmaengine::Flags::FENCE) sets it there, if that descriptor was not
//! issued. What was issued belongs to the device; an empty descriptor is then put between, in a slot
//! that operations never get, so that a fence needs no more room than there is
//! [space](dmaengine::DmaChannel::space) for.
//!
//! There are no cache hints. What the hardware has for them, tags that steer writes into the cache of
//! one CPU, works only where the firmware has filled a table for it.
//!
//! # What it runs on
//!
//! [`IoatDevice::probe`] takes [`Resources`]: a [`Bar`] (the registers) and a [`Platform`] (mappings,
//! interrupts, PCI configuration space). Over VFIO these are a mapping and some `ioctl`s; over the
//! `ioat-model` crate, a device model in this process. The driver knows neither.
//!
//! # Hardware, over VFIO
//!
//! [`sysfs`] finds the I/OAT functions of the machine, says what stands in the way of each, and moves
//! one from the kernel's driver to vfio-pci and back. [`vfio::open`] opens one that vfio-pci has: the
//! process then has its registers, and behind an IOMMU it reaches what was mapped and nothing else.
//!
//! ```no_run
//! use ioatdma::{IoatDevice, Options, sysfs::Sysfs, vfio};
//!
//! let sysfs = Sysfs::new();
//! let address = "0000:00:04.0".parse()?;
//! sysfs.bind(address)?; // needs root; the rest only the right to open /dev/vfio/...
//! let device = IoatDevice::probe(vfio::open(&sysfs, address)?, Options::default())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What is mapped counts against the limit on locked memory (`ulimit -l`).
//!
//! # Interrupts
//!
//! The device raises one interrupt per re-arming. [`arm`](dmaengine::DmaChannel::arm) re-arms first
//! and then puts an empty descriptor that interrupts behind everything issued so far; data
//! descriptors never interrupt, so a busy channel that is polled costs no interrupt at all.

mod bar;
mod channel;
mod completion;
mod descriptor;
mod device;
mod error;
mod hardware;
mod incident;
mod interrupt;
mod lines;
#[cfg(all(test, loom))]
mod model;
mod options;
pub mod pci;
pub mod quirks;
mod registers;
mod relaxed_ordering;
mod reset;
mod ring;
mod self_test;
pub mod sysfs;
mod version;
#[cfg(target_arch = "x86_64")]
pub mod vfio;
mod watchdog;

pub use bar::{Bar, Interrupts, Platform};
pub use device::{IoatDevice, Resources};
pub use error::{ChanErr, ProbeError, StartError};
pub use incident::{Incident, IncidentKind};
pub use options::{Behind, Completions, OnIncident, Options};
pub use version::Version;
