//! How much may be in the network: congestion control behind one trait.

use std::{fmt::Debug, time::Duration};

use crate::Instant;

mod cubic;

pub(crate) use cubic::Cubic;

/// A congestion control algorithm: pure arithmetic, in bytes. It does not know the connection;
/// *when* there is a loss is [recovery](super::recovery)'s business.
pub(crate) trait CongestionControl: Debug + Send {
    /// The congestion window.
    fn window(&self) -> usize;

    /// The slow-start threshold; `usize::MAX` before the first loss.
    fn threshold(&self) -> usize;

    /// `acked` bytes of new data were acknowledged, outside of recovery, while the window was what
    /// limited the sender.
    fn on_ack(&mut self, now: Instant, acked: usize, srtt: Duration);

    /// A loss was found by duplicate acknowledgments; `in_flight` bytes were unacknowledged. Both
    /// the threshold and the window become what recovery is to end with.
    fn on_loss(&mut self, in_flight: usize);

    /// The retransmission timer has expired; `in_flight` bytes were unacknowledged. `first` tells
    /// that it is not the same data that has been lost again.
    fn on_timeout(&mut self, in_flight: usize, first: bool);

    /// Nothing was sent for a retransmission timeout.
    fn on_idle(&mut self);

    /// The path takes only smaller segments from here on.
    fn set_mss(&mut self, mss: usize);
}

/// The initial window of RFC 6928 section 2, in bytes.
pub(crate) fn initial_window(mss: usize) -> usize {
    (10 * mss).min((2 * mss).max(14_600))
}
