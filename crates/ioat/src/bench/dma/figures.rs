use std::str::FromStr;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::{bench::Clock, measure::Samples};

/// What is copied, and how many at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Point {
    /// The length of a copy in bytes.
    pub size: usize,
    /// Copies for one doorbell.
    pub batch: usize,
}

/// What the caller uses an engine through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Interface {
    /// A [`Queue`](dmaengine::Queue): memory goes in and comes back.
    Queue,
    /// A bare [`DmaChannel`](dmaengine::DmaChannel): addresses go in, and the caller answers for them.
    Channel,
    /// DPDK's: as a bare channel.
    Dmadev,
    /// A function call.
    Call,
}

impl Interface {
    /// The name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Channel => "channel",
            Self::Dmadev => "dmadev",
            Self::Call => "call",
        }
    }
}

/// An interface that our engines do not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no interface of an engine: use queue or channel")]
pub struct ParseInterfaceError(String);

impl FromStr for Interface {
    type Err = ParseInterfaceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "queue" => Ok(Self::Queue),
            "channel" => Ok(Self::Channel),
            _ => Err(ParseInterfaceError(text.into())),
        }
    }
}

/// What one pass cost the caller.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub(super) struct Cost {
    /// That ended in it.
    pub(super) operations: u64,
    pub(super) seconds: f64,
    /// Per operation that was submitted.
    pub(super) submit_ns: f64,
    /// Per operation that ended: polls that returned something.
    pub(super) poll_ns: f64,
    /// How often the caller lost its CPU meanwhile.
    pub(super) preemptions: u64,
}

impl Cost {
    fn operations_per_second(&self) -> f64 {
        self.operations as f64 / self.seconds
    }
}

/// The latencies of one pass, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub(super) struct Percentiles {
    /// Half of the operations took no longer.
    pub(super) p50_ns: f64,
    /// 99 % took no longer.
    pub(super) p99_ns: f64,
    /// 99.9 % took no longer.
    pub(super) p999_ns: f64,
}

impl Percentiles {
    /// Of latencies in ticks, if there are any.
    pub(super) fn of(ticks: &Histogram<u64>, clock: &Clock) -> Option<Self> {
        let at = |quantile| clock.ns(ticks.value_at_quantile(quantile));
        (!ticks.is_empty()).then(|| Self { p50_ns: at(0.5), p99_ns: at(0.99), p999_ns: at(0.999) })
    }
}

/// Percentiles of each round.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LatencyNs {
    /// Half of the operations took no longer.
    pub p50: Samples,
    /// 99 % took no longer.
    pub p99: Samples,
    /// 99.9 % took no longer.
    pub p999: Samples,
}

impl LatencyNs {
    fn push(&mut self, Percentiles { p50_ns, p99_ns, p999_ns }: Percentiles) {
        self.p50.push(p50_ns);
        self.p99.push(p99_ns);
        self.p999.push(p999_ns);
    }
}

/// What was measured of one engine at one point, with a value for each round.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// What the submitting thread pays for an operation: the sum of the next two.
    pub caller_ns: Samples,
    /// For submitting it, and its share of the doorbell.
    pub submit_ns: Samples,
    /// For polls that returned something.
    pub poll_ns: Samples,
    /// Gigabytes (10^9) copied per second.
    pub gb_per_s: Samples,
    /// Millions of operations per second.
    pub mops: Samples,
    /// With one batch in flight.
    pub latency_ns: LatencyNs,
    /// With as much in flight as the depth allows.
    pub loaded_latency_ns: LatencyNs,
}

impl Figures {
    /// Adds a round.
    pub(super) fn push(
        &mut self,
        point: Point,
        cost: &Cost,
        latency: Percentiles,
        loaded: Percentiles,
    ) {
        self.caller_ns.push(cost.submit_ns + cost.poll_ns);
        self.submit_ns.push(cost.submit_ns);
        self.poll_ns.push(cost.poll_ns);
        self.gb_per_s.push(cost.operations_per_second() * point.size as f64 / 1e9);
        self.mops.push(cost.operations_per_second() / 1e6);
        self.latency_ns.push(latency);
        self.loaded_latency_ns.push(loaded);
    }
}

/// One engine at one point.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The engine's name.
    pub engine: String,
    /// What moves the bytes: `cpu`, `software`, `model` or `hardware`; `none` if nothing does.
    pub kind: &'static str,
    /// What the caller used it through.
    pub interface: Interface,
    /// The length of a copy in bytes.
    pub size: usize,
    /// Copies for one doorbell.
    pub batch: usize,
    /// What was measured.
    #[serde(flatten)]
    pub figures: Figures,
    /// How many times `memcpy`'s the caller's cost is, round by round.
    pub caller_over_memcpy: Samples,
    /// How many times DPDK's the caller's cost is; `None` without DPDK.
    pub caller_over_dpdk: Option<Samples>,
    /// How many times `memcpy`'s the throughput is.
    pub throughput_over_memcpy: Samples,
    /// How many times DPDK's the throughput is.
    pub throughput_over_dpdk: Option<Samples>,
    /// Whether every copy was checked, and right.
    pub verified: bool,
}

impl Row {
    /// The engine, its kind and, of ours, the interface, in words.
    #[must_use]
    pub fn title(&self) -> String {
        let Self { engine, kind, interface, .. } = self;
        match interface {
            Interface::Channel => format!("{engine}, bare channel ({kind})"),
            Interface::Queue | Interface::Dmadev | Interface::Call => format!("{engine} ({kind})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_all_operations() {
        let clock = Clock::calibrate();
        let mut ticks = Histogram::new(3).unwrap();
        assert_eq!(Percentiles::of(&ticks, &clock), None);
        for latency in 1..=1000_u64 {
            ticks.record(latency).unwrap();
        }
        let of = Percentiles::of(&ticks, &clock).unwrap();
        let expected = [500, 990, 999].map(|ticks| clock.ns(ticks));
        assert_eq!([of.p50_ns, of.p99_ns, of.p999_ns], expected);
    }

    #[test]
    fn a_round_s_figures() {
        let cost =
            Cost { operations: 500, seconds: 0.5, submit_ns: 20.0, poll_ns: 10.0, preemptions: 0 };
        let latency = Percentiles { p50_ns: 1.0, p99_ns: 2.0, p999_ns: 3.0 };
        let loaded = Percentiles { p50_ns: 4.0, p99_ns: 5.0, p999_ns: 6.0 };
        let mut figures = Figures::default();
        figures.push(Point { size: 4000, batch: 1 }, &cost, latency, loaded);
        assert_eq!(figures.submit_ns.values(), [20.0]);
        assert_eq!(figures.poll_ns.values(), [10.0]);
        assert_eq!(figures.caller_ns.values(), [30.0]);
        assert_eq!(figures.mops.values(), [0.001]);
        assert_eq!(figures.gb_per_s.values(), [0.004]);
        assert_eq!(figures.latency_ns.p99.values(), [2.0]);
        assert_eq!(figures.loaded_latency_ns.p999.values(), [6.0]);
    }
}
