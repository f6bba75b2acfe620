use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::plan::Fault;

/// Faults that are ordered while the engine works: each meets the next operation that is submitted
/// to a channel of the [`Faults`](super::Faults) layer, whichever channel that is.
///
/// A plan says what goes wrong at which operation, the same in every run. Orders are for what goes
/// wrong at a time, as in a long test of a system that is alive. Several that wait meet one operation
/// each, in the order in which they were given. Cloning makes another handle to the same orders.
///
/// ```
/// use std::{sync::Arc, time::Duration};
/// use dmaengine::{
///     CpuDevice, DmaDevice, Fault, FaultOrders, FaultPlan, Faults, Layered, Queue, Status,
/// };
///
/// let orders = FaultOrders::new();
/// let faults = Faults::new(FaultPlan::default()).with_orders(&orders);
/// let device = Layered::new(Arc::new(CpuDevice::new(1)), faults);
/// let mut queue = Queue::new(device.request_channel(0)?);
/// let mut copy = || {
///     queue.copy(vec![1u8; 100], vec![0u8; 100], ()).map_err(|refused| refused.error)?;
///     let mut end = None;
///     queue.wait(Duration::from_secs(1), |done| end = Some(done.status))?;
///     Ok::<_, Box<dyn std::error::Error>>(end)
/// };
/// assert_eq!(copy()?, Some(Status::Success));
/// orders.order(Fault::Fail(Status::ReadError));
/// assert_eq!(copy()?, Some(Status::ReadError));
/// assert_eq!((copy()?, orders.waiting()), (Some(Status::Success), 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct FaultOrders {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    orders: Mutex<VecDeque<Fault>>,
    /// How many there are, to be seen without the lock.
    count: AtomicUsize,
}

impl FaultOrders {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Orders a fault.
    pub fn order(&self, fault: Fault) {
        let mut orders = self.lock();
        orders.push_back(fault);
        self.count(&orders);
    }

    /// How many have met no operation yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lock().len()
    }

    /// The next one, for an operation that is being submitted.
    pub(super) fn take(&self) -> Option<Fault> {
        // Relaxed: a hint. An order that is not seen yet meets a later operation.
        if self.shared.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut orders = self.lock();
        let order = orders.pop_front();
        self.count(&orders);
        order
    }

    fn count(&self, orders: &VecDeque<Fault>) {
        // Relaxed: see `take`; the lock orders all that is changed.
        self.shared.count.store(orders.len(), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Fault>> {
        // The queue is valid whoever panicked under the lock.
        self.shared.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
