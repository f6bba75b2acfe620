//! The I/OAT driver (Intel `QuickData`, versions 1.2 to 3.4) for user space.
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
//!                                  | halts, or hangs
//!                                  +--> CHANERR --> reset --> a new chain
//! ```
//!
//! [`pci`] tells which devices there are, and [`quirks`] in what they deviate. Version 1.2 has no
//! DMACOUNT: its doorbell links the new descriptors behind the last one and commands APPEND. All else
//! is the same for it.
//!
//! # When something goes wrong
//!
//! A descriptor that fails halts the channel. [`poll`](dmaengine::DmaChannel::poll) then reads the
//! reason from CHANERR, resets the channel and starts it again: operations before the failed one have
//! succeeded, it has its own [`Status`](dmaengine::Status), those behind it are aborted or done, as
//! [`Options::behind`] says. The reset is also the proof that the device is idle, which stands before
//! any memory goes back to its owner.
//!
//! A channel that stands still, though it has work, is asked by CHANSTS: the write of its completion
//! word may have been lost. If it does stand still, it has two strikes ([`Options::watchdog`]): its
//! doorbell is rung again; it is reset, and the operation that it stands at ends as
//! [`TimedOut`](dmaengine::Status::TimedOut). The clock is looked at when the channel is polled or
//! armed, and its event comes in time for that.
//!
//! A reset that does not end leaves a channel of which nothing is known. It takes no operations, and
//! what is in flight stays in flight, because the device may still write there. As long as somebody
//! polls, the reset is looked at and tried again; should it end, all that was in flight ends, as
//! [`DeviceLost`](dmaengine::Status::DeviceLost) if nothing better is known of it, and the channel is
//! back. A channel that was reset and does not start is started again later likewise. If the device has
//! left the bus, it reaches no memory, and all ends at once. [`Options::on_incident`] hears of each.
//!
//! A channel that nobody has yet is reset several times. If that is in vain, the device's others are
//! handed out all the same, and this one is reset again whenever it is requested.
//!
//! Whatever the device writes or says, no call goes round in circles, and nothing outside the ring is
//! touched: an address that is not in flight ends nothing.
//!
//! # From operations to descriptors
//!
//! A copy or a fill takes a descriptor per XFERCAP bytes, a scatter-gather copy one for each piece in
//! which neither side's list has a border. The last one asks for the completion word, unless the
//! operation came with [`NO_STATUS`](dmaengine::Flags::NO_STATUS); the last one that a doorbell
//! issues always does. None of them is part of the ring before all are written.
//!
//! Exclusive or, P and Q take one per XFERCAP bytes too, or two if they have more sources than fit one;
//! with 9 to 16 sources, the others are in a *super extended descriptor* outside the ring. Before
//! version 3.3 an empty descriptor ends such an operation
//! ([`RAID_COMPLETIONS_PASS`](quirks::Quirks::RAID_COMPLETIONS_PASS)). A check that finds a mismatch
//! writes its result to its descriptor, or halts the channel, which then goes on behind it: to find
//! something is no failure.
//!
//! The hardware's fence is a bit of the descriptor *before*: it ends before the next begins. An
//! operation with [`FENCE`](dmaengine::Flags::FENCE) sets it there, if that descriptor was not
//! issued. What was issued belongs to the device; an empty descriptor is then put between, in a slot
//! that operations never get, so that a fence needs no more room than there is
//! [space](dmaengine::DmaChannel::space) for.
//!
//! # What it does not do
//!
//! Direct cache access (DCA), by which a device tags its writes for the cache of one CPU, is left out:
//! it works only where the firmware has filled a table of tags, and it excludes exclusive or, P and Q.
//! So there are no cache hints. CRC, DIF, page breaks and multicast, which some versions have, are no operations of
//! `dmaengine`.
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
//!
//! They come by MSI-X, MSI or a line ([`Interrupts`]), to each channel by itself or to all by one
//! vector, which is then sorted by whoever waits; or not at all, and channels are polled. The device can
//! hold them back, so that several become one ([`Options::interrupt_delay`]).

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
