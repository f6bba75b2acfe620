//! Copies and fills that go on in another page.

use ioat_model::{
    Config, PAGE, State, Version,
    descriptor::{Control, OP_COPY, OP_FILL},
    registers::{ChanErr, DmaCapability, channel::CHANSTS},
};

use crate::rig::{BASE, Rig};

const SOURCE: u64 = BASE + 2 * PAGE;
const NEXT_SOURCE: u64 = BASE + 5 * PAGE;
const TARGET: u64 = BASE + 7 * PAGE;
const NEXT_TARGET: u64 = BASE + 10 * PAGE;

fn bytes(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + seed) as u8 | 1).collect()
}

fn run(rig: &Rig, op: u8, len: u32, control: Control, words: [u64; 5]) -> ChanErr {
    let [first, second, next, fourth, fifth] = words;
    rig.store(
        BASE,
        &[Rig::head(op, len, control.bits()), first, second, next, fourth, fifth, 0, 0],
    );
    rig.doorbell(1);
    rig.run();
    rig.errors()
}

#[test]
fn a_copy_breaks_on_either_side_or_both() {
    let both = Control::SRC_BRK | Control::DEST_BRK;
    for control in [Control::empty(), Control::SRC_BRK, Control::DEST_BRK, both] {
        // Where the breaks are, in bytes from the start.
        for (source_break, target_break) in [(4096, 4096), (100, 300), (300, 100), (1, 4096)] {
            let rig = Rig::armed(Config::default());
            let len = 4097;
            let (source, target) =
                (SOURCE + PAGE - source_break as u64, TARGET + PAGE - target_break as u64);
            let first = bytes(len, 1);
            let second = bytes(len, 2);
            rig.set_bytes(source, &first);
            rig.set_bytes(NEXT_SOURCE, &second);
            let next = [BASE + 64, NEXT_SOURCE, NEXT_TARGET];
            let words = [source, target, next[0], next[1], next[2]];
            assert_eq!(run(&rig, OP_COPY, len as u32, control, words), ChanErr::empty());
            let mut expected = first;
            if control.contains(Control::SRC_BRK) {
                let behind = len - source_break;
                expected[source_break..].copy_from_slice(&second[..behind]);
            }
            if control.contains(Control::DEST_BRK) {
                assert_eq!(rig.bytes(target, target_break), expected[..target_break]);
                assert_eq!(rig.bytes(target + target_break as u64, 64), [0; 64]);
                let behind = len - target_break;
                assert_eq!(rig.bytes(NEXT_TARGET, behind), expected[target_break..]);
                assert_eq!(rig.bytes(NEXT_TARGET + behind as u64, 8), [0; 8]);
            } else {
                assert_eq!(rig.bytes(target, len), expected);
                assert_eq!(rig.bytes(NEXT_TARGET, 8), [0; 8]);
            }
        }
    }
}

#[test]
fn a_fill_breaks_in_the_middle_of_its_pattern() {
    for on_first in [1, 7, 8, 100, 200] {
        let rig = Rig::armed(Config::default());
        let target = TARGET + PAGE - on_first;
        let words = [0x0807_0605_0403_0201, target, BASE + 64, 0, NEXT_TARGET];
        assert_eq!(run(&rig, OP_FILL, 150, Control::DEST_BRK, words), ChanErr::empty());
        let expected: Vec<u8> = (0..150).map(|i| i % 8 + 1).collect();
        let cut = on_first.min(150) as usize;
        assert_eq!(rig.bytes(target, cut), expected[..cut]);
        assert_eq!(rig.bytes(NEXT_TARGET, 150 - cut), expected[cut..]);
        assert_eq!(rig.bytes(NEXT_TARGET + 150 - cut as u64, 8), [0; 8]);
    }
}

#[test]
fn one_page_follows_the_break_and_no_more() {
    let words = [SOURCE + PAGE - 8, TARGET, BASE + 64, NEXT_SOURCE, NEXT_TARGET];
    for (len, expected) in [(4096 + 8, ChanErr::empty()), (4096 + 9, ChanErr::LENGTH)] {
        let rig = Rig::armed(Config::default());
        assert_eq!(run(&rig, OP_COPY, len, Control::SRC_BRK, words), expected);
    }
}

#[test]
fn without_the_capability_the_bits_are_unknown() {
    for (op, control) in
        [(OP_COPY, Control::SRC_BRK), (OP_COPY, Control::DEST_BRK), (OP_FILL, Control::DEST_BRK)]
    {
        let capability = Some(DmaCapability::BLOCK_FILL);
        let rig = Rig::armed(Config { capability, ..Config::default() });
        let words = [SOURCE, TARGET, BASE + 64, NEXT_SOURCE, NEXT_TARGET];
        assert_eq!(run(&rig, op, 8, control, words), ChanErr::DESCRIPTOR_CONTROL);
    }
    let rig = Rig::armed(Config { version: Version::V3_4, ..Config::default() });
    let words = [1, TARGET, BASE + 64, 0, NEXT_TARGET];
    assert_eq!(run(&rig, OP_FILL, 8, Control::SRC_BRK, words), ChanErr::DESCRIPTOR_CONTROL);
}

/// A null descriptor has no sides to break.
#[test]
fn a_null_descriptor_ignores_breaks() {
    let rig = Rig::armed(Config::default());
    let control = Control::NULL | Control::SRC_BRK;
    assert_eq!(run(&rig, OP_COPY, 1, control, [0, 0, BASE + 64, 0, 0]), ChanErr::empty());
    assert_eq!(rig.get(CHANSTS, ioat_model::registers::Width::W64), BASE | State::Done as u64);
}
