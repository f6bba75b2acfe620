//! The driver on the device model: on its own thread as the device would be, and stepped, where the
//! test decides what happens when.

mod accesses;
mod bus;
mod conformance;
mod copies;
mod dropped;
mod events;
mod failing;
mod halts;
mod interrupts;
mod layers;
mod lying;
mod machine;
mod million;
mod operations;
mod parity;
mod probe;
mod recovery;
mod rig;
mod self_test;
mod submission;
mod versions;
mod wedged;
