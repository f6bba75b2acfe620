//! The vfio-user server, from the other end of its socket.

mod client;
mod corpus;
mod hostile;
mod interrupts;
mod memory;
mod protocol;
mod reconnecting;
mod served;
