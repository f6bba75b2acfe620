//! Channels whose first reset is slow, or does not end: what becomes of them, and of the others.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use dmaengine::{Arena, DmaDevice, Queue, RequestError, Status};
use ioat_model::{
    Config, Fault, Faults, Stepped,
    config_space::{BUS_MASTER, COMMAND, DEVICE_CONTROL, INITIATE_FLR, MEMORY_SPACE},
};
use ioatdma::{Bar, Incident, IncidentKind, IoatDevice, Options, ProbeError, StartError};

use crate::rig::{Copies, Host};

const CHANNELS: usize = 3;
/// Longer than anybody waits.
const LONG: Duration = Duration::from_secs(1000);

fn host(faults: Faults) -> Arc<Host<Stepped>> {
    Host::new(Config { channels: CHANNELS as u8, faults, ..Config::default() })
}

/// Probes, and says what was told of meanwhile.
fn probe(host: &Arc<Host<Stepped>>) -> (Result<IoatDevice, ProbeError>, Vec<Incident>) {
    let incidents: Arc<Mutex<Vec<_>>> = Arc::default();
    let told = Arc::clone(&incidents);
    let on_incident = move |incident: &Incident| told.lock().expect("no panic").push(*incident);
    let result =
        host.probe(Options { on_incident: Some(Arc::new(on_incident)), ..Options::default() });
    let incidents = incidents.lock().expect("no panic").clone();
    (result, incidents)
}

/// Copies something on a channel.
fn works(host: &Host<Stepped>, device: &IoatDevice, index: usize) {
    let arena = Arena::new(4096).expect("memory");
    device.map(&arena).expect("room");
    let [source, target] = [7, 0].map(|byte| {
        let mut buffer = arena.alloc(100).expect("room");
        buffer.fill(byte);
        buffer.slice(0..100)
    });
    let mut queue: Copies = Queue::new(device.request_channel(index).expect("free, and idle"));
    queue.copy(source, target, 0).expect("room in the ring");
    queue.issue_pending();
    while host.shell.step() {}
    let ended = queue.poll(|done| {
        assert_eq!(done.status, Status::Success);
        assert_eq!(done.target.as_ref(), [7; 100]);
    });
    assert_eq!(ended, 1);
}

/// Requests a channel whose reset does not end, which says what to do.
fn is_stuck(device: &IoatDevice, index: usize) {
    let error = device.request_channel(index).expect_err("its reset does not end");
    let RequestError::Failed(source) = &error else { panic!("{error}") };
    assert_eq!(source.downcast_ref(), Some(&StartError::Stuck));
    let text = error.to_string();
    assert!(text.contains("does not end: try again, or close the device and open it"), "{text}");
}

#[test]
fn a_slow_first_reset_is_waited_for() {
    for channel in 0..CHANNELS {
        for millis in [199, 201, 500, 900] {
            let slow = Fault::SlowReset(Duration::from_millis(millis));
            let host = host(Faults::none().at(channel, 0, slow));
            let (device, incidents) = probe(&host);
            let device = device.expect("it is only slow");
            assert_eq!(incidents, [], "channel {channel}, {millis} ms");
            (0..CHANNELS).for_each(|index| works(&host, &device, index));
        }
    }
}

#[test]
fn a_channel_that_does_not_end_its_reset_costs_the_others_nothing() {
    for wedged in 0..CHANNELS {
        let host = host(Faults::none().at(wedged, 0, Fault::SlowReset(LONG)));
        let start = host.now();
        let (device, incidents) = probe(&host);
        let device = device.expect("the others are good");
        assert!(host.now() - start < Duration::from_secs(2), "it is waited for a second");
        assert_eq!(incidents, [Incident { channel: wedged, kind: IncidentKind::Stuck }]);
        for _ in 0..2 {
            for index in 0..CHANNELS {
                if index == wedged {
                    is_stuck(&device, index);
                } else {
                    works(&host, &device, index);
                }
            }
        }
        host.delay(LONG);
        (0..CHANNELS).for_each(|index| works(&host, &device, index));
    }
}

#[test]
fn a_device_without_any_channel_that_stops_is_refused_and_can_be_tried_again() {
    let faults = (0..CHANNELS)
        .fold(Faults::none(), |faults, channel| faults.at(channel, 0, Fault::SlowReset(LONG)));
    let host = host(faults);
    let (result, incidents) = probe(&host);
    let Err(error @ ProbeError::Start { channel: 0, source: StartError::Stuck }) = result else {
        panic!("{result:?}");
    };
    assert!(error.to_string().contains("channel 0 does not start: its reset does not end: try"));
    let told = (0..CHANNELS).map(|channel| Incident { channel, kind: IncidentKind::Stuck });
    assert!(incidents.into_iter().eq(told));
    host.delay(LONG);
    let (device, _) = probe(&host);
    let device = device.expect("all resets have ended");
    (0..CHANNELS).for_each(|index| works(&host, &device, index));
}

/// No reset of the channel ends, but that of the function: to open a device is to reset it.
#[test]
fn a_dead_channel_comes_back_when_the_device_is_opened_anew() {
    const WEDGED: usize = 1;
    // The descriptor that starts its chain for its first owner.
    let host = host(Faults::none().at(WEDGED, 0, Fault::Dead));
    let (device, _) = probe(&host);
    let device = device.expect("good so far");
    let error = device.request_channel(WEDGED).expect_err("dead");
    let RequestError::Failed(source) = &error else { panic!("{error}") };
    assert_eq!(source.downcast_ref(), Some(&StartError::Silent));
    drop(device);
    // The owner has ended without giving it back. (CHANCTRL)
    host.write16(0x80 * (WEDGED as u64 + 1), 0);
    let (device, incidents) = probe(&host);
    let device = device.expect("the others are good");
    assert_eq!(incidents, [Incident { channel: WEDGED, kind: IncidentKind::Stuck }]);
    is_stuck(&device, WEDGED);
    works(&host, &device, 0);
    works(&host, &device, 2);
    drop(device);
    host.shell.config_write(DEVICE_CONTROL, &INITIATE_FLR.to_le_bytes());
    host.shell.config_write(COMMAND, &(MEMORY_SPACE | BUS_MASTER).to_le_bytes());
    let (device, incidents) = probe(&host);
    let device = device.expect("good");
    assert_eq!(incidents, []);
    (0..CHANNELS).for_each(|index| works(&host, &device, index));
}
