//! A laboratory on one machine: namespaces, the kernel's TCP as a sender, and the kernel's TCP as
//! the receiver to compare with.
//!
//! Everything in it belongs to this process. When the process ends, however it ends, no namespace,
//! link or address is left.
//!
//! ```text
//!   Namespace::enter(): user and network namespace of the whole process
//!   ┌───────────────────────────────────────────────┐    ┌─ PeerNamespace ───────────────┐
//!   │  a stack of ours ── TAP ── kernel ── Sender   │    │                               │
//!   │                                               │    │                               │
//!   │  VethBaseline's receiver ── kernel ── veth ───┼────┼── veth ── kernel ── Sender    │
//!   └───────────────────────────────────────────────┘    └───────────────────────────────┘
//! ```

mod cpu;
mod mode;
mod namespace;
mod pattern;
mod placement;
mod sender;
mod stack_receiver;
mod transfer;
mod veth;

pub use cpu::{allowed_cpus, pin_to_cpu, thread_cpu_time, thread_preemptions};
pub use mode::{Mode, ParseModeError};
pub use namespace::{Namespace, NamespaceError, PeerNamespace};
pub use pattern::Pattern;
pub use placement::Placement;
pub use sender::{Sender, SenderConfig, SenderError, Sent};
pub use stack_receiver::{Program, StackReceiver};
pub use transfer::{Copied, Receiver, Transfer, TransferError, receive_stream};
pub use veth::{VethBaseline, VethError};
