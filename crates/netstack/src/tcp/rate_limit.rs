use std::time::Duration;

use crate::Instant;

/// Limits answers to suspicious segments of one connection, against loops in which two ends correct
/// each other for ever: one per half second, Linux's `tcp_invalid_ratelimit`. A limit for the whole
/// host, as RFC 5961 section 7 suggests, would let others find out about a connection
/// (CVE-2016-5696).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ChallengeLimit(Option<Instant>);

const INTERVAL: Duration = Duration::from_millis(500);

impl ChallengeLimit {
    /// Whether to answer now; if so, that counts.
    pub(crate) fn permits(&mut self, now: Instant) -> bool {
        let permits = self.0.is_none_or(|last| now - last >= INTERVAL);
        if permits {
            self.0 = Some(now);
        }
        permits
    }
}
