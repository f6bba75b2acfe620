//! One stack, and a peer whose every packet the test writes and reads.

mod closing;
mod hostile;
mod hosts;
mod opening;
mod peer;
mod polling;
mod receiving;
mod resets;
mod sending;
mod urgent;
