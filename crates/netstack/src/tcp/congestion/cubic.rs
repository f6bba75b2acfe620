//! CUBIC (RFC 9438).

use std::time::Duration;

use super::{CongestionControl, initial_window};
use crate::Instant;

/// How aggressively the window grows, in segments per second cubed (RFC 9438 section 5.1).
const C: f64 = 0.4;
/// What a loss leaves of the window (RFC 9438 section 4.6).
const BETA: f64 = 0.7;
/// Gives the window of an AIMD sender with [`BETA`] the average of Reno's (RFC 9438 section 4.3).
const ALPHA: f64 = 3.0 * (1.0 - BETA) / (1.0 + BETA);

/// The time since the last loss, and what follows from it. Windows are in segments, as in the RFC.
#[derive(Clone, Copy, Debug)]
struct Epoch {
    start: Instant,
    /// Seconds until the window is back at `w_max`: K.
    k: f64,
    /// `W_est`: what Reno would have by now.
    reno: f64,
}

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct Cubic {
    mss: usize,
    /// cwnd in bytes.
    window: usize,
    /// ssthresh in bytes.
    threshold: usize,
    /// The window before the last loss, in segments.
    w_max: f64,
    /// The window at the last loss, in segments: `cwnd_prior`.
    prior: f64,
    /// Bytes by which the window has grown on paper, but not by a whole byte yet.
    fraction: f64,
    /// `None` from a loss until congestion avoidance begins.
    epoch: Option<Epoch>,
}

impl Cubic {
    /// With `window` bytes to begin with.
    pub(crate) const fn new(mss: usize, window: usize) -> Self {
        Self {
            mss,
            window,
            threshold: usize::MAX,
            w_max: 0.0,
            prior: 0.0,
            fraction: 0.0,
            epoch: None,
        }
    }

    fn segments(&self, bytes: usize) -> f64 {
        bytes as f64 / self.mss as f64
    }

    /// RFC 9438 sections 4.6 and 4.7: remembers where the loss was and lowers the threshold.
    fn multiplicative_decrease(&mut self, in_flight: usize) {
        let window = self.segments(self.window);
        // Fast convergence: a window that peaks lower than the last time makes room for others.
        self.w_max = if window < self.w_max { window * (1.0 + BETA) / 2.0 } else { window };
        self.prior = window;
        // RFC 9438 section 4.6 allows the window instead of the flight size, which an application
        // that pauses makes small; but a window that was never used says nothing, so the flight
        // size bounds it.
        let base = self.window.min(in_flight.max(2 * self.mss));
        self.threshold = ((base as f64 * BETA) as usize).max(2 * self.mss);
        self.epoch = None;
        self.fraction = 0.0;
    }

    fn avoid_congestion(&mut self, now: Instant, acked: usize, srtt: Duration) {
        let window = self.segments(self.window);
        let epoch = match &mut self.epoch {
            Some(epoch) => epoch,
            none => {
                // RFC 9438 section 4.2; a window that is beyond the last loss already has K = 0.
                self.w_max = self.w_max.max(window);
                let k = ((self.w_max - window) / C).cbrt();
                none.insert(Epoch { start: now, k, reno: window })
            }
        };
        let mss = self.mss as f64;
        let acked_segments = acked as f64 / mss;

        // RFC 9438 section 4.3.
        let alpha = if epoch.reno >= self.prior { 1.0 } else { ALPHA };
        epoch.reno += alpha * acked_segments / window;
        // RFC 9438 section 4.2 with t + RTT, and the bounds of its target.
        let elapsed = (now - epoch.start + srtt).as_secs_f64();
        let cubic = C * (elapsed - epoch.k).powi(3) + self.w_max;
        let target = cubic.clamp(window, 1.5 * window);
        let growth = ((target - window) / window * acked_segments).max(epoch.reno - window);

        self.fraction += growth.max(0.0) * mss;
        let bytes = self.fraction as usize;
        self.fraction -= bytes as f64;
        self.window = self.window.saturating_add(bytes);
    }
}

impl CongestionControl for Cubic {
    fn window(&self) -> usize {
        self.window
    }

    fn threshold(&self) -> usize {
        self.threshold
    }

    fn on_ack(&mut self, now: Instant, acked: usize, srtt: Duration) {
        if self.window >= self.threshold {
            return self.avoid_congestion(now, acked, srtt);
        }
        // Slow start, by the bytes that were acknowledged: receivers acknowledge whole
        // super-frames, so a limit per acknowledgment (RFC 3465's L) would stall it, and what we
        // send is paced by the link.
        let slow = acked.min(self.threshold - self.window);
        self.window = self.window.saturating_add(slow);
        if acked > slow {
            self.avoid_congestion(now, acked - slow, srtt);
        }
    }

    fn on_loss(&mut self, in_flight: usize) {
        self.multiplicative_decrease(in_flight);
        self.window = self.threshold;
    }

    fn on_timeout(&mut self, in_flight: usize, first: bool) {
        // RFC 5681 section 3.1: what is lost a second time does not lower the threshold again.
        if first {
            self.multiplicative_decrease(in_flight);
        }
        self.epoch = None;
        self.fraction = 0.0;
        self.window = self.mss;
    }

    fn on_idle(&mut self) {
        // RFC 5681 section 4.1.
        self.window = self.window.min(initial_window(self.mss));
        self.epoch = None;
    }

    fn set_mss(&mut self, mss: usize) {
        let ratio = self.mss as f64 / mss as f64;
        self.w_max *= ratio;
        self.prior *= ratio;
        self.epoch = None;
        self.mss = mss;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: usize = 1000;
    const RTT: Duration = Duration::from_millis(100);

    /// One round trip in which everything is acknowledged.
    fn round(cubic: &mut Cubic, now: &mut Instant) {
        *now += RTT;
        let mut left = cubic.window();
        while left > 0 {
            let acked = left.min(2 * MSS);
            cubic.on_ack(*now, acked, RTT);
            left -= acked;
        }
    }

    #[test]
    fn slow_start_doubles_and_stops_at_the_threshold() {
        let mut now = Instant::ZERO;
        let mut cubic = Cubic::new(MSS, 10 * MSS);
        round(&mut cubic, &mut now);
        assert_eq!(cubic.window(), 20 * MSS);
        cubic.on_timeout(20 * MSS, true);
        assert_eq!((cubic.window(), cubic.threshold()), (MSS, 14 * MSS));
        for _ in 0..4 {
            round(&mut cubic, &mut now);
        }
        assert!((14 * MSS..17 * MSS).contains(&cubic.window()), "{}", cubic.window());
    }

    #[test]
    fn a_loss_takes_three_tenths() {
        let mut cubic = Cubic::new(MSS, 100 * MSS);
        cubic.on_loss(100 * MSS);
        assert_eq!((cubic.window(), cubic.threshold()), (70 * MSS, 70 * MSS));
        assert_eq!(cubic.w_max, 100.0);
        // Fast convergence.
        cubic.on_loss(70 * MSS);
        assert!((cubic.w_max - 59.5).abs() < 1e-9);
    }

    #[test]
    fn a_repeated_timeout_keeps_the_threshold() {
        let mut cubic = Cubic::new(MSS, 100 * MSS);
        cubic.on_timeout(100 * MSS, true);
        cubic.on_timeout(MSS, false);
        assert_eq!((cubic.window(), cubic.threshold()), (MSS, 70 * MSS));
    }

    #[test]
    fn an_unused_window_does_not_count() {
        let mut cubic = Cubic::new(MSS, 100 * MSS);
        cubic.on_loss(10 * MSS);
        assert_eq!(cubic.window(), 7 * MSS);
    }

    /// RFC 9438 section 4.2: `W_cubic` reaches `W_max` after K seconds, flattens there, then grows
    /// faster and faster.
    #[test]
    fn the_curve() {
        let mut now = Instant::ZERO;
        let mut cubic = Cubic::new(MSS, 1000 * MSS);
        cubic.on_loss(1000 * MSS);
        let k = (1000.0_f64 * (1.0 - BETA) / C).cbrt();
        let rounds = (k / RTT.as_secs_f64()) as usize;
        let mut windows = vec![cubic.window()];
        for _ in 0..3 * rounds {
            round(&mut cubic, &mut now);
            windows.push(cubic.window());
        }
        let at_k = windows[rounds] as f64 / (1000 * MSS) as f64;
        assert!((0.97..1.01).contains(&at_k), "{at_k}");
        let growth = |at: usize| windows[at + 1] - windows[at];
        assert!(growth(1) > 4 * growth(rounds), "concave");
        assert!(growth(2 * rounds) > 4 * growth(rounds), "convex");
    }

    #[test]
    fn short_paths_grow_like_reno() {
        let mut now = Instant::ZERO;
        let mut cubic = Cubic::new(MSS, 10 * MSS);
        cubic.on_loss(10 * MSS);
        let rtt = Duration::from_millis(1);
        for _ in 0..20 {
            now += rtt;
            cubic.on_ack(now, cubic.window(), rtt);
        }
        // RFC 9438 section 4.3: by alpha per round trip up to the old window, then by one.
        let expected = 10.0 + 20.0 - 3.0 / ALPHA;
        let window = cubic.window() as f64 / MSS as f64;
        assert!((window - expected).abs() < 0.5, "{window} against {expected}");
    }

    #[test]
    fn initial_windows() {
        assert_eq!(initial_window(1460), 14_600);
        assert_eq!(initial_window(536), 5360);
        assert_eq!(initial_window(8960), 17_920);
    }
}
