//! Which devices are taken, and who gets their channels.

use std::{sync::Arc, time::Duration};

use dmaengine::{Capabilities, DmaDevice, Kind, RequestError, Status};
use ioat_model::{
    Config, Fault, Faults, Stepped, Version,
    registers::{ChanErr, DmaCapability},
};
use ioatdma::{Bar, IoatDevice, Options, ProbeError, StartError, pci};

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

/// Probes what has the id of a device of `version`, and of which one register reads otherwise.
fn probe_as(
    version: Version,
    id: pci::Id,
    offset: u64,
    value: u8,
) -> Result<IoatDevice, ProbeError> {
    let host = Host::<Stepped>::new(Config { version, ..Config::default() });
    let mut resources = host.resources();
    resources.id = id;
    resources.bar = Arc::new(Disguised { host, offset, value });
    IoatDevice::probe(resources, Options::default())
}

const CHANCNT: u64 = 0;
const XFERCAP: u64 = 1;
const CBVER: u64 = 8;
const HASWELL: pci::Id = pci::Id::intel(0x2f20);
const SKYLAKE: pci::Id = pci::Id::intel(0x2021);

#[test]
fn other_devices_are_refused_with_the_reason() {
    let probe = |id, offset, value| probe_as(Version::V3_2, id, offset, value);
    assert!(matches!(probe(HASWELL, CBVER, 0xff), Err(ProbeError::Gone)));
    let unknown = pci::Id::intel(0x1234);
    let result = probe(unknown, CBVER, 0x32);
    assert!(matches!(result, Err(ProbeError::UnknownDevice { id }) if id == unknown));
    let result = probe(HASWELL, CBVER, 0x31);
    assert!(matches!(result, Err(ProbeError::UnknownVersion { cbver: 0x31 })));
    let result = probe(HASWELL, CBVER, 0x34);
    let (expected, found) = (ioatdma::Version::V3_2, ioatdma::Version::V3_4);
    assert!(matches!(
        result,
        Err(ProbeError::OtherVersion { expected: e, found: f, .. }) if e == expected && f == found
    ));
    assert!(probe(HASWELL, CBVER, 0x32).is_ok());
    for value in [0x32, 0x33, 0x34] {
        let device = probe(SKYLAKE, CBVER, value).expect("Skylake is 3.2 whatever it says");
        assert_eq!(device.version(), expected);
        assert_eq!(device.channels()[0].version.as_deref(), Some("3.2"));
    }
}

#[test]
fn nonsense_in_registers_is_refused() {
    let probe = |offset, value| probe_as(Version::V3_2, SKYLAKE, offset, value);
    assert!(matches!(probe(CHANCNT, 0), Err(ProbeError::NoChannels)));
    for count in [0x20, 0x81, 0xff] {
        let result = probe(CHANCNT, count);
        assert!(matches!(result, Err(ProbeError::ChannelCount { count: value }) if value == count));
    }
    for value in [0, 1, 11, 0x20, 0x34, 0xff] {
        let result = probe(XFERCAP, value);
        assert!(
            matches!(result, Err(ProbeError::TransferCapacity { value: found }) if found == value),
            "{value}"
        );
    }
}

/// No limit in version 1.2, and nonsense in all others.
#[test]
fn an_xfercap_of_0_has_a_meaning_in_version_1_2_only() {
    for version in Version::ALL {
        let result = probe_as(version, pci::Id::intel(version.device_id()), XFERCAP, 0);
        if version == Version::V1_2 {
            let device = result.expect("no limit");
            assert_eq!(device.channels()[0].xfercap.get(), 1 << 31);
        } else {
            assert!(matches!(result, Err(ProbeError::TransferCapacity { value: 0 })), "{version}");
        }
    }
}

/// A BAR that ends early: nothing behind its end is looked at.
struct Short {
    host: Arc<Host<Stepped>>,
    size: u64,
}

impl Short {
    fn check(&self, offset: u64, width: u64) {
        assert!(offset + width <= self.size, "{offset:#x} is behind the end");
    }
}

impl Bar for Short {
    fn size(&self) -> u64 {
        self.size
    }
    fn read8(&self, offset: u64) -> u8 {
        self.check(offset, 1);
        self.host.read8(offset)
    }
    fn read16(&self, offset: u64) -> u16 {
        self.check(offset, 2);
        self.host.read16(offset)
    }
    fn read32(&self, offset: u64) -> u32 {
        self.check(offset, 4);
        self.host.read32(offset)
    }
    fn read64(&self, offset: u64) -> u64 {
        self.check(offset, 8);
        self.host.read64(offset)
    }
    fn write8(&self, offset: u64, value: u8) {
        self.check(offset, 1);
        self.host.write8(offset, value);
    }
    fn write16(&self, offset: u64, value: u16) {
        self.check(offset, 2);
        self.host.write16(offset, value);
    }
    fn write32(&self, offset: u64, value: u32) {
        self.check(offset, 4);
        self.host.write32(offset, value);
    }
    fn write64(&self, offset: u64, value: u64) {
        self.check(offset, 8);
        self.host.write64(offset, value);
    }
    fn delay(&self, duration: Duration) {
        self.host.delay(duration);
    }
}

#[test]
fn a_bar_that_is_too_small_is_refused_before_its_end_is_reached() {
    for (channels, needed) in [(1, 0x100), (2, 0x180), (4, 0x280)] {
        for size in [0, 1, 0x80, 0xff, 0x100, 0x17f, 0x180, 0x280, 0x4000] {
            let host = Host::<Stepped>::new(Config { channels, ..Config::default() });
            let mut resources = host.resources();
            resources.bar = Arc::new(Short { host, size });
            let result = IoatDevice::probe(resources, Options::default());
            if size < needed {
                assert!(
                    matches!(result, Err(ProbeError::BarTooSmall { size: found, .. }) if found == size)
                );
            } else {
                result.expect("large enough");
            }
        }
    }
}

/// What each version can do, on the device that the model is.
#[test]
fn versions_can_what_they_can() {
    use Capabilities as C;

    let least = C::MEMCPY | C::MEMCPY_SG | C::FENCE | C::INTERRUPT;
    let parity = C::XOR | C::XOR_VAL | C::PQ | C::PQ_VAL;
    for (version, capabilities, sources) in [
        (Version::V1_2, least, (0, 0)),
        (Version::V2_0, least, (0, 0)),
        (Version::V3_0, least | C::MEMSET, (0, 0)),
        (Version::V3_2, least | C::MEMSET, (0, 0)),
        (Version::V3_3, least | C::MEMSET | parity, (16, 16)),
        (Version::V3_4, least | C::MEMSET, (0, 0)),
    ] {
        let config = Config { version, ..Config::default() };
        let device = Host::<Stepped>::new(config).probe(Options::default()).expect("good");
        let info = &device.channels()[0];
        assert_eq!(info.capabilities, capabilities, "{version}");
        assert_eq!((info.max_xor, info.max_pq), sources, "{version}");
        assert_eq!(device.version().to_string(), version.to_string());
        assert_eq!(device.family().version(), device.version());
    }
    let config = |capability| Config {
        version: Version::V3_4,
        capability: Some(capability),
        ..Config::default()
    };
    for (capability, capabilities, sources) in [
        (DmaCapability::XOR, least | C::XOR | C::XOR_VAL, (8, 0)),
        (DmaCapability::PQ, least | parity, (8, 8)),
        (DmaCapability::PQ | DmaCapability::RAID16SS, least | parity, (16, 16)),
        (DmaCapability::RAID16SS | DmaCapability::DWBES, least, (0, 0)),
    ] {
        let device =
            Host::<Stepped>::new(config(capability)).probe(Options::default()).expect("good");
        let info = &device.channels()[0];
        assert_eq!(info.capabilities, capabilities, "{capability:?}");
        assert_eq!((info.max_xor, info.max_pq), sources, "{capability:?}");
        // A ring without room for one piece and what belongs to it.
        let smallest = Options { ring_order: 2, ..Options::default() };
        let device = Host::<Stepped>::new(config(capability)).probe(smallest).expect("good");
        assert_eq!(device.channels()[0].capabilities, least, "{capability:?}");
    }
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

/// An error in any descriptor of the self test of a device that can do all.
#[test]
fn a_device_that_fails_any_part_of_its_self_test_is_refused() {
    let config = Config { version: Version::V3_3, ..Config::default() };
    // The last one is the owner's start.
    for descriptor in 0..crate::machine::Counted::first(&config) - 1 {
        let faults = Faults::none().at(0, descriptor, Fault::Error(ChanErr::WRITE_DATA));
        let result =
            Host::<Stepped>::new(Config { faults, ..config.clone() }).probe(Options::default());
        let refused = match result {
            Err(ProbeError::Start { source: StartError::Halted(_), .. }) => descriptor == 0,
            Err(ProbeError::SelfTestStatus { status: Status::WriteError, .. }) => descriptor > 0,
            _ => false,
        };
        assert!(refused, "descriptor {descriptor}");
    }
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
