use super::*;

fn copying() -> Vec<ChannelInfo> {
    vec![Puppet::info(Capabilities::MEMCPY)]
}

type BytesQueue = Queue<Vec<u8>, Vec<u8>, ()>;

#[test]
fn a_removal_refuses_what_is_new_ends_what_is_in_flight_and_says_who_is_in_the_way() {
    let registry = Registry::new();
    let (device, strings) = Puppet::device(&copying());
    let number = registry.register(device);
    strings.lock().unwrap().holds = true;
    let named = thread::Builder::new().name("the user".to_owned());
    let channel = thread::scope(|scope| {
        named.spawn_scoped(scope, || registry.request("dma0chan0")).unwrap().join().unwrap()
    });
    let mut queue = BytesQueue::new(channel.unwrap());
    queue.copy(vec![1], vec![0], ()).unwrap();

    let error = registry.unregister(number, Duration::ZERO).unwrap_err();
    let holder = Holder { channel: "dma0chan0".to_owned(), thread: Some("the user".to_owned()) };
    assert_eq!(error, RemovalError::InUse { device: number, holders: vec![holder] });
    assert!(error.to_string().contains("dma0chan0 (requested by the user)"), "{error}");
    let refused = queue.copy(vec![2], vec![0], ()).unwrap_err();
    assert_eq!((refused.error, refused.source), (SubmitError::Removed, vec![2]));
    assert!(matches!(registry.request("dma0chan0"), Err(LookupError::Removing { .. })));
    let mask = Capabilities::MEMCPY;
    assert!(matches!(registry.request_matching(mask, |_, _| true), Err(LookupError::NoMatch)));
    assert!(matches!(registry.find_channel(mask), Err(LookupError::NoMatch)));
    assert!(registry.list()[0].in_removal);

    strings.lock().unwrap().holds = false;
    let mut ends = Vec::new();
    queue.wait(LONG, |done| ends.push(done.status)).unwrap();
    assert_eq!(ends, [Status::Success]);
    assert!(registry.unregister(number, Duration::ZERO).is_err(), "the removal waits for the user");
    drop(queue);
    registry.unregister(number, Duration::ZERO).unwrap();
    let gone = registry.unregister(number, LONG);
    assert_eq!(gone, Err(RemovalError::UnknownDevice { device: number }));
    assert!(matches!(registry.request("dma0chan0"), Err(LookupError::UnknownName { .. })));
    assert_eq!(registry.register(Arc::new(CpuDevice::new(1))), 1, "numbers are not used again");
}

#[test]
fn removal_waits_for_a_user_that_lets_go_late_and_tells_in_order() {
    let registry = Registry::new();
    let events = registry.subscribe();
    let deaf = registry.subscribe();
    let number = registry.register(Puppet::device(&copying()).0);
    let device = number;
    let channel = registry.request("dma0chan0").unwrap();
    drop(deaf);
    thread::scope(|scope| {
        // For ever, and for as long as no clock reaches.
        let waiters = [LONG, Duration::MAX].map(|timeout| {
            scope.spawn({
                let registry = &registry;
                move || registry.unregister(number, timeout)
            })
        });
        let next = || events.recv_timeout(LONG).unwrap();
        assert_eq!(next(), DeviceEvent::Added { device, channels: 1 });
        assert_eq!(next(), DeviceEvent::Removing { device });
        assert!(channel.is_removed());
        assert!(events.try_recv().is_err(), "not removed while somebody has a channel");
        drop(channel);
        assert_eq!(next(), DeviceEvent::Removed { device });
        for waiter in waiters {
            // The second may come when it is all over.
            let ended = waiter.join().unwrap();
            assert!(matches!(ended, Ok(()) | Err(RemovalError::UnknownDevice { .. })), "{ended:?}");
        }
    });
    assert!(events.try_recv().is_err(), "each is told once");
    assert!(registry.list().is_empty());
}

#[test]
fn a_subscription_begins_with_what_there_is() {
    let registry = Registry::new();
    for _ in 0..3 {
        registry.register(Arc::new(CpuDevice::new(2)));
    }
    registry.unregister(0, LONG).unwrap();
    let held = registry.request("dma1chan1").unwrap();
    registry.unregister(1, Duration::ZERO).unwrap_err();
    let events: Vec<_> = registry.subscribe().try_iter().collect();
    let [one, two] = [1, 2].map(|device| DeviceEvent::Added { device, channels: 2 });
    assert_eq!(events, [one, DeviceEvent::Removing { device: 1 }, two]);
    drop(held);
}

#[test]
fn a_lost_device_is_removed_as_any_other() {
    let registry = Registry::new();
    let (device, strings) = Puppet::device(&copying());
    registry.register(device);
    let mut queue = BytesQueue::new(registry.request("dma0chan0").unwrap());
    queue.copy(vec![1], vec![0], ()).unwrap();
    {
        let mut strings = strings.lock().unwrap();
        strings.fails = Some(Status::DeviceLost);
        strings.stuck = true;
        strings.refuses = true;
    }
    registry.unregister(0, Duration::ZERO).unwrap_err();
    let mut ends = Vec::new();
    queue.wait(LONG, |done| ends.push(done.status)).unwrap();
    assert_eq!(ends, [Status::DeviceLost]);
    drop(queue);
    registry.unregister(0, LONG).unwrap();
    assert_eq!(strings.lock().unwrap().open, 0);
}

#[test]
fn a_channel_outlives_its_registry() {
    let registry = Registry::new();
    registry.register(Arc::new(CpuDevice::new(1)));
    let mut queue = BytesQueue::new(registry.request("dma0chan0").unwrap());
    let shared = {
        registry.register(Arc::new(CpuDevice::new(1)));
        registry.find_channel(Capabilities::MEMCPY).unwrap()
    };
    let events = registry.subscribe();
    drop(registry);
    queue.copy(vec![1], vec![0], ()).unwrap();
    queue.wait(LONG, |done| assert_eq!(done.target, [1])).unwrap();
    assert_eq!(shared.copy(vec![3], vec![0], LONG).unwrap().2, [3]);
    drop((queue, shared));
    assert_eq!(events.try_iter().count(), 2);
    assert_eq!(events.recv(), Err(mpsc::RecvError), "nobody is left to tell anything");
}
