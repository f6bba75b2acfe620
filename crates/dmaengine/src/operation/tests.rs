use std::num::NonZeroUsize;

use super::*;
use crate::{
    Argument::{P, Q, Source, Target},
    Kind,
};

fn info() -> ChannelInfo {
    ChannelInfo {
        capabilities: Capabilities::all(),
        ring_size: 8,
        max_sg: 4,
        max_xor: 3,
        max_pq: 2,
        xfercap: NonZeroUsize::new(1024).unwrap(),
        ..ChannelInfo::new("test", Kind::Cpu)
    }
}

/// Addresses that nobody follows.
fn at(address: usize) -> *mut u8 {
    std::ptr::without_provenance_mut(address)
}

fn check(operation: &Operation<'_>) -> Result<usize, SubmitError> {
    info().check(operation, Flags::empty())
}

fn overlap(target: Argument, other: Argument) -> Result<usize, SubmitError> {
    Err(SubmitError::Overlap { target, other })
}

fn misaligned(argument: Argument) -> Result<usize, SubmitError> {
    Err(SubmitError::Misaligned { argument, alignment: 64 })
}

fn memcpy(source: usize, target: usize, len: usize) -> Operation<'static> {
    Operation::Memcpy { source: at(source), target: at(target), len }
}

#[test]
fn copies_that_touch_do_not_overlap() {
    for (source, target, len) in [(100, 150, 50), (150, 100, 50), (100, 101, 1), (101, 100, 1)] {
        assert_eq!(check(&memcpy(source, target, len)), Ok(1));
        assert_eq!(check(&memcpy(source, target, len + 1)), overlap(Target(0), Source(0)));
    }
    assert_eq!(check(&memcpy(100, 100, 1)), overlap(Target(0), Source(0)));
}

#[test]
fn lengths_are_within_the_ring() {
    assert_eq!(check(&memcpy(1 << 20, 1 << 24, 1025)), Ok(2));
    assert_eq!(check(&memcpy(1 << 20, 1 << 24, 8192)), Ok(8));
    let too_long = SubmitError::TooLong { len: 8193, max: 8192 };
    assert_eq!(check(&memcpy(1 << 20, 1 << 24, 8193)), Err(too_long));
    assert_eq!(check(&memcpy(1 << 20, 1 << 24, 0)), Err(SubmitError::ZeroLength));
    let fill = |len| Operation::Memset { pattern: 1, target: at(64), len };
    assert_eq!((check(&fill(8193)), check(&fill(8192))), (Err(too_long), Ok(8)));
}

#[test]
fn what_the_channel_lacks_is_named() {
    let mut info = info();
    info.capabilities = Capabilities::MEMSET;
    let refused = SubmitError::Unsupported { operation: OperationKind::Memcpy };
    assert_eq!(info.check(&memcpy(0, 100, 10), Flags::empty()), Err(refused));
    let fill = Operation::Memset { pattern: 1, target: at(64), len: 8 };
    assert_eq!(info.check(&fill, Flags::FENCE), Err(SubmitError::UnsupportedFence));
    assert_eq!(info.check(&fill, Flags::TO_CACHE | Flags::NO_STATUS), Ok(1), "hints");
}

#[test]
fn misaligned_places_are_refused() {
    let mut info = info();
    info.alignment = NonZeroUsize::new(64).unwrap();
    let check = |operation: Operation<'_>| info.check(&operation, Flags::empty());
    for (source, target, len, argument) in
        [(64, 640, 32, Argument::Length), (65, 640, 64, Source(0)), (64, 641, 64, Target(0))]
    {
        assert_eq!(check(memcpy(source, target, len)), misaligned(argument));
    }
    assert_eq!(check(memcpy(64, 640, 128)), Ok(1));
    let fill = |target, len| Operation::Memset { pattern: 1, target: at(target), len };
    assert_eq!(check(fill(65, 64)), misaligned(Target(0)));
    assert_eq!(check(fill(64, 65)), misaligned(Argument::Length));

    let piece = |address, len| Segment { address: at(address), len };
    let piece_mut = |address, len| SegmentMut { address: at(address), len };
    let lists = |second: usize, len: usize, target: usize| {
        let sources = [piece(0, 64), piece(second, len)];
        let targets = [piece_mut(4096, 64), piece_mut(target, len)];
        check(Operation::MemcpySg { sources: &sources, targets: &targets })
    };
    assert_eq!(lists(128, 64, 8192), Ok(2));
    assert_eq!(lists(129, 64, 8192), misaligned(Source(1)));
    assert_eq!(lists(128, 64, 8193), misaligned(Target(1)));
    assert_eq!(lists(128, 65, 8192), misaligned(Source(1)), "the length of the piece");

    let sources = [0, 129].map(|address| at(address).cast_const());
    let pq = |count, p, q| {
        let sources = &sources[..count];
        let [p, q] = [p, q].map(|address| NonNull::new(at(address)));
        let coefficients = &[1, 2][..count];
        let written = check(Operation::Pq { sources, coefficients, p, q, len: 64 });
        let checked = check(Operation::PqVal { sources, coefficients, p, q, len: 64 });
        assert_eq!(written, checked);
        written
    };
    assert_eq!(pq(1, 4096, 8192), Ok(1));
    assert_eq!(pq(2, 4096, 8192), misaligned(Source(1)));
    assert_eq!(pq(1, 4097, 8193), misaligned(P));
    assert_eq!(pq(1, 4096, 8193), misaligned(Q));
}

fn lists(sources: &[(usize, usize)], targets: &[(usize, usize)]) -> Result<usize, SubmitError> {
    let sources: Vec<_> =
        sources.iter().map(|&(address, len)| Segment { address: at(address), len }).collect();
    let targets: Vec<_> =
        targets.iter().map(|&(address, len)| SegmentMut { address: at(address), len }).collect();
    check(&Operation::MemcpySg { sources: &sources, targets: &targets })
}

#[test]
fn lists_are_checked() {
    assert_eq!(lists(&[(0, 10), (100, 20)], &[(200, 15), (300, 15)]), Ok(3));
    assert_eq!(lists(&[(0, 1500)], &[(2000, 1500)]), Ok(2), "XFERCAP");
    let mismatch = SubmitError::LengthMismatch { source_len: 10, target_len: 11 };
    assert_eq!(lists(&[(0, 10)], &[(100, 11)]), Err(mismatch));
    assert_eq!(lists(&[], &[]), Err(SubmitError::ZeroLength));
    assert_eq!(lists(&[(0, 0)], &[(100, 0)]), Err(SubmitError::ZeroLength));
    let empty = |piece| Err(SubmitError::EmptyPiece { piece });
    assert_eq!(lists(&[(0, 10), (50, 0)], &[(100, 10)]), empty(Source(1)));
    assert_eq!(lists(&[(0, 10)], &[(50, 0), (100, 10)]), empty(Target(0)));
    let many = |list| Err(SubmitError::TooManySegments { list, segments: 5, max: 4 });
    assert_eq!(lists(&[(0, 1); 5], &[(100, 5)]), many(Argument::Sources));
    assert_eq!(lists(&[(0, 5)], &[(100, 1); 5]), many(Argument::Targets));
    let both = overlap(Target(1), Target(0));
    assert_eq!(lists(&[(0, 10)], &[(100, 5), (104, 5)]), both, "targets");
    assert_eq!(lists(&[(0, 10)], &[(100, 5), (9, 5)]), overlap(Target(1), Source(0)), "sides");
    assert_eq!(lists(&[(0, 5), (2, 5)], &[(100, 10)]), Ok(2), "sources may");
    assert!(matches!(
        lists(&[(0, usize::MAX), (1, usize::MAX)], &[(1, usize::MAX)]),
        Err(SubmitError::TooLong { .. } | SubmitError::Overlap { .. })
    ));
}

#[test]
fn sources_and_syndromes_are_checked() {
    let sources = [0, 100, 200, 300].map(|address| at(address).cast_const());
    let xor = |count, target| {
        check(&Operation::Xor { sources: &sources[..count], target: at(target), len: 100 })
    };
    assert_eq!(xor(3, 300), Ok(1));
    assert_eq!(xor(3, 299), overlap(Target(0), Source(2)));
    assert_eq!(xor(4, 400), Err(SubmitError::SourceCount { sources: 4, max: 3 }));
    assert_eq!(xor(0, 400), Err(SubmitError::SourceCount { sources: 0, max: 3 }));

    let pq = |coefficients: &[u8], p: Option<usize>, q: Option<usize>| {
        let [p, q] = [p, q].map(|syndrome| syndrome.and_then(|address| NonNull::new(at(address))));
        let sources = &sources[..2];
        let len = 100;
        let written = check(&Operation::Pq { sources, coefficients, p, q, len });
        let checked = check(&Operation::PqVal { sources, coefficients, p, q, len });
        (written, checked)
    };
    assert_eq!(pq(&[1, 2], Some(200), Some(300)), (Ok(1), Ok(1)));
    assert_eq!(pq(&[1, 2], None, Some(300)), (Ok(1), Ok(1)));
    assert_eq!(pq(&[1, 2], Some(250), Some(300)), (overlap(Q, P), Ok(1)));
    assert_eq!(pq(&[1, 2], Some(300), Some(150)), (overlap(Q, Source(1)), Ok(1)));
    assert_eq!(pq(&[1, 2], None, None).1, Err(SubmitError::NoTarget));
    let count = SubmitError::CoefficientCount { sources: 2, coefficients: 1 };
    assert_eq!(pq(&[1], Some(200), None), (Err(count), Err(count)));
}

#[test]
fn pieces_end_at_every_border() {
    let sources =
        [(0x1000, 3), (0x2000, 10)].map(|(address, len)| Segment { address: at(address), len });
    let targets =
        [(0x3000, 6), (0x4000, 7)].map(|(address, len)| SegmentMut { address: at(address), len });
    let pieces: Vec<_> = pieces(&sources, &targets, 4)
        .map(|(source, target, len)| (source.addr(), target.addr(), len))
        .collect();
    assert_eq!(
        pieces,
        [(0x1000, 0x3000, 3), (0x2000, 0x3003, 3), (0x2003, 0x4000, 4), (0x2007, 0x4004, 3)]
    );
}
