//! What the driver does in PCI configuration space and in the registers that all channels share.

use std::{os::fd::BorrowedFd, sync::Arc};

use dmaengine::{Arena, Capabilities, DmaDevice, MapError};
use ioat_model::{
    Config, Fault, Faults, InterruptStyle, Stepped, Version,
    config_space::{
        CFG_REG_PARITY, CHANERR_INT, DEVICE_CONTROL, DMACTRL, DMACTRL_DMA_EN, DMACTRL_MSI_EN,
        DMAUNCERRSTS, RELAXED_ORDERING,
    },
    registers::ChanErr,
};
use ioatdma::{Bar, Interrupts, IoatDevice, Options, Platform, ProbeError, quirks::Quirks};

use crate::{
    machine::Host,
    rig::{FIRST, Rig},
    versions,
};

/// CHWPREFLMT.
const PREFETCH_LIMIT: u64 = 0x4c;

fn config32(host: &Host<Stepped>, offset: u64) -> u32 {
    host.config_read32(offset as u16)
}

#[test]
fn relaxed_ordering_is_turned_off_and_nothing_else() {
    for (name, config) in versions::all() {
        let host = Host::<Stepped>::new(config);
        let before = config32(&host, DEVICE_CONTROL) as u16;
        host.probe(Options::default()).expect("good");
        let after = config32(&host, DEVICE_CONTROL) as u16;
        assert_eq!(before & !RELAXED_ORDERING, after, "{name}");
        assert_ne!(before, after, "{name}: it was on");
    }
}

#[test]
fn version_1_2_is_told_how_it_interrupts() {
    for (interrupts, bits) in [
        (InterruptStyle::Msi, DMACTRL_DMA_EN | DMACTRL_MSI_EN),
        (InterruptStyle::Intx, DMACTRL_DMA_EN),
    ] {
        let host = Host::<Stepped>::new(Config {
            version: Version::V1_2,
            interrupts,
            ..Config::default()
        });
        host.probe(Options::default()).expect("good");
        assert_eq!(config32(&host, DMACTRL) & (DMACTRL_DMA_EN | DMACTRL_MSI_EN), bits);
    }
}

/// Errors latched in configuration space are cleared before the next reset where there are any.
#[test]
fn latched_errors_are_cleared() {
    for version in [Version::V3_0, Version::V3_2] {
        let fault = Fault::Error(ChanErr::READ_DATA);
        let faults = Faults::none().at(0, FIRST, fault);
        let mut rig = Rig::<Stepped>::new(
            Config { version, faults, ..Config::default() },
            Options::default(),
        );
        rig.submit(0, 10);
        rig.queue.issue_pending();
        rig.host.shell.step();
        assert_eq!(config32(&rig.host, CHANERR_INT), ChanErr::READ_DATA.bits(), "{version}");
        rig.wait_for(1);
        assert_eq!(config32(&rig.host, CHANERR_INT), 0, "{version}");
        assert_eq!(config32(&rig.host, DMAUNCERRSTS) & CFG_REG_PARITY, 0, "{version}");
    }
}

#[test]
fn the_prefetch_limit_is_version_3_4_s() {
    for (name, config) in versions::all() {
        let host = Host::<Stepped>::new(config.clone());
        host.probe(Options::default()).expect("good");
        let expected = if config.version == Version::V3_4 { 5 } else { 0 };
        assert_eq!(host.read8(PREFETCH_LIMIT), expected, "{name}");
    }
}

/// A machine whose firmware has enabled direct cache access.
struct WithDca(Arc<Host<Stepped>>);

// SAFETY: as the host.
unsafe impl Platform for WithDca {
    fn map(&self, arena: &Arena) -> Result<u64, MapError> {
        self.0.map(arena)
    }
    fn interrupts(&self) -> Interrupts {
        self.0.interrupts()
    }
    fn vector(&self, vector: usize) -> Option<BorrowedFd<'_>> {
        self.0.vector(vector)
    }
    fn config_read32(&self, offset: u16) -> u32 {
        self.0.config_read32(offset)
    }
    fn config_write32(&self, offset: u16, value: u32) {
        self.0.config_write32(offset, value);
    }
    fn dca_enabled(&self) -> bool {
        true
    }
}

#[test]
fn with_direct_cache_access_there_is_no_parity() {
    let host = Host::<Stepped>::new(Config { version: Version::V3_3, ..Config::default() });
    let mut resources = host.resources();
    resources.platform = Arc::new(WithDca(Arc::clone(&host)));
    let device = IoatDevice::probe(resources, Options::default()).expect("good");
    let capabilities = device.channels()[0].capabilities;
    assert!(!capabilities.intersects(Capabilities::XOR | Capabilities::PQ | Capabilities::PQ_VAL));
    assert!(device.quirks().contains(Quirks::DCA_EXCLUDES_RAID));
}

/// Configuration space that is nonsense: a list of capabilities in a circle, all ones, nothing.
#[test]
fn a_circle_of_capabilities_has_an_end() {
    struct Circle(Arc<Host<Stepped>>, u32);
    // SAFETY: as the host.
    unsafe impl Platform for Circle {
        fn map(&self, arena: &Arena) -> Result<u64, MapError> {
            self.0.map(arena)
        }
        fn interrupts(&self) -> Interrupts {
            Interrupts::None
        }
        fn vector(&self, _: usize) -> Option<BorrowedFd<'_>> {
            None
        }
        fn config_read32(&self, _: u16) -> u32 {
            self.1
        }
        fn config_write32(&self, _: u16, _: u32) {}
    }
    for value in [0x4040_4040, u32::MAX, 0] {
        let host = Host::<Stepped>::new(Config::default());
        let mut resources = host.resources();
        resources.platform = Arc::new(Circle(Arc::clone(&host), value));
        let result: Result<_, ProbeError> = IoatDevice::probe(resources, Options::default());
        result.expect("the registers are fine");
    }
}
