//! The device as a driver sees it.

mod configuration;
mod descriptors;
mod in_process;
mod properties;
mod registers;
mod rig;
mod states;
