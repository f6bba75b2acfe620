//! Which devices are taken, and who gets their channels.

use std::{sync::Arc, time::Duration};

use dmaengine::{Capabilities, DmaDevice, Kind, RequestError, Status};
use ioat_model::{
    Config, Fault, Faults, Stepped,
    registers::{ChanErr, DmaCapability},
};
use ioatdma::{Bar, IoatDevice, Options, ProbeError, StartError, Version, pci};

use crate::rig::{Host, Rig, Threaded};

#[test]
fn a_good_device_says_what_it_is() {
    let rig = Rig::<Stepped>::new(
        Config { channels: 2, xfercap: 15, ..Config::default() },
        Options { ring_order: 5, ..Options::default() },
    );
    let [first, second] = rig.device.channels() else { panic!("two channels") };
    assert_eq!(first, second);
    assert_eq!(first.engine, "ioat-model");
    assert_eq!(first.kind, Kind::Model);
    assert_eq!(first.version.as_deref(), Some("3.2"));
    let all = Capabilities::MEMCPY
        | Capabilities::MEMCPY_SG
        | Capabilities::MEMSET
        | Capabilities::FENCE
        | Capabilities::INTERRUPT;
    assert_eq!(first.capabilities, all);
    assert_eq!(first.xfercap.get(), 1 << 15);
    assert_eq!((first.ring_size, first.max_sg), (29, 29));
    let host = Host::<Stepped>::new(Config {
        capability: Some(DmaCapability::empty()),
        ..Config::default()
    });
    let device = host.probe(Options::default()).expect("good");
    assert!(!device.channels()[0].capabilities.contains(Capabilities::MEMSET));
}

/// A model some of whose registers read otherwise.
struct Disguised {
    host: Arc<Host<Stepped>>,
    offset: u64,
    value: u8,
}

impl Bar for Disguised {
    fn size(&self) -> u64 {
        self.host.size()
    }
    fn read8(&self, offset: u64) -> u8 {
        if offset == self.offset { self.value } else { self.host.read8(offset) }
    }
    fn read16(&self, offset: u64) -> u16 {
        self.host.read16(offset)
    }
    fn read32(&self, offset: u64) -> u32 {
        self.host.read32(offset)
    }
    fn read64(&self, offset: u64) -> u64 {
        self.host.read64(offset)
    }
    fn write8(&self, offset: u64, value: u8) {
        self.host.write8(offset, value);
    }
    fn write16(&self, offset: u64, value: u16) {
        self.host.write16(offset, value);
    }
    fn write32(&self, offset: u64, value: u32) {
        self.host.write32(offset, value);
    }
    fn write64(&self, offset: u64, value: u64) {
        self.host.write64(offset, value);
    }
    fn delay(&self, duration: Duration) {
        self.host.delay(duration);
    }
}

fn probe_with(offset: u64, value: u8, device_id: u16) -> Result<IoatDevice, ProbeError> {
    let host = Host::<Stepped>::new(Config::default());
    let mut resources = host.resources();
    resources.id = pci::Id::intel(device_id);
    resources.bar = Arc::new(Disguised { host, offset, value });
    IoatDevice::probe(resources, Options::default())
}

#[test]
fn other_devices_are_refused_with_the_reason() {
    const CHANCNT: u64 = 0;
    const XFERCAP: u64 = 1;
    const CBVER: u64 = 8;
    const HASWELL: u16 = 0x2f20;
    const SKYLAKE: u16 = 0x2021;
    assert!(matches!(probe_with(CBVER, 0xff, HASWELL), Err(ProbeError::Gone)));
    let version = probe_with(CBVER, 0x31, HASWELL);
    assert!(matches!(version, Err(ProbeError::UnknownVersion { cbver: 0x31 })));
    let version = probe_with(CBVER, 0x34, HASWELL);
    assert!(matches!(
        version,
        Err(ProbeError::OtherVersion { expected: Version::V3_2, found: Version::V3_4, .. })
    ));
    assert!(matches!(probe_with(CHANCNT, 0, SKYLAKE), Err(ProbeError::NoChannels)));
    for log2 in [0, 11] {
        let result = probe_with(XFERCAP, log2, SKYLAKE);
        assert!(matches!(result, Err(ProbeError::TransferCapacity { value }) if value == log2));
    }
    assert!(probe_with(CBVER, 0x32, HASWELL).is_ok());
    assert!(probe_with(CBVER, 0x33, SKYLAKE).is_ok(), "Skylake is 3.2 whatever it says");
}

#[test]
fn a_channel_is_handed_out_once() {
    let mut rig =
        Rig::<Threaded>::new(Config { channels: 2, ..Config::default() }, Options::default());
    assert!(matches!(rig.device.request_channel(0), Err(RequestError::InUse)));
    assert!(matches!(
        rig.device.request_channel(2),
        Err(RequestError::NoSuchChannel { index: 2, channels: 2 })
    ));
    let second = rig.device.request_channel(1).expect("free");
    assert!(matches!(rig.device.request_channel(1), Err(RequestError::InUse)));
    drop(second);
    assert!(rig.device.request_channel(1).is_ok(), "given back");
    rig.works();
}

/// The owner of a channel may be in another process: only CHANCTRL knows.
#[test]
fn a_channel_of_another_driver_is_left_alone() {
    let mut rig =
        Rig::<Stepped>::new(Config { channels: 2, ..Config::default() }, Options::default());
    rig.submit(0, 10);
    rig.queue.issue_pending();
    let other = rig.host.probe(Options::default()).expect("the second channel is free");
    assert!(matches!(other.request_channel(0), Err(RequestError::InUse)));
    assert!(other.request_channel(1).is_ok());
    crate::rig::check(&rig.wait_for(1)[0], Status::Success);
    rig.works();
}

#[test]
fn a_device_that_fails_its_self_test_is_refused() {
    let probe = |descriptor, fault| {
        let faults = Faults::none().at(0, descriptor, fault);
        Host::<Stepped>::new(Config { faults, ..Config::default() }).probe(Options::default())
    };
    let halted = probe(0, Fault::Error(ChanErr::CHAIN_ADDRESS));
    let Err(ProbeError::Start { channel: 0, source: StartError::Halted(errors) }) = halted else {
        panic!("{halted:?}");
    };
    assert_eq!(errors.to_string(), "CHAIN_ADDRESS");
    let silent = probe(0, Fault::Hang);
    assert!(matches!(silent, Err(ProbeError::Start { source: StartError::Silent, .. })));
    let unwritten = probe(0, Fault::LostCompletion);
    assert!(matches!(
        unwritten,
        Err(ProbeError::Start { source: StartError::NoCompletionWrite, .. })
    ));
    let failed = probe(1, Fault::Error(ChanErr::READ_DATA));
    assert!(matches!(failed, Err(ProbeError::SelfTestStatus { status: Status::ReadError, .. })));
    let late = probe(1, Fault::Hang);
    assert!(matches!(late, Err(ProbeError::SelfTestStatus { status: Status::TimedOut, .. })));
    assert!(probe(1, Fault::LostCompletion).is_ok(), "CHANSTS tells");
}

#[test]
fn messages_say_what_to_do() {
    let host = Host::<Stepped>::new(Config { xfercap: 12, ..Config::default() });
    let device = host.probe(Options::default()).expect("good");
    let error = device.request_channel(9).expect_err("one channel");
    assert_eq!(error.to_string(), "there is no channel 9; the device has 1");
    let error = ProbeError::Start { channel: 0, source: StartError::Halted(ChanErrs::all()) };
    assert!(error.to_string().contains("channel 0 does not start: it halts"), "{error}");
}

use ioatdma::ChanErr as ChanErrs;
