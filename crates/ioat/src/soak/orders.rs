//! An engine, and the faults that are ordered of it.

use std::{
    collections::BTreeMap,
    num::NonZeroU64,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use dmaengine::{
    Delay, DmaDevice, Fault, FaultOrders, FaultPlan, Faults, Layered, Registry, Status,
};
use ioat_model::{Fault as ModelFault, in_process, registers::ChanErr};

use super::{SoakError, control::Control, random::Random};
use crate::engine::{self, EngineName, model};

/// A device has a fault layer over each of its channels; a model has faults of its own.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) name: EngineName,
    pub(super) device: Arc<dyn DmaDevice>,
    pub(super) registry: Registry,
    orders: FaultOrders,
    model: Option<model::FaultOrders>,
    /// Faults that were ordered, by name.
    ordered: Mutex<BTreeMap<&'static str, u64>>,
}

/// What can be ordered.
#[derive(Clone, Copy, Debug)]
enum Order {
    Layer(Fault),
    Model(ModelFault),
}

const VANISHED: Fault = Fault::Vanish { stops: NonZeroU64::new(1) };
const VANISHED_FOR_LONGER: Fault = Fault::Vanish { stops: NonZeroU64::new(3) };

/// Over any engine.
const LAYER: [(&str, Order); 11] = [
    ("delay", Order::Layer(Fault::Delay(Delay::Time(Duration::from_millis(3))))),
    ("delay", Order::Layer(Fault::Delay(Delay::Polls(5)))),
    ("delay", Order::Layer(Fault::Delay(Delay::Operations(7)))),
    ("fail", Order::Layer(Fault::Fail(Status::WriteError))),
    ("fail", Order::Layer(Fault::Fail(Status::ReadError))),
    ("fail", Order::Layer(Fault::Fail(Status::NotAttempted))),
    ("halt", Order::Layer(Fault::Halt(Status::BadDescriptor))),
    ("hang", Order::Layer(Fault::Lose)),
    ("vanish", Order::Layer(VANISHED)),
    ("vanish", Order::Layer(VANISHED_FOR_LONGER)),
    ("full", Order::Layer(Fault::Full)),
];

/// Of the device model, at its registers.
const MODEL: [(&str, Order); 10] = [
    ("model: error", Order::Model(ModelFault::Error(ChanErr::READ_DATA))),
    ("model: error", Order::Model(ModelFault::Error(ChanErr::WRITE_DATA))),
    ("model: error", Order::Model(ModelFault::Error(ChanErr::LENGTH))),
    ("model: halt", Order::Model(ModelFault::Halt)),
    ("model: hang", Order::Model(ModelFault::Hang)),
    ("model: lost completion", Order::Model(ModelFault::LostCompletion)),
    ("model: late completion", Order::Model(ModelFault::LateCompletion(Duration::from_millis(3)))),
    ("model: lost interrupt", Order::Model(ModelFault::LostInterrupt)),
    ("model: lost doorbell", Order::Model(ModelFault::LostDoorbell)),
    ("model: slow reset", Order::Model(ModelFault::SlowReset(Duration::from_millis(20)))),
];

impl Device {
    /// Opens an engine. A model has two channels.
    pub(super) fn open(name: &EngineName) -> Result<Self, engine::OpenError> {
        let (device, model) = match name {
            EngineName::Model(version) => {
                let device =
                    ioat_model::Config { version: *version, channels: 2, ..Default::default() };
                let config = in_process::Config { model: device, ..Default::default() };
                let (device, orders) =
                    model::open_with_orders(config, ioatdma::Options::default())?;
                (device, Some(orders))
            }
            name => (name.open()?, None),
        };
        let orders = FaultOrders::new();
        let plan = FaultPlan { poison: true, partial: true, ..FaultPlan::default() };
        let layer = Faults::new(plan).with_orders(&orders);
        let device: Arc<dyn DmaDevice> = Arc::new(Layered::new(device, layer));
        let registry = Registry::new();
        registry.register(Arc::clone(&device));
        let name = name.clone();
        Ok(Self { name, device, registry, orders, model, ordered: Mutex::default() })
    }

    /// Orders a fault in each `interval`, unless the one before has not met an operation yet. An engine
    /// that rests after each gets one operation a second: orders that pile up meanwhile would fail each
    /// of these for hours.
    pub(super) fn order_faults(&self, control: &Control, interval: Duration, mut random: Random) {
        while control.pause(interval) {
            if self.orders.waiting() > 0 {
                continue;
            }
            let choices =
                if self.model.is_some() && random.chance(2) { &MODEL[..] } else { &LAYER };
            let (name, order) = random.of(choices);
            match (order, &self.model) {
                (Order::Layer(fault), _) => self.orders.order(fault),
                (Order::Model(fault), Some(model)) => {
                    model.order(random.below(self.device.channels().len()), fault);
                }
                (Order::Model(_), None) => continue,
            }
            *self.lock().entry(name).or_default() += 1;
        }
    }

    /// How many faults were ordered, by name.
    pub(super) fn ordered(&self) -> BTreeMap<&'static str, u64> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, u64>> {
        // The counts are valid whoever panicked under the lock.
        self.ordered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The channels to use.
    pub(super) fn channels(&self) -> Result<Vec<dmaengine::Channel>, SoakError> {
        let count = self.device.channels().len().min(2);
        let names = (0..count).map(|channel| format!("dma0chan{channel}"));
        Ok(names.map(|name| self.registry.request(&name)).collect::<Result<_, _>>()?)
    }
}
