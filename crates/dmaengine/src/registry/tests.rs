use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use super::*;
use crate::{CpuDevice, Fallback, FallbackCause, Layered, Queue, Split, Status, SubmitError};

mod puppet;
mod removal;
mod sharing;

use self::puppet::Puppet;

/// Longer than anything that is waited for.
const LONG: Duration = Duration::from_secs(30);

fn users(registry: &Registry) -> Vec<usize> {
    registry.list().iter().map(|channel| channel.users).collect()
}

#[test]
fn channels_are_exclusive_and_their_counters_stay() {
    let registry = Registry::new();
    registry.register(Arc::new(CpuDevice::new(1)));
    assert_eq!(registry.register(Arc::new(CpuDevice::new(1))), 1);
    for unknown in ["dma2chan0", "dma0chan1", "chan0"] {
        let error = registry.request(unknown).unwrap_err();
        assert!(matches!(error, LookupError::UnknownName { name } if name == unknown));
    }

    let first = registry.request("dma0chan0").unwrap();
    assert!(matches!(
        registry.request("dma0chan0"),
        Err(LookupError::Request { source: RequestError::InUse, .. })
    ));
    let mask = Capabilities::MEMCPY;
    let second = registry.request_matching(mask, |_, info| info.engine == "cpu").unwrap();
    assert_eq!((first.name(), second.name()), ("dma0chan0", "dma1chan0"));
    assert!(matches!(registry.request_matching(mask, |_, _| true), Err(LookupError::NoMatch)));
    assert_eq!(users(&registry), [1, 1]);

    let mut queue = Queue::new(first);
    queue.copy(vec![1u8; 100], vec![0u8; 100], ()).unwrap();
    queue.wait(LONG, |_| ()).unwrap();
    drop(queue);
    let stats = &registry.list()[0].stats;
    assert_eq!((stats.memcpy_count(), stats.bytes_transferred()), (1, 100));
    assert_eq!(users(&registry), [0, 1]);

    let mut queue = Queue::new(registry.request("dma0chan0").unwrap());
    queue.copy(vec![1u8; 10], vec![0u8; 10], ()).unwrap();
    assert_eq!(registry.list()[0].stats.depth.now, 1);
    drop(queue);
    let stats = &registry.list()[0].stats;
    assert_eq!((stats.memcpy_count(), stats.depth.now), (2, 0));
}

#[test]
fn masks_and_filters_choose() {
    let registry = Registry::new();
    let copy = Puppet::info(Capabilities::MEMCPY);
    let able = Puppet::info(Capabilities::MEMCPY | Capabilities::XOR);
    let private = Puppet::info(Capabilities::MEMCPY | Capabilities::PRIVATE);
    registry.register(Puppet::device(&[private.clone(), copy.clone()]).0);
    registry.register(Puppet::device(&[copy, able.clone(), private]).0);

    let mut asked = Vec::new();
    let found = registry.request_matching(Capabilities::XOR, |name, info| {
        asked.push(name.to_owned());
        info == &able
    });
    assert_eq!(found.unwrap().name(), "dma1chan1");
    assert_eq!(asked, ["dma1chan1"], "only who can do it is shown");

    let any = |mask| registry.request_matching(mask, |_, _| true);
    let held = [(), (), ()].map(|()| any(Capabilities::MEMCPY).unwrap());
    let names = held.each_ref().map(Channel::name);
    assert_eq!(names, ["dma0chan1", "dma1chan0", "dma1chan1"], "private ones are not among them");
    assert!(matches!(any(Capabilities::MEMCPY), Err(LookupError::NoMatch)));
    let by_mask = any(Capabilities::PRIVATE | Capabilities::MEMCPY).unwrap();
    assert_eq!(by_mask.name(), "dma0chan0");
    assert!(matches!(any(Capabilities::PRIVATE | Capabilities::PQ), Err(LookupError::NoMatch)));
    assert!(registry.request("dma1chan2").is_ok(), "by name, private or not");
}

#[test]
fn a_filter_may_ask_the_registry_and_panic() {
    let registry = Registry::new();
    registry.register(Arc::new(CpuDevice::new(2)));
    let found = registry.request_matching(Capabilities::MEMCPY, |name, _| {
        // Whoever takes the first meanwhile, has it.
        name == "dma0chan1" || registry.request(name).is_err()
    });
    assert_eq!(found.unwrap().name(), "dma0chan1");
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        registry.request_matching(Capabilities::MEMCPY, |_, _| panic!("the caller's"))
    }));
    assert!(panic.is_err());
    assert_eq!(users(&registry), [0, 0]);
}

#[test]
fn a_channel_that_does_not_open_is_passed_over_and_stays_free() {
    let registry = Registry::new();
    let (device, strings) = Puppet::device(&[Puppet::info(Capabilities::MEMCPY)]);
    registry.register(device);
    strings.lock().unwrap().refuses = true;
    let mask = Capabilities::MEMCPY;
    let error = registry.request_matching(mask, |_, _| true).unwrap_err();
    assert_eq!(
        error.to_string(),
        "dma0chan0: the channel does not start: the puppet does not dance"
    );
    assert_eq!(users(&registry), [0]);
    registry.register(Arc::new(CpuDevice::new(1)));
    assert_eq!(registry.request_matching(mask, |_, _| true).unwrap().name(), "dma1chan0");
}

#[test]
fn a_channel_is_in_use_until_its_driver_has_let_go_and_drivers_may_ask_the_registry() {
    let registry = Arc::new(Registry::new());
    let (device, strings) = Puppet::device(&[Puppet::info(Capabilities::MEMCPY)]);
    registry.register(device);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let look = {
        let (registry, seen) = (Arc::downgrade(&registry), Arc::clone(&seen));
        move || {
            let registry = registry.upgrade().unwrap();
            let taken = registry.request("dma0chan0").is_ok();
            seen.lock().unwrap().push((users(&registry)[0], taken));
        }
    };
    strings.lock().unwrap().meddler = Some(Arc::new(look));
    drop(registry.request("dma0chan0").unwrap());
    assert_eq!(*seen.lock().unwrap(), [(1, false), (1, false)], "when opened, and when closed");
    assert_eq!(users(&registry), [0]);
    strings.lock().unwrap().meddler = None;
}

/// Everything at once: whoever has a channel has it alone, nothing is lost, and it all comes to rest.
#[test]
fn requests_shared_use_and_removal_at_the_same_time() {
    const ROUNDS: usize = 200;

    let registry = Registry::new();
    let events = registry.subscribe();
    let lasting = registry.register(Arc::new(CpuDevice::new(1)));
    let copies = AtomicUsize::new(0);
    thread::scope(|scope| {
        for worker in 0..4 {
            let (registry, copies) = (&registry, &copies);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let mask = Capabilities::MEMCPY;
                    if (worker + round) % 2 == 0 {
                        let Ok(channel) = registry.request_matching(mask, |_, _| true) else {
                            continue;
                        };
                        let mut queue = Queue::new(channel);
                        match queue.copy(vec![7u8; 64], vec![0u8; 64], ()) {
                            Ok(_) => {}
                            Err(refused) => {
                                assert_eq!(refused.error, SubmitError::Removed);
                                continue;
                            }
                        }
                        queue
                            .wait(LONG, |done| {
                                assert_eq!(
                                    (done.status, done.target),
                                    (Status::Success, vec![7; 64])
                                );
                            })
                            .unwrap();
                    } else {
                        let Ok(channel) = registry.find_channel(mask) else { continue };
                        match channel.copy(vec![7u8; 64], vec![0u8; 64], LONG) {
                            Ok((end, _, target)) => {
                                assert_eq!((end.status, target), (Status::Success, vec![7; 64]));
                            }
                            Err(refused) => {
                                assert!(matches!(
                                    refused.error,
                                    SharedError::Lookup(LookupError::NoMatch)
                                ));
                                continue;
                            }
                        }
                    }
                    // Relaxed: a sum, read when all threads have ended.
                    copies.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..ROUNDS / 4 {
                    let device = registry.register(Arc::new(CpuDevice::new(2)));
                    thread::yield_now();
                    registry.unregister(device, LONG).unwrap();
                }
            });
        }
    });
    assert!(copies.into_inner() > 0);
    let last = registry.list();
    assert_eq!((last.len(), last[0].users), (1, 0));
    let mut steps = std::collections::BTreeMap::<usize, Vec<DeviceEvent>>::new();
    for event in events.try_iter() {
        let (DeviceEvent::Added { device, .. }
        | DeviceEvent::Removing { device }
        | DeviceEvent::Removed { device }) = event;
        steps.entry(device).or_default().push(event);
    }
    assert_eq!(steps.len(), 2 * (ROUNDS / 4) + 1, "no number is given twice");
    for (device, steps) in steps {
        let channels = if device == lasting { 1 } else { 2 };
        let all = [
            DeviceEvent::Added { device, channels },
            DeviceEvent::Removing { device },
            DeviceEvent::Removed { device },
        ];
        let expected = if device == lasting { &all[..1] } else { &all[..] };
        assert_eq!(steps, expected);
    }
}

#[test]
fn fallback_stats_are_found_by_name() {
    /// A copy that the engine can do, and so many fills, which it cannot.
    fn work(channel: impl Into<Channel>, fills: usize) {
        let mut queue = Queue::new(channel);
        queue.copy(vec![7u8; 100], vec![0u8; 100], ()).unwrap();
        for _ in 0..fills {
            queue.fill(7, vec![0u8; 100], ()).unwrap();
        }
        queue.wait(LONG, |done| assert_eq!(done.status, Status::Success)).unwrap();
    }

    let registry = Registry::new();
    let device = || Puppet::device(&[Puppet::info(Capabilities::MEMCPY)]).0;
    registry.register(device());
    let layered = Arc::new(Layered::new(device(), Fallback::default()));
    registry.register(Arc::new(Layered::new(layered, Split::default())));
    let unsupported = |name: &str| {
        let stats = registry.fallback_stats(name)?;
        Some(stats.operations(FallbackCause::Unsupported))
    };

    for name in ["dma0chan0", "dma1chan0", "dma2chan0", "chan"] {
        assert_eq!(unsupported(name), None, "{name}");
    }
    // The device has the layer, with another over it.
    work(registry.request("dma1chan0").unwrap(), 2);
    assert_eq!(unsupported("dma1chan0"), Some(2), "of the last user, who is gone");
    let next = registry.request("dma1chan0").unwrap();
    assert_eq!(unsupported("dma1chan0"), Some(0));
    drop(next);
    // The user puts it over the channel.
    let plain = registry.request("dma0chan0").unwrap();
    assert_eq!(unsupported("dma0chan0"), None);
    work(plain.layered(&Fallback::default()), 3);
    assert_eq!(unsupported("dma0chan0"), Some(3));
    drop(registry.request("dma0chan0").unwrap());
    assert_eq!(unsupported("dma0chan0"), None, "the next has none");
    // Several share it.
    let shared = registry.find_channel(Capabilities::MEMSET).unwrap();
    assert_eq!((shared.name().as_deref(), unsupported("dma1chan0")), (Some("dma1chan0"), Some(0)));
}
