//! Intel's I/OAT DMA engine as a state machine: registers in, DMA and interrupts out.
//!
//! # Model
//!
//! The device has one or more channels. A driver lays 64-byte descriptors out in memory, each with
//! the address of the next, writes the first one's address to CHAINADDR, and from then on says with
//! DMACOUNT, a running count modulo 2^16, how many of them may be processed. The device processes
//! them in order and writes, where a descriptor asks for it, the *completion word*: the address of
//! the last completed descriptor and the channel's state in one 64-bit write. A descriptor that it
//! refuses halts the channel; CHANERR says why, and RESET leads out.
//!
//! ```text
//!   +------------------------------ shell: thread, clock, memory -----+
//!   |   register accesses            +-------+   fetch: what to move  |
//!   |  ----------------------------> | Model | -------------------->  |
//!   |   interrupts                   |       |   retire: how it went  |
//!   |  <---------------------------- +-------+ <--------------------  |
//!   +------------------------------------------------------------------+
//! ```
//!
//! [`Model`] is that device and nothing else: no thread, no clock, no memory. Shells run it:
//! [`in_process`] on a thread of this process, [`vfio_user`] for QEMU, [`Stepped`] one descriptor at a
//! time.
//!
//! Memory is a trait, [`Memory`]: the model reads and writes words of it in the middle of a
//! descriptor. Interrupts are values: nothing in the model waits for them, so a shell takes them after
//! a call ([`Model::take_interrupts`]) and sends them when it likes, under its lock or after. Nothing
//! is called out of a device that is between two states, and a register access needs nobody to send
//! to. INTA is a level ([`Model::intx`]), which a client that comes later finds as it is.
//!
//! Whatever a driver writes to its registers or its descriptors, the model does not panic and
//! touches no memory that was not mapped for it. [`Faults`] make it fail to order, in time that is
//! passed in: the same accesses at the same times have the same effects.
//!
//! # Versions
//!
//! | version | device | what it has |
//! | --- | --- | --- |
//! | 1.2 | 8086:1a38 | copies in chains: START, APPEND, no DMACOUNT; its own register layout |
//! | 2.0 | 8086:402f | copies in rings, DMACOUNT |
//! | 3.0 | 8086:3430 | page breaks and fills; a parity error in DMAUNCERRSTS after each channel reset |
//! | 3.2 | 8086:2021 | XOR and P+Q (which Linux does not use on Xeons); CBVER reads 3.3 |
//! | 3.3 | 8086:0c50 | P+Q of up to 16 sources, results written back (DWBES), no XOR; a channel reset takes the MSI-X table |
//! | 3.4 | 8086:0b00 | page breaks and fills, descriptor prefetch |
//!
//! [`Config::capability`] gives any of them any capabilities. Null descriptors have a size that is
//! not 0 in all of them, as 3.0 wants it.
//!
//! # Errors that a driver can provoke
//!
//! | CHANERR | by |
//! | --- | --- |
//! | 0 source address | a source that is not mapped, or not to be read |
//! | 1 destination address | a target, P or Q that is not mapped, or not to be written (checks: to be read) |
//! | 2 next address | a next or extended descriptor that is not mapped |
//! | 3 descriptor | a next address that is no multiple of 64; a descriptor whose memory fails |
//! | 4 chain address | CHAINADDR that is not mapped, or no multiple of 64 |
//! | 5 CHANCMD | a command that does not exist in the version, or two at once |
//! | 8, 9 read, write data | memory that is there and fails ([`MemoryError::Data`]), as under a client that truncates its file |
//! | 10 descriptor control | an operation without its capability; control bits that mean nothing there; no result; too many sources |
//! | 11 length | 0, or beyond XFERCAP; a page break with more than a page behind it |
//! | 12 completion address | CHANCMP that is not mapped, not to be written, or no multiple of 8 |
//! | 14 soft | a super extended descriptor that is not mapped, or no multiple of 64 |
//! | 16 XOR or P, 17 Q | a check that finds another result |
//! | 18 descriptor count | an extended descriptor beyond DMACOUNT |
//!
//! Not by a driver, but to order ([`Fault::Error`]): 6 and 7, uncorrectable errors of chipset and
//! engine; 13, interrupt configuration; 15, unaffiliated; 19 to 27, of operations with data integrity
//! fields (and of bundles), which the model does not have. Nor has it CRC and skip markers.
//!
//! A masked bit (CHANERRMASK) is noted, and the channel goes on; except for errors in a descriptor
//! itself, behind which nothing is known. All are latched in configuration space too (0x180).
//!
//! # Where the sources are silent
//!
//! The model takes the stricter reading, so that a driver which works here asks less of the hardware,
//! not more. What stock Linux does it accepts. Found so:
//!
//! - After a failed check of XOR or P+Q, Linux clears CHANERR and writes CHAINADDR: it does not reset
//!   the channel. After any other error it does, and the model insists.
//! - Linux masks the errors of checks once, before the resets of its self tests. So RESET keeps
//!   CHANERRMASK. On such a device (3.3) a check by `XOR_VAL` would fail unseen; Linux uses P+Q checks
//!   there, which only makes sense if the device lacks XOR.
//! - After a reset by its watchdog, Linux does not write CHANCTRL before the next interrupt. So RESET
//!   arms the interrupt.
//! - Linux's shared interrupt handler writes back what it has read from INTRCTRL. So a read may, and
//!   here does, clear the master enable.
//! - Linux looks for a completed descriptor, never for its extended one. So that has no completion.
//! - Linux clears the relaxed ordering bit last of all, after its self tests.
//! - Linux writes DRSCTL and the latency tolerance registers of 3.4 a block too far. They are kept,
//!   without effect, where the datasheet's offsets put them.
//! - FreeBSD says that CHANSTS is to be read low half first. So the low half latches the high one.
//! - A completion word that cannot be written halts the channel like any other error.
//! - P and Q may lie on sources, at the same address: continued P+Q depends on it.
//!
//! # What stock Linux makes of faults
//!
//! Seen with its `ioatdma` (6.12) in guests on this model. None of it is the model's doing; a driver
//! that is compared with Linux should know it.
//!
//! - An error that Linux handles (`READ_DATA`, `WRITE_DATA`) ends the copy with its status, in its
//!   callback, before the channel is reset. What is submitted from then until the reset is aborted
//!   with the rest: such a copy is reported as complete (with the result "aborted"), and was not done.
//!   dmatest counts it as a second failure.
//! - After a halt without a reason and after a hang, the timer aborts what lies behind the descriptor
//!   that the channel stands at, but not that one itself: nobody ever hears of it.
//! - If nothing lies behind it, the null descriptor that the channel is restarted with is the one whose
//!   address Linux has just noted as the last completed. Its completion says nothing new, so the
//!   timer resets the channel again, every 200 to 400 ms, until something else is submitted.
//! - The waits for a reset count ticks, within a timer. If every processor that would tick was idle
//!   (`nohz`), and none is woken by something else, a channel that hangs hangs the machine: processors
//!   spin, on the channel and on its lock, and time stands still.
//! - A lost interrupt costs up to 200 ms, until the timer looks. A lost completion word ends like a
//!   hang, unless another follows within that time.
//! - Where there is P+Q and no XOR (3.3), exclusive or and its check are P+Q without Q.
//!
//! ```
//! use ioat_model::{Config, Model, registers, registers::Width};
//!
//! let mut model = Model::new(Config::default());
//! assert_eq!(model.mmio_read(registers::CHANCNT, Width::W8), 1);
//! // Reading CHANCTRL takes the channel: the first reader sees it free.
//! let control = registers::CHANNEL_BLOCK + registers::channel::CHANCTRL;
//! assert_eq!(model.mmio_read(control, Width::W16), 0);
//! assert_ne!(model.mmio_read(control, Width::W16), 0);
//! ```

mod address_space;
mod channel;
pub mod config_space;
pub mod descriptor;
mod faults;
pub mod in_process;
mod interrupts;
mod layout;
mod memory;
mod model;
mod parity;
pub mod registers;
mod stepped;
mod version;
pub mod vfio_user;

pub use address_space::{MapError, PAGE};
pub use channel::State;
pub use config_space::{ConfigSpace, InterruptStyle};
pub use descriptor::{Operation, Performed};
pub use faults::{Fault, Faults, ParseFaultError, When, Which};
pub use memory::{Memory, MemoryError, MoveError};
pub use model::{Config, Model};
pub use parity::{Mismatch, Parity};
pub use stepped::Stepped;
pub use version::{ParseVersionError, Version};
