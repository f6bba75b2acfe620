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
//! [`in_process`] on a thread of this process, [`Stepped`] one descriptor at a time.
//!
//! Whatever a driver writes to its registers or its descriptors, the model does not panic and
//! touches no memory that was not mapped for it. [`Faults`] makes descriptors fail to order.
//!
//! What it models is version 3.2 as drivers rely on it. Where the sources are silent it takes the
//! stricter reading, so that a driver which works here asks less of the hardware, not more.
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
