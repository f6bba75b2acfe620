//! The conformance suite: a channel under the layer is one like any other.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use super::puppet::{Puppet, plain};
use crate::{
    Addressing, Arena, ChannelInfo, CpuDevice, DmaDevice, Fallback, FallbackOptions, Layer,
    Layered, Ordering, Queue, Registry, SubmitError, ThreadsDevice, ThreadsOptions,
    conformance::{ARENA_LEN, all},
};

fn check(device: Arc<dyn DmaDevice>) {
    let arena = Arena::new(ARENA_LEN).unwrap();
    for keeps_order in [true, false] {
        let options = FallbackOptions { keeps_order, ..FallbackOptions::default() };
        let device = Layered::new(Arc::clone(&device), Fallback::new(options));
        device.map(&arena).unwrap();
        all(|| device.request_channel(0).unwrap(), &arena);
    }
}

#[test]
#[cfg_attr(miri, ignore = "hours: the suite looks at every byte")]
fn over_the_cpu() {
    check(Arc::new(CpuDevice::new(1)));
}

#[test]
#[cfg_attr(miri, ignore = "hours: the suite looks at every byte")]
fn over_threads() {
    check(Arc::new(ThreadsDevice::new(1)));
}

#[test]
#[cfg_attr(miri, ignore = "hours: the suite looks at every byte")]
fn over_threads_that_always_sleep_behind_a_tiny_ring() {
    let spin = Duration::ZERO;
    let options = ThreadsOptions { channels: 1, ring_size: 8, spin };
    check(Arc::new(ThreadsDevice::with_options(options)));
}

#[test]
#[cfg_attr(miri, ignore = "hours: the suite looks at every byte")]
fn over_an_engine_that_can_do_next_to_nothing() {
    for ordering in [Ordering::InOrder, Ordering::OutOfOrder] {
        let info = ChannelInfo {
            ordering,
            ring_size: 4,
            xfercap: NonZeroUsize::new(512).unwrap(),
            alignment: NonZeroUsize::new(8).unwrap(),
            addressing: Addressing::Iova,
            ..plain()
        };
        let arena = Arena::new(ARENA_LEN).unwrap();
        let fresh = || {
            let (puppet, engine) = Puppet::new(info.clone());
            engine.state().works = true;
            Fallback::default().wrap(Box::new(puppet))
        };
        all(fresh, &arena);
    }
}

#[test]
fn over_a_registered_channel_it_keeps_name_counters_and_hold() {
    let registry = Registry::new();
    let device = registry.register(Arc::new(CpuDevice::new(1)));
    let channel = registry.request("dma0chan0").unwrap().layered(&Fallback::default());
    assert_eq!(channel.name(), "dma0chan0");
    assert!(registry.request("dma0chan0").is_err(), "it is still in use");
    let mut queue = Queue::new(channel);
    queue.copy(vec![7u8; 100], vec![0u8; 100], ()).unwrap();
    queue.wait(Duration::from_secs(30), |done| assert_eq!(done.target, [7; 100])).unwrap();
    assert_eq!(queue.stats().completed(), 1);
    registry.unregister(device, Duration::ZERO).unwrap_err();
    let refused = queue.copy(vec![7; 100], vec![0; 100], ()).unwrap_err();
    assert_eq!(refused.error, SubmitError::Removed, "the CPU does not hide that");
    drop(queue);
    registry.unregister(device, Duration::ZERO).unwrap();
}
