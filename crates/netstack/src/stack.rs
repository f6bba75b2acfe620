//! The host: everything between frames and sockets.

use std::marker::PhantomData;

use crate::{Config, ConfigError, Event, Instant, PacketBuffer, RxMeta, Statistics, TxMeta};

mod api;

/// One host on one link. See the [crate's documentation](crate) for the loop around it.
pub struct Stack<B> {
    config: Config,
    statistics: Statistics,
    buffers: PhantomData<B>,
}

impl<B: PacketBuffer> Stack<B> {
    /// A host with no sockets.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names what is wrong with the configuration.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self { config, statistics: Statistics::default(), buffers: PhantomData })
    }

    /// What it was made of.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Everything it has counted.
    #[must_use]
    pub const fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    /// The longest frame that [`poll_transmit`](Self::poll_transmit) makes, in bytes.
    #[must_use]
    pub fn max_frame_len(&self) -> usize {
        let link = &self.config.link;
        link.tso_max.unwrap_or(crate::wire::ethernet::HEADER_LEN + link.mtu)
    }

    /// Takes one received frame, from its Ethernet header on. A super-frame is one frame.
    ///
    /// Afterwards (after a batch of frames is best) poll for events, then for frames to send.
    pub fn receive(&mut self, now: Instant, frame: B, meta: RxMeta) {
        let _ = (now, frame, meta);
        unimplemented!()
    }

    /// Writes the next frame to send into `frame`, which must have at least
    /// [`max_frame_len`](Self::max_frame_len) bytes; nothing is sent otherwise.
    ///
    /// Call it until it returns `None` after each batch of calls that put something in:
    /// [`receive`](Self::receive), [`handle_timeout`](Self::handle_timeout), and all socket calls
    /// that take `now`.
    #[must_use = "the frame is considered sent"]
    pub fn poll_transmit(&mut self, now: Instant, frame: &mut [u8]) -> Option<TxMeta> {
        let _ = (now, frame);
        unimplemented!()
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called next; `None`: not before
    /// something else happens. It may be earlier than necessary, never later, and changes with
    /// every call that puts something in and with [`poll_transmit`](Self::poll_transmit).
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        unimplemented!()
    }

    /// Does what is due at `now`. Poll for events and frames afterwards.
    pub fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
        unimplemented!()
    }

    /// The next event. Call it until it returns `None` after each batch of calls that put something
    /// in. The queue is bounded by the number of sockets: an event that nobody polls for collects
    /// what happens to its socket.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        unimplemented!()
    }
}
