//! Whatever the driver does: no panic, and nothing outside the mapped memory changes.

use ioat_model::{
    Config, PAGE, Version,
    registers::{DmaCapability, Width, channel::*, channel_v1},
};
use proptest::prelude::*;

use crate::rig::{BASE, END, PAGES, Rig};

#[derive(Clone, Debug)]
enum Action {
    Write(u64, Width, u64),
    Read(u64, Width),
    Descriptor(u64, [u64; 8]),
    Step,
}

fn width() -> impl Strategy<Value = Width> {
    prop_oneof![Just(Width::W8), Just(Width::W16), Just(Width::W32), Just(Width::W64)]
}

/// Addresses around the borders of what is mapped, so that ranges cross them.
fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => BASE..END,
        2 => (BASE..END).prop_map(|address| address & !63),
        1 => BASE - 64..BASE,
        1 => END - 64..END,
        1 => any::<u64>(),
    ]
}

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![0..64_u64, any::<u64>(), (BASE..END).prop_map(|address| address & !63)]
}

fn descriptor() -> impl Strategy<Value = [u64; 8]> {
    let control = prop_oneof![4 => 0..256_u64, 1 => any::<u32>().prop_map(u64::from)];
    let known = prop::sample::select(vec![0, 0, 1, 0x87, 0x88, 0x89, 0x8a, 0x8b, 0xa0, 0xa1]);
    let op = prop_oneof![8 => known, 1 => 0..256_u64];
    let size = prop_oneof![4 => 0..20_000_u64, 1 => any::<u32>().prop_map(u64::from)];
    let words = prop::array::uniform8(address());
    let next = address().prop_map(|address| address & !63);
    (size, control, op, words, next).prop_map(|(size, control, op, mut words, next)| {
        words[0] = size | (control & 0xff_ffff) << 32 | op << 56;
        words[3] = next;
        words
    })
}

fn action() -> impl Strategy<Value = Action> {
    let channel = |register| (0..2_u64).prop_map(move |index| 0x80 * (index + 1) + register);
    // Besides arbitrary accesses, what makes channels run: else random descriptors are not seen.
    prop_oneof![
        1 => (0..0x200_u64, width(), value()).prop_map(|(o, w, v)| Action::Write(o, w, v)),
        1 => (channel(CHAINADDR), value()).prop_map(|(o, v)| Action::Write(o, Width::W64, v)),
        1 => (channel(CHANCMP), value()).prop_map(|(o, v)| Action::Write(o, Width::W64, v)),
        1 => (channel(DMACOUNT), 0..16_u64).prop_map(|(o, v)| Action::Write(o, Width::W16, v)),
        1 => channel(CHANERR).prop_map(|o| Action::Write(o, Width::W32, u64::MAX)),
        1 => channel(CHANCMD).prop_map(|o| Action::Write(o, Width::W8, 0x20)),
        1 => (channel(channel_v1::CHANCMD), 1..3_u64)
            .prop_map(|(o, v)| Action::Write(o, Width::W8, v)),
        1 => (any::<u64>(), width()).prop_map(|(o, w)| Action::Read(o, w)),
        1 => (0..PAGES as u64 * PAGE / 64, descriptor())
            .prop_map(|(slot, words)| Action::Descriptor(BASE + slot * 64, words)),
        4 => Just(Action::Step),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_panics_and_nothing_is_written_outside(
        actions in prop::collection::vec(action(), 1..200),
        first in prop::collection::vec(descriptor(), 64),
        version in prop::sample::select(Version::ALL.to_vec()),
    ) {
        let capability = Some(DmaCapability::all());
        let rig = Rig::armed(Config { version, channels: 2, capability, ..Config::default() });
        for (slot, words) in first.iter().enumerate() {
            rig.store(BASE + slot as u64 * 64, words);
        }
        for action in actions {
            match action {
                Action::Write(offset, width, value) => rig.device.write(offset, width, value),
                Action::Read(offset, width) => drop(rig.device.read(offset, width)),
                Action::Descriptor(at, words) => rig.store(at, &words),
                Action::Step => drop(rig.device.step()),
            }
        }
        prop_assert!(rig.guards_intact());
    }
}
