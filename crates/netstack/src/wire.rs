//! Headers as they are on the wire.

pub(crate) mod ethernet;
