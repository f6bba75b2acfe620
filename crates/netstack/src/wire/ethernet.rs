//! Ethernet II.

/// Destination, source and type, in bytes.
pub(crate) const HEADER_LEN: usize = 14;
