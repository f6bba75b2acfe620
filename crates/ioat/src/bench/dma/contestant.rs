use std::time::Duration;

use dmaengine::{Arena, DmaChannel, Ordering, Queue};

use super::{
    bare::Bare,
    contest::{Error, Settings},
    dpdk::{Dpdk, Request},
    figures::{Cost, Figures, Interface, Percentiles, Point},
    memcpy::Memcpy,
    pairs::Pairs,
    pass::{PassError, Plan, Subject},
    queued::{PairQueue, Queued},
};
use crate::{
    bench::{
        Clock,
        null::{self, NullChannel},
    },
    engine::EngineName,
};

/// One of those that take turns, with what was measured of it.
#[derive(Debug)]
pub(super) struct Contestant {
    pub(super) name: String,
    pub(super) kind: &'static str,
    pub(super) interface: Interface,
    how: How,
    /// Whether it copies at all: `null` does not.
    pub(super) copies: bool,
    /// Of each point.
    pub(super) figures: Vec<Figures>,
}

#[derive(Debug)]
enum How {
    /// The caller copies.
    Memcpy,
    /// The device lives as long as its channel.
    Queue(PairQueue),
    Channel(Box<dyn DmaChannel>),
    Dpdk(Dpdk),
}

impl How {
    fn over(channel: Box<dyn DmaChannel>, interface: Interface) -> Result<Self, Error> {
        let info = channel.info();
        match interface {
            // Without a queue only operations that end in order find their pair.
            Interface::Channel if info.ordering == Ordering::OutOfOrder => {
                Err(Error::OutOfOrder { engine: info.engine.clone() })
            }
            Interface::Channel => Ok(Self::Channel(channel)),
            _ => Ok(Self::Queue(Queue::new(channel))),
        }
    }
}

/// A turn at one point.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn {
    pub(super) cost: Cost,
    /// With one batch in flight.
    pub(super) latency: Percentiles,
    /// With as much in flight as the depth allows.
    pub(super) loaded: Percentiles,
}

impl Turn {
    /// Three passes over the same pairs.
    fn of(subject: &mut impl Subject, plan: Plan<'_>) -> Result<Self, PassError> {
        Ok(Self {
            cost: plan.cost(subject)?,
            latency: Plan { depth: plan.batch, ..plan }.latency(subject)?,
            loaded: plan.latency(subject)?,
        })
    }
}

impl Contestant {
    fn new(name: impl Into<String>, kind: &'static str, interface: Interface, how: How) -> Self {
        Self { name: name.into(), kind, interface, how, copies: true, figures: Vec::new() }
    }

    /// The calling thread by itself.
    pub(super) fn memcpy() -> Self {
        Self::new("memcpy", "cpu", Interface::Call, How::Memcpy)
    }

    /// The first channel of an engine of ours, for copies within `arena`.
    pub(super) fn ours(
        name: &EngineName,
        interface: Interface,
        arena: &Arena,
    ) -> Result<Self, Error> {
        let device = name.open()?;
        device.map(arena)?;
        let channel = device.request_channel(0)?;
        let kind = channel.info().kind.as_str();
        let how = How::over(channel, interface)?;
        Ok(Self::new(name.to_string(), kind, interface, how))
    }

    pub(super) fn null(interface: Interface) -> Result<Self, Error> {
        let how = How::over(Box::new(NullChannel::new()), interface)?;
        Ok(Self { copies: false, ..Self::new("null", null::KIND, interface, how) })
    }

    pub(super) fn dpdk(program: Dpdk) -> Self {
        Self::new("dpdk", "software", Interface::Dmadev, How::Dpdk(program))
    }

    /// The version of DPDK, if it is DPDK's.
    pub(super) fn dpdk_version(&self) -> Option<&str> {
        match &self.how {
            How::Dpdk(program) => Some(program.version()),
            How::Memcpy | How::Queue(_) | How::Channel(_) => None,
        }
    }

    /// A ring that is too small would be found out in the middle of a pass.
    pub(super) fn check_depth(&self, settings: &Settings) -> Result<(), Error> {
        let (info, space) = match &self.how {
            How::Queue(queue) => (queue.info(), queue.space()),
            How::Channel(channel) => (channel.info(), channel.space()),
            How::Memcpy | How::Dpdk(_) => return Ok(()),
        };
        for &size in &settings.sizes {
            let most = space / info.descriptors(size).max(1);
            if most < settings.depth {
                let engine = self.name.clone();
                return Err(Error::Depth { engine, depth: settings.depth, size, most });
            }
        }
        Ok(())
    }

    pub(super) fn turn(
        &mut self,
        point: Point,
        settings: &Settings,
        clock: &Clock,
        arena: &Arena,
    ) -> Result<Turn, Error> {
        let Settings { depth, pairs, pass: duration, .. } = *settings;
        let plan = Plan { clock, batch: point.batch, depth, duration, copies: self.copies };
        let new_pairs = || Pairs::new(arena, pairs, point.size).map_err(PassError::from);
        let turn = match &mut self.how {
            How::Memcpy => {
                new_pairs().and_then(|pairs| Turn::of(&mut Memcpy::new(pairs, depth), plan))
            }
            How::Queue(queue) => {
                new_pairs().and_then(|pairs| Turn::of(&mut Queued::new(queue, pairs), plan))
            }
            How::Channel(channel) => new_pairs().and_then(|pairs| {
                Turn::of(&mut Bare::new(&mut **channel, pairs, point.size), plan)
            }),
            How::Dpdk(program) => return Ok(dpdk_turn(program, point, depth, pairs, duration)?),
        };
        let Point { size, batch } = point;
        turn.map_err(|error| Error::Pass { engine: self.name.clone(), size, batch, error })
    }
}

fn dpdk_turn(
    program: &mut Dpdk,
    point: Point,
    depth: usize,
    pairs: usize,
    duration: Duration,
) -> Result<Turn, super::DpdkError> {
    let request = Request { point, depth, pairs, duration };
    Ok(Turn {
        cost: program.cost(request)?,
        latency: program.latency(Request { depth: point.batch, ..request })?,
        loaded: program.latency(request)?,
    })
}
