//! Exclusive or and P+Q, against a reading of the formulas of its own.

use ioat_model::{
    Config, PAGE, State, Version,
    descriptor::{
        Control, OP_PQ, OP_PQ_16S, OP_PQ_UPDATE, OP_PQ_VAL, OP_PQ_VAL_16S, OP_XOR, OP_XOR_VAL,
    },
    registers::{ChanErr, DmaCapability, Width, channel::*},
};
use proptest::prelude::*;

use crate::rig::{BASE, COMPLETION, END, Rig};

/// Where a SED is.
const SED: u64 = BASE + PAGE / 2;
const SOURCES: u64 = BASE + PAGE;
/// Sources lie this far apart. No multiple of anything, so that pieces and pages do not line up.
const APART: u64 = 2100;
const P: u64 = BASE + 10 * PAGE + 40;
const Q: u64 = BASE + 12 * PAGE + 8;
const LEN: u32 = 2050;

/// Times `b` in GF(2^8), polynomial 0x11d: by powers of 2.
fn times(mut a: u8, mut b: u8) -> u8 {
    let mut product = 0;
    while b != 0 {
        if b & 1 != 0 {
            product ^= a;
        }
        let carry = a & 0x80 != 0;
        a <<= 1;
        if carry {
            a ^= 0x1d;
        }
        b >>= 1;
    }
    product
}

/// P and Q of sources with coefficients.
fn parity(sources: &[Vec<u8>], coefficients: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut p, mut q) = (vec![0; sources[0].len()], vec![0; sources[0].len()]);
    for (source, coefficient) in sources.iter().zip(coefficients) {
        for (index, byte) in source.iter().enumerate() {
            p[index] ^= byte;
            q[index] ^= times(*byte, *coefficient);
        }
    }
    (p, q)
}

fn address(source: usize) -> u64 {
    SOURCES + source as u64 * APART
}

/// A device with everything.
fn all() -> Config {
    let capability = Version::V3_3.capability() | DmaCapability::XOR;
    Config { version: Version::V3_3, capability: Some(capability), ..Config::default() }
}

fn armed(config: Config) -> Rig {
    let rig = Rig::armed(config);
    rig.set(CHANERRMASK, Width::W32, 0);
    rig
}

/// Writes a descriptor, and what belongs to it. Returns how many places in the chain it takes.
fn descriptor(
    rig: &Rig,
    op: u8,
    control: u32,
    sources: &[u64],
    coefficients: &[u8],
    len: u32,
) -> u16 {
    let count = sources.len();
    let source = |index: usize| sources.get(index).copied().unwrap_or(0xdead_0000);
    let coefficient = |range: std::ops::Range<usize>| {
        let mut bytes = [0; 8];
        for (byte, index) in bytes.iter_mut().zip(range) {
            *byte = coefficients.get(index).copied().unwrap_or(0);
        }
        u64::from_le_bytes(bytes)
    };
    let next = BASE + 64;
    let hardware = if matches!(op, OP_PQ_16S | OP_PQ_VAL_16S) { count - 9 } else { count - 2 };
    let head = Rig::head(op, len, control | (hardware as u32) << 5);
    match op {
        OP_XOR | OP_XOR_VAL => {
            let words = [head, source(0), P, next, source(1), source(2), source(3), source(4)];
            rig.store(BASE, &words);
            if count > 5 {
                rig.store(next, &[source(5), source(6), source(7), next + 64, 0, 0, 0, 0]);
                return 2;
            }
            1
        }
        OP_PQ | OP_PQ_VAL => {
            let words = [head, source(0), P, next, source(1), source(2), coefficient(0..8), Q];
            rig.store(BASE, &words);
            if count > 3 {
                let extended =
                    [source(3), source(4), source(5), next + 64, source(6), source(7), 0, 0];
                rig.store(next, &extended);
                return 2;
            }
            1
        }
        _ => {
            let words = [head, source(0), P, next, source(1), SED, coefficient(0..8), Q];
            rig.store(BASE, &words);
            rig.store(SED, &[coefficient(8..16)]);
            for index in 2..9 {
                rig.store(SED + 8 * (index - 1), &[source(index as usize)]);
            }
            for index in 9..16 {
                rig.store(SED + 64 + 8 * (index - 9), &[source(index as usize)]);
            }
            1
        }
    }
}

/// Runs the descriptor and one null descriptor behind it.
fn run(rig: &Rig, slots: u16) {
    rig.null(BASE + 64 * u64::from(slots), Control::COMPL_WRITE);
    rig.doorbell(slots + 1);
    rig.run();
}

fn sources(count: usize, len: usize, seed: u64) -> Vec<Vec<u8>> {
    let byte = |source: usize, index: usize| {
        let mixed =
            (seed ^ (source as u64) << 32 ^ index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 56) as u8
    };
    (0..count).map(|source| (0..len).map(|index| byte(source, index)).collect()).collect()
}

fn placed(rig: &Rig, data: &[Vec<u8>]) -> Vec<u64> {
    for (index, bytes) in data.iter().enumerate() {
        rig.set_bytes(address(index), bytes);
    }
    (0..data.len()).map(address).collect()
}

const DISABLE_P: u32 = Control::P_DISABLE.bits();
const DISABLE_Q: u32 = Control::Q_DISABLE.bits();
const WB: u32 = Control::WB_EN.bits();

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn results_and_checks_are_right(
        op in prop::sample::select(vec![OP_XOR, OP_PQ, OP_PQ_16S]),
        more in 0..8_usize,
        disable in prop::sample::select(vec![0, DISABLE_P, DISABLE_Q]),
        coefficients in prop::collection::vec(any::<u8>(), 16),
        len in 1..2100_usize,
        seed in any::<u64>(),
        wrong in prop::option::of((any::<prop::sample::Index>(), any::<bool>())),
    ) {
        let count = match op {
            OP_XOR | OP_PQ => 2 + more.min(6),
            _ => 9 + more,
        };
        let disable = if op == OP_XOR { 0 } else { disable };
        // Up to 9 sources fit below the results.
        let data = sources(count.min(9), len, seed);
        let rig = armed(all());
        let mut addresses = placed(&rig, &data);
        let mut data = data;
        while addresses.len() < count {
            addresses.push(addresses[addresses.len() - 9] );
            data.push(data[data.len() - 9].clone());
        }
        let (p, q) = parity(&data, &coefficients);
        let has_p = disable != DISABLE_P;
        let has_q = op != OP_XOR && disable != DISABLE_Q;
        let slots = descriptor(&rig, op, disable, &addresses, &coefficients, len as u32);
        run(&rig, slots);
        prop_assert_eq!(rig.errors(), ChanErr::empty());
        prop_assert_eq!(rig.status(), (BASE + 64 * u64::from(slots)) | State::Done as u64);
        let zero = vec![0; len + 8];
        let guarded = |bytes: &[u8]| [bytes, &[0; 8]].concat();
        prop_assert_eq!(rig.bytes(P, len + 8), if has_p { guarded(&p) } else { zero.clone() });
        prop_assert_eq!(rig.bytes(Q, len + 8), if has_q { guarded(&q) } else { zero });

        // And now the check of it, perhaps with one byte wrong.
        let mut expected = ChanErr::empty();
        if let Some((index, in_q)) = wrong {
            let (result, bytes) = if in_q { (Q, &q) } else { (P, &p) };
            let index = index.index(len);
            rig.set_bytes(result + index as u64, &[bytes[index] ^ 0x40]);
            if in_q && has_q {
                expected = ChanErr::XOR_Q;
            } else if !in_q && has_p {
                expected = ChanErr::XOR_P_OR_CRC;
            }
        }
        let (before_p, before_q) = (rig.bytes(P, len), rig.bytes(Q, len));
        rig.command(0x04);
        rig.set64(CHAINADDR, BASE);
        let slots = descriptor(&rig, op + 1, disable, &addresses, &coefficients, len as u32);
        run(&rig, slots);
        prop_assert_eq!(rig.errors(), expected);
        prop_assert_eq!((rig.bytes(P, len), rig.bytes(Q, len)), (before_p, before_q), "only read");
        let state = if expected.is_empty() { State::Done } else { State::Halted };
        prop_assert_eq!(rig.state(), state as u64);
        prop_assert!(rig.guards_intact());
    }
}

/// Linux: P and Q of more sources than a descriptor takes. The results go in as sources, P with
/// coefficient 0, and Q twice, with 1 and 0, so that it falls out of P.
#[test]
fn a_continued_pq_is_that_of_all_sources() {
    let data = sources(7, LEN as usize, 3);
    let coefficients = [1, 2, 4, 8, 16, 32, 64];
    let (p, q) = parity(&data, &coefficients);
    let rig = armed(all());
    let addresses = placed(&rig, &data);
    let slots = descriptor(&rig, OP_PQ, 0, &addresses[..3], &coefficients[..3], LEN);
    run(&rig, slots);
    rig.command(0x04);
    rig.set64(CHAINADDR, BASE);
    let mut all = addresses[3..].to_vec();
    all.extend([P, Q, Q]);
    let mut factors = coefficients[3..].to_vec();
    factors.extend([0, 1, 0]);
    let slots = descriptor(&rig, OP_PQ, 0, &all, &factors, LEN);
    run(&rig, slots);
    assert_eq!(rig.errors(), ChanErr::empty());
    assert_eq!(rig.bytes(P, LEN as usize), p);
    assert_eq!(rig.bytes(Q, LEN as usize), q);
}

#[test]
fn an_update_replaces_one_source() {
    let mut data = sources(4, LEN as usize, 5);
    let coefficients = [1, 2, 4, 8];
    let rig = armed(all());
    let addresses = placed(&rig, &data);
    let slots = descriptor(&rig, OP_PQ, 0, &addresses, &coefficients, LEN);
    run(&rig, slots);
    let new = sources(9, LEN as usize, 6).pop().expect("nine");
    rig.set_bytes(address(4), &new);
    rig.command(0x04);
    rig.set64(CHAINADDR, BASE);
    let head = Rig::head(OP_PQ_UPDATE, LEN, 4 << 16);
    rig.store(BASE, &[head, addresses[2], P, BASE + 64, address(4), P, Q, Q]);
    run(&rig, 1);
    assert_eq!(rig.errors(), ChanErr::empty());
    data[2] = new;
    let (p, q) = parity(&data, &coefficients);
    assert_eq!(rig.bytes(P, LEN as usize), p);
    assert_eq!(rig.bytes(Q, LEN as usize), q);
}

#[test]
fn a_failed_check_goes_on_without_a_reset_as_linux_does() {
    let data = sources(2, LEN as usize, 1);
    for (op, mask, expected) in [
        (OP_XOR_VAL, 0, ChanErr::XOR_P_OR_CRC),
        (OP_PQ_VAL, 0, ChanErr::XOR_P_OR_CRC | ChanErr::XOR_Q),
        (OP_PQ_VAL, 1 << 16, ChanErr::XOR_P_OR_CRC | ChanErr::XOR_Q),
    ] {
        let rig = armed(all());
        rig.set(CHANERRMASK, Width::W32, mask);
        let addresses = placed(&rig, &data);
        let slots = descriptor(&rig, op, 0, &addresses, &[1, 2], LEN);
        run(&rig, slots);
        assert_eq!(rig.errors(), expected);
        assert_eq!(rig.status(), State::Halted as u64, "nothing is completed");
        assert_eq!(rig.word(COMPLETION), State::Halted as u64);
        assert_eq!(rig.get(CDAR, Width::W64), BASE);
        rig.set64(CHAINADDR, BASE + 64);
        assert_eq!(rig.state(), State::Halted as u64, "not before CHANERR is cleared");
        rig.set(CHANERR, Width::W32, expected.bits().into());
        rig.set64(CHANCMP, COMPLETION);
        rig.set64(CHAINADDR, BASE + 64);
        assert_eq!(rig.state(), State::Armed as u64);
        rig.doorbell(1);
        assert_eq!(rig.run(), 1);
        assert_eq!(rig.word(COMPLETION), (BASE + 64) | State::Done as u64);
    }
}

/// The results of checks as version 3.3 gives them: in the descriptor, with CHANERR masked.
#[test]
fn a_masked_check_writes_its_result_back() {
    let data = sources(2, LEN as usize, 1);
    let (p, q) = parity(&data, &[1, 2]);
    for (op, extra) in [(OP_PQ_VAL, 0), (OP_PQ_VAL_16S, 7)] {
        for (wrong_p, wrong_q) in [(false, false), (true, false), (false, true), (true, true)] {
            let rig = armed(all());
            rig.set(CHANERRMASK, Width::W32, 3 << 16);
            let mut addresses = placed(&rig, &data);
            // The same source an even number of times, with coefficient 0, changes nothing.
            addresses.extend(std::iter::repeat_n(addresses[0], extra + extra % 2));
            rig.set_bytes(P, &p);
            rig.set_bytes(Q, &q);
            if wrong_p {
                rig.set_bytes(P + 2000, &[!p[2000]]);
            }
            if wrong_q {
                rig.set_bytes(Q + 1023, &[!q[1023]]);
            }
            let slots = descriptor(&rig, op, WB, &addresses, &[1, 2], LEN);
            let before = rig.word(BASE);
            run(&rig, slots);
            let mut expected = ChanErr::empty();
            expected.set(ChanErr::XOR_P_OR_CRC, wrong_p);
            expected.set(ChanErr::XOR_Q, wrong_q);
            assert_eq!(rig.errors(), expected, "noted, masked");
            assert_eq!(rig.status(), (BASE + 64) | State::Done as u64);
            let result = u64::from(wrong_p) << 25 | u64::from(wrong_q) << 26 | 1 << 31;
            let written = before & !0xffff_ffff | result;
            assert_eq!(rig.word(BASE), if expected.is_empty() { before } else { written });
        }
    }
}

#[test]
fn what_is_wrong_with_a_descriptor() {
    let data = sources(9, 64, 1);
    let halts = |config: Config, expected: ChanErr, prepare: &dyn Fn(&Rig, &[u64])| {
        let rig = armed(config);
        let addresses = placed(&rig, &data);
        prepare(&rig, &addresses);
        rig.doorbell(2);
        rig.run();
        assert_eq!(rig.errors(), expected);
        assert_eq!(rig.state(), State::Halted as u64);
        assert!(rig.guards_intact());
    };
    let put = |rig: &Rig, op, control, sources: &[u64]| {
        descriptor(rig, op, control, sources, &[1; 16], 64);
    };
    // Capabilities.
    for op in [OP_XOR, OP_XOR_VAL, OP_PQ, OP_PQ_VAL, OP_PQ_UPDATE, OP_PQ_16S, OP_PQ_VAL_16S] {
        for capability in [
            DmaCapability::empty(),
            DmaCapability::all() - DmaCapability::XOR - DmaCapability::PQ,
            DmaCapability::all() - DmaCapability::XOR - DmaCapability::RAID16SS,
            DmaCapability::all() - DmaCapability::PQ,
        ] {
            let has = match op {
                OP_XOR | OP_XOR_VAL => capability.contains(DmaCapability::XOR),
                OP_PQ_16S | OP_PQ_VAL_16S => {
                    capability.contains(DmaCapability::PQ | DmaCapability::RAID16SS)
                }
                _ => capability.contains(DmaCapability::PQ),
            };
            if !has {
                let config = Config { capability: Some(capability), ..all() };
                halts(config, ChanErr::DESCRIPTOR_CONTROL, &|rig, a| {
                    put(rig, op, 0, if op >= OP_PQ_16S { a } else { &a[..2] });
                });
            }
        }
    }
    // Control words.
    let control = |op, bits| {
        halts(all(), ChanErr::DESCRIPTOR_CONTROL, &move |rig, a| put(rig, op, bits, &a[..2]));
    };
    control(OP_PQ, DISABLE_P | DISABLE_Q);
    control(OP_XOR, DISABLE_P);
    control(OP_XOR, 1 << 8);
    control(OP_PQ, WB);
    control(OP_XOR_VAL, WB);
    control(OP_PQ_VAL, 1 << 16);
    let no_dwbes = all().capability.map(|capability| capability - DmaCapability::DWBES);
    halts(Config { capability: no_dwbes, ..all() }, ChanErr::DESCRIPTOR_CONTROL, &|rig, a| {
        put(rig, OP_PQ_VAL, WB, &a[..2]);
    });
    // Nine sources in a descriptor for eight.
    halts(all(), ChanErr::DESCRIPTOR_CONTROL, &|rig, a| put(rig, OP_PQ, 0, a));
    halts(all(), ChanErr::DESCRIPTOR_CONTROL, &|rig, a| put(rig, OP_XOR, 0, a));
    halts(all(), ChanErr::DESCRIPTOR_CONTROL, &|rig, a| put(rig, OP_PQ_UPDATE, 1 << 5, &a[..2]));
    // The extended descriptor.
    for op in [OP_XOR, OP_PQ] {
        for (next, expected) in [
            (END, ChanErr::NEXT_ADDRESS),
            (BASE - 64, ChanErr::NEXT_ADDRESS),
            (BASE + 72, ChanErr::DESCRIPTOR),
        ] {
            halts(all(), expected, &|rig, a| {
                put(rig, op, 0, &a[..6]);
                rig.store(BASE + 24, &[next]);
            });
        }
        halts(all(), ChanErr::DESCRIPTOR, &|rig, a| {
            put(rig, op, 0, &a[..6]);
            rig.store(BASE + 64 + 24, &[BASE + 3]);
        });
    }
    // The super extended descriptor.
    for sed in [END, BASE + 8, BASE - 64, u64::MAX - 63] {
        halts(all(), ChanErr::SOFT, &|rig, a| {
            put(rig, OP_PQ_16S, 0, a);
            rig.store(BASE + 40, &[sed]);
        });
    }
    // With 10 sources its second half is needed, with 9 it is not.
    halts(all(), ChanErr::SOFT, &|rig, a| {
        put(rig, OP_PQ_16S, 1 << 5, a);
        rig.store(BASE + 40, &[END - 64]);
    });
    // Addresses.
    for op in [OP_XOR, OP_XOR_VAL, OP_PQ, OP_PQ_VAL] {
        halts(all(), ChanErr::SOURCE_ADDRESS, &|rig, a| put(rig, op, 0, &[a[0], END - 32]));
        halts(all(), ChanErr::SOURCE_ADDRESS, &|rig, a| put(rig, op, 0, &[u64::MAX, a[0]]));
        halts(all(), ChanErr::DESTINATION_ADDRESS, &|rig, a| {
            put(rig, op, 0, &a[..2]);
            rig.store(BASE + 16, &[END - 63]);
        });
    }
    halts(all(), ChanErr::DESTINATION_ADDRESS, &|rig, a| {
        put(rig, OP_PQ, 0, &a[..2]);
        rig.store(BASE + 56, &[u64::MAX]);
    });
    // Lengths.
    for len in [0, (1 << 20) + 1] {
        halts(all(), ChanErr::LENGTH, &|rig, a| {
            descriptor(rig, OP_XOR, 0, &a[..2], &[], len);
        });
    }
}

#[test]
fn chansts_shows_a_soft_error() {
    let rig = armed(all());
    let addresses = placed(&rig, &sources(9, 64, 1));
    descriptor(&rig, OP_PQ_16S, 0, &addresses, &[1; 16], 64);
    rig.store(BASE + 40, &[END]);
    rig.doorbell(1);
    rig.run();
    assert_eq!(rig.status(), 0x10 | State::Halted as u64);
    rig.set(CHANERR, Width::W32, ChanErr::SOFT.bits().into());
    assert_eq!(rig.status(), State::Halted as u64);
}

/// An extended descriptor counts, so a count that ends before it is wrong.
#[test]
fn an_extended_descriptor_beyond_dmacount_is_an_error() {
    for op in [OP_XOR, OP_PQ] {
        let rig = armed(all());
        let addresses = placed(&rig, &sources(6, 64, 1));
        descriptor(&rig, op, 0, &addresses, &[1; 16], 64);
        rig.doorbell(1);
        rig.run();
        assert_eq!(rig.errors(), ChanErr::DESCRIPTOR_COUNT);
    }
}

#[test]
fn nine_sources_need_half_a_super_extended_descriptor() {
    let rig = armed(all());
    let data = sources(9, 64, 1);
    let addresses = placed(&rig, &data);
    descriptor(&rig, OP_PQ_16S, 0, &addresses, &[1; 16], 64);
    // Moved to the last 64 bytes of what is mapped.
    for word in 0..8 {
        rig.store(END - 64 + word * 8, &[rig.word(SED + word * 8)]);
    }
    rig.store(BASE + 40, &[END - 64]);
    run(&rig, 1);
    assert_eq!(rig.errors(), ChanErr::empty());
    assert_eq!(rig.bytes(P, 64), parity(&data, &[1; 9]).0);
}
