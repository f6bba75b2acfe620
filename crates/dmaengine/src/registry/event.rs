/// A device came or goes: what [`Registry::subscribe`](crate::Registry::subscribe) tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeviceEvent {
    /// Its channels can be requested.
    Added {
        /// Its number.
        device: usize,
        /// How many channels it has.
        channels: usize,
    },
    /// It is being removed: drop its channels. (Shared ones need nothing: they move on.)
    Removing {
        /// Its number.
        device: usize,
    },
    /// It is gone, and its number is not given to another.
    Removed {
        /// The number it had.
        device: usize,
    },
}
