//! The device as a driver sees it.

mod chains;
mod configuration;
mod descriptors;
mod failing_memory;
mod faults;
mod in_process;
mod linux;
mod page_breaks;
mod parity;
mod properties;
mod registers;
mod rig;
mod states;
mod time;
mod transitions;
