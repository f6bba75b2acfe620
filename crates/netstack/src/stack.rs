//! The host: everything between frames and sockets.

use std::{fmt, time::Duration};

use crate::{
    Config, ConfigError, Event, Instant, PacketBuffer, RxMeta, Statistics, TxMeta,
    tcp::{KeyedHash, Tcp},
    wire::ethernet,
};

mod api;
mod control;
mod egress;
mod ingress;
mod neighbors;
mod polling;
mod token_bucket;
mod urgent;

use control::{Control, ControlQueue};
use neighbors::Neighbors;
use token_bucket::TokenBucket;

/// Linux's `icmp_msgs_per_sec` of 1000, and `icmp_msgs_burst`.
const ICMP_INTERVAL: Duration = Duration::from_millis(1);
const ICMP_BURST: u32 = 50;

/// One host on one link. See the [crate's documentation](crate) for the loop around it.
pub struct Stack<B> {
    config: Config,
    statistics: Statistics,
    neighbors: Neighbors<B>,
    controls: ControlQueue<B>,
    tcp: Tcp<B>,
    echo_limit: TokenBucket,
    error_limit: TokenBucket,
    /// The latest time that a call has told.
    now: Instant,
}

impl<B> fmt::Debug for Stack<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The seed is a secret, and buffers say nothing.
        f.debug_struct("Stack")
            .field("address", &self.config.address)
            .field("statistics", &self.statistics)
            .finish_non_exhaustive()
    }
}

impl<B: PacketBuffer> Stack<B> {
    /// A host with no sockets.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names what is wrong with the configuration.
    pub fn new(config: Config) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self {
            statistics: Statistics::default(),
            neighbors: Neighbors::new(KeyedHash::new(config.seed)),
            controls: ControlQueue::new(),
            tcp: Tcp::new(&config),
            echo_limit: TokenBucket::new(ICMP_INTERVAL, ICMP_BURST),
            error_limit: TokenBucket::new(ICMP_INTERVAL, ICMP_BURST),
            now: Instant::ZERO,
            config,
        })
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
        link.tso_max.unwrap_or(ethernet::HEADER_LEN + link.mtu)
    }

    /// Takes one received frame, from its Ethernet header on. A super-frame is one frame.
    ///
    /// Afterwards (after a batch of frames is best) poll for events, then for frames to send.
    pub fn receive(&mut self, now: Instant, frame: B, meta: RxMeta) {
        let now = self.advance(now);
        self.statistics.frames_received += 1;
        match self.on_frame(now, frame, meta) {
            Ok(()) => self.statistics.frames_accepted += 1,
            Err(reason) => self.statistics.drops.count(reason),
        }
    }

    /// Writes the next frame to send into `frame`, which must have at least
    /// [`max_frame_len`](Self::max_frame_len) bytes; nothing is sent otherwise.
    ///
    /// Call it until it returns `None` after each batch of calls that put something in:
    /// [`receive`](Self::receive), [`handle_timeout`](Self::handle_timeout), and all socket calls
    /// that take `now`.
    #[must_use = "the frame is considered sent"]
    pub fn poll_transmit(&mut self, now: Instant, frame: &mut [u8]) -> Option<TxMeta> {
        if frame.len() < self.max_frame_len() {
            return None;
        }
        let now = self.advance(now);
        let meta = self.next_frame(now, frame)?;
        self.statistics.frames_sent += 1;
        Some(meta)
    }

    /// When [`handle_timeout`](Self::handle_timeout) must be called next; `None`: not before
    /// something else happens. It may be earlier than necessary, never later, and changes with
    /// every call that puts something in and with [`poll_transmit`](Self::poll_transmit).
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.tcp.sockets.deadline().into_iter().chain(self.neighbors.deadline()).min()
    }

    /// Does what is due at `now`. Poll for events and frames afterwards.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.advance(now);
        let mut failed = Vec::new();
        self.neighbors.handle_timeout(now, |waiting| failed.push(waiting));
        for waiting in failed {
            self.on_resolved(now, waiting, false);
        }
        self.tcp.handle_timeout(now, &mut self.statistics.tcp);
    }

    /// The next event. Call it until it returns `None` after each batch of calls that put something
    /// in. The queue is bounded by the number of sockets: an event that nobody polls for collects
    /// what happens to its socket.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.tcp.poll_event()
    }

    /// The time of a call: never before an earlier call's, whatever the caller's clock does.
    fn advance(&mut self, now: Instant) -> Instant {
        self.now = self.now.max(now);
        self.now
    }

    /// Queues an answer, unless too many wait.
    fn answer(&mut self, control: Control<B>) {
        if !self.controls.push(control) {
            self.statistics.replies_suppressed += 1;
        }
    }
}

#[cfg(test)]
mod tests;
